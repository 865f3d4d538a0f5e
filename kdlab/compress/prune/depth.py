"""Whole layers: a net with fewer of them, and a training that prepares it for that."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .. import low_rank, quantize, surgery


def layers(model: nn.Module, keep: Iterable[int], name: str | None = None) -> nn.Module:
    """A copy of `model` with only the layers `keep`, counted from 0, in their order.

    name: of the nn.ModuleList they are in, where the model has several side by side. A config that counts them, as
    transformers' does, counts the new ones, and what it holds one entry a layer of, such as layer_types, is cut alike,
    so that save_pretrained and from_pretrained work.
    Raises ValueError for layers that are not there, and where a model built by the config would give a layer that is
    kept another form in its new place, as the first layer of T5 and ModernBERT has one of its own.
    """
    model = surgery.copied(model)
    name, stack = _stack(model, name)
    keep, before = list(keep), len(stack)
    if not keep or keep != sorted(set(keep)) or not 0 <= keep[0] <= keep[-1] < before:
        raise ValueError(f"keep is some of the layers 0 to {before - 1} of {name!r}, each once, in order; got {keep}")
    configs = _counting(model, name, before)
    if configs:
        _check_forms(name, stack, keep)
    surgery.put(model, name, nn.ModuleList(stack[i] for i in keep))
    for config, count in configs:
        for key, value in list(vars(config).items()):
            if isinstance(value, (list, tuple)) and len(value) == before and not key.endswith(_NOT_BY_LAYER):
                config.__dict__[key] = type(value)(value[i] for i in keep)
        setattr(config, count, len(keep))
    for i, layer in enumerate(model.get_submodule(name)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):  # transformers' decoders find their cache by it
                module.layer_idx = i
    return model


_NOT_BY_LAYER = ("token_id", "token_ids", "tokens", "architectures")  # lists that may be as long by chance


def _counting(model: nn.Module, name: str, before: int) -> list[tuple[Any, str]]:
    """The configs around the list that count its layers, each once, with the attribute that does."""
    parts, found = name.split("."), {}
    for n in range(len(parts)):
        config = getattr(model.get_submodule(".".join(parts[:n])), "config", None)
        counts = ["num_hidden_layers"]
        if getattr(config, "is_encoder_decoder", False) and "decoder" in parts:
            counts = ["num_decoder_layers", "decoder_layers"]
        for count in counts:
            if getattr(config, count, None) == before:
                found[id(config)] = config, count
    return list(found.values())


def _check_forms(name: str, stack: nn.ModuleList, keep: list[int]) -> None:
    for i, k in enumerate(keep):
        if odd := sorted(_form(stack[i]) ^ _form(stack[k])):
            raise ValueError(
                f"layer {k} of {name!r} would become layer {i}, and they differ in {odd[0]}: one loaded by the config "
                f"would be another model. Keep layer {i} in its place: keep=[0, …]"
            )
    if moved := [k for i, k in enumerate(keep) if _scales(stack[i]) != _scales(stack[k])]:
        warnings.warn(
            f"layer {moved[0]} of {name!r} scales its attention by its number, which it keeps here and in "
            "compress.save; transformers' from_pretrained would scale by its new place",
            stacklevel=3,
        )


def _scales(layer: nn.Module) -> dict[str, float]:
    return {
        name: part.scaling for name, part in layer.named_modules() if isinstance(getattr(part, "scaling", 0), float)
    }


def _form(layer: nn.Module) -> set[str]:
    """Names of a layer's parts, but for those that do nothing, and for what a compressed part is made of."""
    inside = [f"{name}." for name, part in layer.named_modules() if name and _compressed(part)]
    return {
        name
        for name, part in layer.named_modules()
        if not isinstance(part, nn.Identity) and not name.startswith(tuple(inside))
    }


def _compressed(part: nn.Module) -> bool:
    kinds = low_rank.Product, quantize.Int8Linear
    return isinstance(part, kinds) or hasattr(part, "_packed_params") or parametrize.is_parametrized(part)


@contextlib.contextmanager
def layer_drop(model: nn.Module, p: float = 0.5, name: str | None = None) -> Iterator[nn.Module]:
    """Inside the block each layer of `model` is skipped with probability p whenever it is called in train mode.

    So it learns to do without: afterwards `layers` may take some away. Drawn from torch's random state, which
    `train.Training` sets for each step. p: for a net that shall keep the part r of its layers the paper advises 1 - r.
    name: as in `layers`. A layer must map its first argument to a tensor of the same shape, or to a tuple that begins
    with one: such a layer is computed even where it is skipped, since what else is in the tuple, as the position bias
    of T5, may be wanted by others. Raises TypeError or ValueError at the first call where it does something else.

    Fan, Grave & Joulin 2019, arXiv:1909.11556, sections 3.1 and 3.2.
    """
    if not 0 <= p < 1:
        raise ValueError(f"p is the probability of skipping a layer, at least 0 and below 1, got {p}")

    def perhaps(layer: nn.Module, forward: Callable, *given, **named) -> Any:
        if not (layer.training and torch.rand(()) < p):
            return forward(*given, **named)
        hidden = given[0] if given else next(iter(named.values()))
        if id(layer) not in returns_tensor:
            with torch.no_grad(), torch.random.fork_rng([hidden.device] if hidden.is_cuda else []):
                returns_tensor[id(layer)] = _returns_tensor(layer, hidden, forward(*given, **named))
        return hidden if returns_tensor[id(layer)] else (hidden, *forward(*given, **named)[1:])

    returns_tensor: dict[int, bool] = {}
    stack = list(dict.fromkeys(_stack(model, name)[1]))  # a layer that is used twice is wrapped once
    for layer in stack:
        layer.forward = functools.partial(perhaps, layer, layer.forward)
    try:
        yield model
    finally:
        for layer in stack:
            del layer.forward  # the class's own shows again


def _returns_tensor(layer: nn.Module, hidden: Tensor, out: Any) -> bool:
    """Whether a layer returns a tensor alone and not a tuple that begins with one; else raise."""
    first = out[0] if isinstance(out, tuple) and out else out
    if not isinstance(first, Tensor):
        raise TypeError(
            f"a {type(layer).__name__} returns a {type(out).__name__}, and a layer that can be skipped returns a "
            "tensor, or a tuple that begins with one"
        )
    if first.shape != hidden.shape:
        raise ValueError(
            f"a {type(layer).__name__} maps the shape {tuple(hidden.shape)} to {tuple(first.shape)}, and a layer that "
            "can be skipped keeps it"
        )
    return isinstance(out, Tensor)


def _stack(model: nn.Module, name: str | None) -> tuple[str, nn.ModuleList]:
    """The list of layers of this name; without one, the only one that is not inside another."""
    lists = {own: each for own, each in model.named_modules() if isinstance(each, nn.ModuleList) and len(each) > 1}
    outer = [own for own in lists if not any(own.startswith(f"{each}.") for each in lists)]
    if name is None and len(outer) == 1:
        return outer[0], lists[outer[0]]
    if name not in lists:
        came = "no name was given" if name is None else f"{name!r} is none"
        raise ValueError(
            f"the name of an nn.ModuleList of at least two layers is wanted, and {came}; there are "
            f"{', '.join(lists) or 'none in this model'}"
        )
    return name, lists[name]
