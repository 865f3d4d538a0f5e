"""Fewer bits a number: weights rounded to a grid, nets that learn on the grid, and real bytes.

rounded = fake_quantize(net, bits=4)      # still floats, but of 15 values a row: what would 4 bits cost?
aware = prepare_qat(net, bits=2)    # to be trained: rounds as it runs, its gradients go straight through
smaller = int8(int8_embeddings(net))       # a byte a weight, and products of bytes
"""

import contextlib
import warnings
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from . import surgery
from .surgery import copied, layers

ROUNDED = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, surgery.Conv1D)  # layers with a weight to round
Names = str | Collection[str]


def levels(bits: int) -> int:
    """The greatest whole number of the grid, 2^(bits-1) - 1: the grid has it, its opposite and all between, 0 too.

    One value fewer than the bits could tell apart, so that the grid is the same on both sides of zero: 255 at 8 bits,
    3 at 2 bits. As Q8BERT: Zafrir et al. 2019, arXiv:1910.06188, section 3.1.
    """
    if bits not in range(2, 9):
        raise ValueError(
            f"bits must be a whole number from 2 to 8, got {bits!r}; a grid of one bit has no zero and "
            "wants another method (BinaryBERT, arXiv:2012.15701)"
        )
    return 2 ** (int(bits) - 1) - 1


@torch.no_grad()
def steps(weight: Tensor, bits: int, per: str = "channel", fit: str = "largest") -> Tensor:
    """(channels,) the distance between two values of each channel's grid, > 0. weight: (channels, …).

    per: "channel", a grid for each output or word, or "tensor", one for all of them.
    fit: "largest", the grid reaches as far as the weight of the greatest size; "error", only to that share of it at
    which the squared error of the rounding is least: what lies beyond is cut, and what lies within is told apart.

    Jacob et al. 2018, arXiv:1712.05877, section 2.1.
    """
    for name, value, known in (("per", per, ("channel", "tensor")), ("fit", fit, ("largest", "error"))):
        if value not in known:
            raise ValueError(f"{name} is one of {', '.join(known)}, got {value!r}")
    rows = weight.detach().float().reshape(len(weight) if per == "channel" else 1, -1)
    step = rows.abs().amax(dim=1) / levels(bits)
    step = step.clamp(min=1e-12)  # of a channel of zeros
    if fit == "error":
        shares = torch.linspace(1, 0.1, 19, device=rows.device)
        errors = [(rounded(rows, share * step, bits) - rows).square().sum(dim=1) for share in shares]
        step = step * shares[torch.stack(errors).argmin(dim=0)]
    return step.expand(len(weight)).contiguous()


def rounded(weight: Tensor, step: Tensor, bits: int, axis: int = 0) -> Tensor:
    """The weight (channels, …) with each number put onto its channel's grid, by torch's own kernel.

    axis: the dimension of the channels; 1 for transformers' Conv1D.

    Its gradient goes straight through, as if nothing had been rounded (Bengio, Léonard & Courville 2013,
    arXiv:1308.3432, section 4), but for weights beyond the grid's ends, which get none (arXiv:1712.05877, section 3).
    """
    most, zero = levels(bits), torch.zeros_like(step, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, step, zero, axis, -most, most)


class Grid(nn.Module):
    """A parametrization: weight → the same, rounded. The grid is laid once, over the weight that it is made with."""

    def __init__(self, weight: Tensor, bits: int, per: str = "channel", fit: str = "largest", axis: int = 0):
        super().__init__()
        self.bits, self.axis = bits, axis
        self.register_buffer("step", steps(weight.movedim(axis, 0), bits, per, fit))

    def forward(self, weight: Tensor) -> Tensor:
        return rounded(weight, self.step, self.bits, self.axis)

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


def prepare_qat(
    model: nn.Module, bits: int, names: Names = "*", *, per: str = "channel", fit: str = "largest", but: Names = ()
) -> nn.Module:
    """A copy that learns what it will be: it runs on rounded weights, while the weights themselves move freely.

    Train it like any other, then take `bake` of it. names, but: which of its linear, embedding and convolution
    layers, as for `surgery.layers`; the biases stay as they are. bits (2 to 8), per, fit: as for `steps`.
    A weight that two layers share stays shared where both are chosen. What is frozen: as in `surgery.copied`.
    Raises ValueError for a name that fits no layer, a layer that is rounded already or holds NaN, for one of two layers
    that share a weight, or odd bits; warns where, of all layers, those it knows hold little of the model.

    Jacob et al. 2018, arXiv:1712.05877, section 3; of BERT, Q8BERT (arXiv:1910.06188), TernaryBERT (arXiv:2009.12812).
    """
    levels(bits)
    model = copied(model)
    chosen = layers(model, names, ROUNDED, but)
    for name, layer in chosen.items():
        if parametrize.is_parametrized(layer):
            raise ValueError(
                f"the weights of {name} are parametrised already ({', '.join(layer.parametrizations)}); "
                "was the net put on a grid before? bake(net) ends that"
            )
        if not layer.weight.isfinite().all():
            raise ValueError(f"the weight of {name} holds NaN or infinity, which no grid reaches: did it diverge?")
    surgery.check_alone(model, chosen, unless="chosen")
    if names == "*" and not but:
        surgery.warn_if_little(model, chosen, "rounding")
    for layer in chosen.values():
        axis = int(isinstance(layer, surgery.Conv1D))
        grid = Grid(layer.weight, bits, per, fit, axis)
        parametrize.register_parametrization(layer, "weight", grid, unsafe=True)  # its shape and dtype stay: no check
    return model


def bake(model: nn.Module) -> nn.Module:
    """A copy of a net of `prepare_qat` as a plain net: the rounded weights in the place of the free ones."""
    model = copied(model)
    made: dict[int, nn.Parameter] = {}  # of each free weight, the rounded one: what was shared stays shared
    for layer in list(model.modules()):
        if parametrize.is_parametrized(layer, "weight") and isinstance(layer.parametrizations.weight[0], Grid):
            free = layer.parametrizations.weight.original
            weight = made.setdefault(id(free), nn.Parameter(layer.weight.detach().clone(), free.requires_grad))
            layer.__class__ = type(layer).__base__  # torch's remove_parametrizations would break the net given: a copy
            del layer.parametrizations  # has the same class, and it takes the property away from that
            layer.weight = weight
    return model


def fake_quantize(
    model: nn.Module, bits: int, names: Names = "*", *, per: str = "channel", fit: str = "largest", but: Names = ()
) -> nn.Module:
    """A copy with rounded weights, which are still floats: it answers as a net of so many bits would, and is neither
    smaller nor faster. Arguments and errors as for `prepare_qat`."""
    return bake(prepare_qat(model, bits, names, per=per, fit=fit, but=but))


# ---- real bytes


class Int8Embedding(nn.Module):
    """Rows of whole numbers in a byte each, and a step a row: looked up first, then made floats.

    Its state_dict is two plain tensors, so that safetensors keeps it: weight (words, numbers) int8; step (words,): its
    dtype is that of the weight it is made of, and of the numbers it returns.
    """

    def __init__(self, weight: Tensor):
        super().__init__()
        step = steps(weight, 8).to(weight.dtype)
        step = torch.where(step > 0, step, torch.finfo(step.dtype).tiny)  # half precision knows no 1e-12
        whole = (weight.detach().float() / step[:, None].float()).round().clamp(-levels(8), levels(8))
        self.register_buffer("weight", whole.to(torch.int8))
        self.register_buffer("step", step)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight[x] * self.step[x][..., None]

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, {self.weight.shape[1]}, int8"


def int8_embeddings(model: nn.Module, names: Names = "*", *, but: Names = ()) -> nn.Module:
    """A copy whose embeddings keep a byte a number. What `int8` leaves in floats: of a small BERT, half of it.

    A quarter of the bytes; not faster, since a look-up multiplies nothing. The rows no longer learn.
    Raises ValueError for a name that fits no embedding, for one whose weight another layer uses, too, and for one that
    does more than look up.
    """
    model = bake(model)
    chosen = layers(model, names, nn.Embedding, but)
    surgery.check_alone(model, chosen)
    for name, layer in chosen.items():
        surgery.check_plain(name, layer)
    surgery.replace_each(model, chosen, lambda _, layer: Int8Embedding(layer.weight))
    return model


class Int8Linear(nn.Module):
    """A linear layer of bytes in a model of another precision than float32: what comes in and goes out is of that."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.inner, self.dtype = inner, dtype

    @property
    def weight(self) -> Any:
        """Return what `inner` calls its weight: a method, for layers of torch.ao."""
        return self.inner.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.float()).to(self.dtype)


def int8(model: nn.Module, names: Names = "*", *, per: str = "tensor", but: Names = ()) -> nn.Module:
    """A copy that keeps the weights of its linear layers in a byte each and multiplies bytes: smaller, and faster on a
    processor that has instructions for it. Activations are rounded as they come, by their own range.

    Embeddings stay in floats (`int8_embeddings`), as do biases, norms and softmax. per: "tensor" is the faster,
    "channel" the more exact. It runs on the CPU, learns no more, and is kept by torch.save only; a file that runs
    without torch is `export.onnx_int8`'s. By torch.ao's quantize_dynamic, or where torch has lost it by torchao.
    A model of another precision, such as bfloat16, keeps it between its layers. The fast path of
    nn.TransformerEncoderLayer reads weights that are no longer there, and is off in the copy.

    Raises ModuleNotFoundError where neither is there, ValueError for a name that fits no layer, a layer whose weight
    another one uses, too, or that has a forward of its own, or a model not on the CPU; warns where, of all layers, the
    linear ones hold little of the model.
    """
    if per not in ("channel", "tensor"):
        raise ValueError(f"per is channel or tensor, got {per!r}")
    for name, weight in model.named_parameters():
        if weight.device.type != "cpu":
            raise ValueError(f"{name} is on {weight.device}, and products of bytes are the CPU's; use model.cpu()")
    model = bake(model)
    chosen = _multiplying(model, layers(model, names, surgery.LINEAR, but))
    surgery.check_alone(model, chosen)
    if names == "*" and not but:
        surgery.warn_if_little(model, chosen, "int8")
    surgery.replace_each(model, chosen, _plain)
    chosen = {name: model.get_submodule(name) for name in chosen}
    with quietly():
        (_by_torch if _has_torch_ao() else _by_torchao)(model, chosen, per)
    for layer in model.modules():
        if isinstance(layer, nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0  # what its fast path asks first
    return model


def _multiplying(model: nn.Module, chosen: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Return those that are called: nn.MultiheadAttention reads the weight of its out_proj by itself."""
    attentions = [name for name, each in model.named_modules() if isinstance(each, nn.MultiheadAttention)]
    read = tuple(f"{name}.out_proj".lstrip(".") for name in attentions)
    found = {name: layer for name, layer in chosen.items() if not name.startswith(read)}
    if not found:
        raise ValueError(f"{', '.join(chosen)}: torch's attention reads these weights by itself, and wants floats")
    for name, layer in found.items():
        surgery.check_plain(name, layer)
    return found


def _plain(name: str, layer: nn.Module) -> nn.Linear:
    """Return the layer as a Linear of torch, such as transformers' Conv1D."""
    if type(layer) is nn.Linear:
        return layer
    weight = layer.weight.detach()
    weight = (weight.T if isinstance(layer, surgery.Conv1D) else weight).contiguous()
    made = nn.Linear(weight.shape[1], len(weight), layer.bias is not None, device="meta")
    made.weight, made.bias = nn.Parameter(weight), layer.bias
    return made.eval()


def _has_torch_ao() -> bool:
    try:
        from torch.ao.quantization import quantize_dynamic  # noqa: F401
    except ImportError:  # torch says since 2.10 that it will go
        return False
    return torch.backends.quantized.engine != "none"


def _by_torch(model: nn.Module, chosen: dict[str, nn.Module], per: str) -> None:
    from torch.ao import quantization as ao

    how = ao.per_channel_dynamic_qconfig if per == "channel" else ao.default_dynamic_qconfig

    def make(_: str, layer: nn.Module) -> nn.Module:
        dtype = layer.weight.dtype
        made = ao.quantize_dynamic(nn.Sequential(layer.float()), {"0": how}, inplace=True)[0]
        return made if dtype == torch.float32 else Int8Linear(made, dtype).eval()

    surgery.replace_each(model, chosen, make)


def _by_torchao(model: nn.Module, chosen: dict[str, nn.Module], per: str) -> None:
    try:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    except ImportError:
        raise ModuleNotFoundError(
            f"torch {torch.__version__} has no quantize_dynamic any more (torch.ao), and torchao "
            "is not installed: pip install torchao; or use export.onnx_int8"
        ) from None
    quantize_(model, Int8DynamicActivationInt8WeightConfig(), filter_fn=lambda _, name: name in chosen)  # per channel


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without torch.ao's warnings that it will go: `int8` knows what to do then."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*(deprecat|torch.ao|TypedStorage|reduce_range).*")
        yield


# ---- bytes as plain tensors


def is_packed(module: nn.Module) -> bool:
    """Whether this is a linear layer of torch.ao, which packs its weight into bytes."""
    return hasattr(module, "_weight_bias") and hasattr(module, "in_features")


def unpacked(layer: Any) -> dict[str, Tensor]:
    """The weight of a torch.ao layer as plain tensors: whole numbers, their step and zero, and the bias."""
    weight, bias = layer._weight_bias()
    found = {"int8": weight.int_repr()}
    if weight.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric):
        found |= {"step": weight.q_per_channel_scales(), "zero": weight.q_per_channel_zero_points()}
    else:
        found |= {
            "step": torch.tensor(weight.q_scale(), dtype=torch.float64),
            "zero": torch.tensor(weight.q_zero_point()),
        }
    return found | ({} if bias is None else {"bias": bias.detach()})


def packed(name: str, weights: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """What `unpacked` took apart: the quantized weight, the same number by number, and the bias."""
    whole, step, zero = (weights[f"{name}.{key}"] for key in ("int8", "step", "zero"))
    column = (lambda each: each[:, None]) if step.dim() else (lambda each: each)
    floats = ((whole.double() - column(zero)) * column(step)).float()
    if step.dim():
        weight = torch.quantize_per_channel(floats, step, zero, 0, torch.qint8)
    else:
        weight = torch.quantize_per_tensor(floats, float(step), int(zero), torch.qint8)
    if not torch.equal(weight.int_repr(), whole):
        raise ValueError(f"the bytes of {name} could not be packed again as they were; this torch rounds otherwise")
    return weight, weights.get(f"{name}.bias")
