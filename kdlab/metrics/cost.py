"""What a net costs: one function for each thing, because they part. A net with half its weights at zero is neither
smaller nor faster; one that shares its layers is smaller and not faster; one in bytes is smaller in memory before it
is faster.

Every function takes any nn.Module, and its inputs where it must run.
"""

import contextlib
import io
import math
import statistics
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from kdlab import machine
from kdlab.models import call, evaluating


def parameters(model: nn.Module) -> int:
    """Numbers in the model's weights, each counted once even where layers share it; bytes of quantized layers too."""
    return sum(weight.numel() for weight in weights(model).values())


def nonzero(model: nn.Module) -> int:
    """Of `parameters`, those that are not zero."""
    return sum(
        int(weight.count_nonzero() if not weight.is_quantized else weight.int_repr().count_nonzero())
        for weight in weights(model).values()
    )


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Every weight of the model by name, once where layers share it: its parameters, and what quantized layers keep in
    bytes or pack away, which `model.parameters()` leaves out."""
    found: dict[str, Tensor] = dict(model.named_parameters())
    found |= {name: buffer for name, buffer in model.named_buffers() if buffer.dtype == torch.int8}
    for name, layer in model.named_modules():
        if hasattr(layer, "in_features") and hasattr(layer, "_weight_bias"):  # torch.ao's quantized layers
            weight, bias = layer._weight_bias()
            found |= {f"{name}.weight": weight} | ({} if bias is None else {f"{name}.bias": bias})
    return found


def weight_bytes(model: nn.Module) -> int:
    """Bytes of the model's weights in memory, each counted once even where layers share it."""
    return sum(weight.numel() * weight.element_size() for weight in weights(model).values())


def disk_bytes(model: nn.Module) -> int:
    """Bytes of the file that keeps the model: safetensors, or torch's own format where a layer packs its weights.

    Weights that layers share are kept once.
    """
    state = model.state_dict()
    if all(isinstance(value, Tensor) and not value.is_quantized for value in state.values()):
        once = {(t.data_ptr(), t.shape, t.stride()) if t.numel() else name: (name, t) for name, t in state.items()}
        return len(safetensors.torch.save({name: t.detach().contiguous().clone() for name, t in once.values()}))
    file = io.BytesIO()
    torch.save(state, file)
    return file.tell()


def multiply_adds(model: nn.Module, *inputs: Any) -> int:
    """Multiplications, each with its addition, in one forward pass: of matrix products, convolutions, attention and
    recurrent layers, zeros included. Additions, norms, look-ups and activations do not count.

    Counted by torch's FlopCounterMode, which is told here of the kernels that a CPU uses and it does not know.
    """
    fast_path, counter = torch.backends.mha.get_fastpath_enabled(), FlopCounterMode(display=False, custom_mapping=_MORE)
    torch.backends.mha.set_fastpath_enabled(False)  # it hides the products of nn.TransformerEncoder
    try:
        with evaluating(model), counter:
            _call(model, inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return counter.get_total_flops() // 2


def _call(model: nn.Module, inputs: tuple) -> None:
    """One pass, with the attention mask that a model of transformers wants."""
    (x,) = inputs if len(inputs) == 1 else (None,)
    if isinstance(x, Tensor | Mapping):
        call(model, x)
    else:
        model(*inputs)


def _attention(query, key, value, *_, out_shape=None, **__) -> int:
    """Two products a head: queries with keys, weights with values. Shapes (batch, heads, tokens, numbers)."""
    batch, heads, tokens, numbers = query
    return 2 * batch * heads * tokens * key[2] * (numbers + value[3])


def _recurrent(x, into, across, *_, out_shape=None, **__) -> int:
    """One direction of an LSTM or GRU: x (tokens, batch, numbers); into, across: its two matrices."""
    return 2 * x[0] * x[1] * (math.prod(into) + math.prod(across))


def _linear(x, *_, out_shape, **__) -> int:
    return 2 * math.prod(x) * out_shape[-1]


_MORE = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten.mkldnn_rnn_layer: _recurrent,
    torch.ops.quantized.linear_dynamic: _linear,
}


class Timing(NamedTuple):
    """Milliseconds of one forward pass: the median of `n` passes, their quartiles, and the CPU threads used."""

    median: float
    low: float
    high: float
    n: int
    threads: int


def latency(
    model: nn.Module, *inputs: Any, repeats: int = 30, warm: int = 5, threads: int | None = None, seconds: float = 10.0
) -> Timing:
    """How long a forward pass takes: in eval mode, without gradients, after `warm` passes that do not count.

    threads: default as `machine.thread_count`. On a graphics processor each pass is waited for. seconds: no pass but
    the first three begins later; where that leaves fewer than asked for, at least half of them count.
    """
    return in_turns([model], [inputs], repeats=repeats, warm=warm, threads=threads, seconds=seconds)[0]


def in_turns(
    models: Sequence[nn.Module],
    inputs: Sequence[Any],
    *,
    repeats: int = 30,
    warm: int = 5,
    threads: int | None = None,
    seconds: float = 10.0,
) -> list[Timing]:
    """Time several models in turns, A B A B …, so that what slows the machine for a while slows all of them.

    inputs: a tensor, or a tuple of arguments, for each pass; where they are fewer than the passes they come again from
    the first. Every model gets the same. The rest as for `latency`, whose answer each model gets.
    """
    if repeats < 2 or warm < 0:
        raise ValueError(f"repeats must be at least 2 and warm at least 0, got {repeats} and {warm}")
    given = [each if isinstance(each, tuple) else (each,) for each in inputs]
    with contextlib.ExitStack() as stack:
        for model in models:
            stack.enter_context(evaluating(model))
        n_threads = stack.enter_context(machine.threads(threads))
        taken = list(_passes(models, given, warm + repeats, seconds * len(models)))
    taken = taken[-max(len(taken) - warm, min(repeats, math.ceil(len(taken) / 2))) :]
    return [_timing(each, n_threads) for each in zip(*taken, strict=True)]


def _timing(taken: Sequence[float], n_threads: int) -> Timing:
    low, median, high = statistics.quantiles(taken, n=4, method="inclusive")
    return Timing(1000 * median, 1000 * low, 1000 * high, len(taken), n_threads)


def _passes(
    models: Sequence[nn.Module], inputs: Sequence[tuple], n: int, seconds: float
) -> Iterator[tuple[float, ...]]:
    end = time.perf_counter() + seconds
    for i in range(n):
        if i >= 3 and time.perf_counter() > end:
            return
        yield tuple(_pass(model, inputs[i % len(inputs)]) for model in models)


def _pass(model: nn.Module, inputs: tuple) -> float:
    begun = time.perf_counter()
    _call(model, inputs)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def memory(model: nn.Module, *inputs: Any) -> int:
    """Bytes of the tensors that a forward pass holds at once, at its peak, beside the weights and the inputs.

    What a kernel uses inside itself, such as an attention's scratch, is not seen.
    """
    own = [*model.parameters(), *model.buffers(), *(leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor))]
    with evaluating(model), machine.threads(), _Held(own) as held:
        _call(model, inputs)
    return held.peak


class _Held(TorchDispatchMode):
    """Adds up the storages that operations make, until they are freed."""

    def __init__(self, known: list[Tensor]):
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage().data_ptr() for tensor in known if not tensor.is_quantized}
        self._seen = weakref.WeakSet()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):  # ty: ignore[lost-keyword-for-regular-parameter]
        made = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage.data_ptr() not in self._known and storage not in self._seen:  # else it is a view
            self._seen.add(storage)
            weakref.finalize(storage, self._free, storage.nbytes())
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)

    def _free(self, n_bytes: int) -> None:
        self.now -= n_bytes
