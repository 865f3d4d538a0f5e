"""Whole layers: a net with fewer of them, and a training that prepares it for that."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from .. import surgery


def layers(model: nn.Module, keep: Iterable[int], name: str | None = None) -> nn.Module:
    """A copy of `model` with only the layers `keep`, counted from 0, in their order.

    name: of the nn.ModuleList they are in, where the model has several. A config that counts them, as transformers'
    does, counts the new ones, so that save_pretrained and from_pretrained work.
    """
    model = surgery.copied(model)
    name, stack = _stack(model, name)
    keep, before = list(keep), len(stack)
    if not keep or keep != sorted(set(keep)) or not 0 <= keep[0] <= keep[-1] < before:
        raise ValueError(f"keep is some of the layers 0 to {before - 1} of {name!r}, each once, in order; got {keep}")
    surgery.put(model, name, nn.ModuleList(stack[i] for i in keep))
    for module in model.modules():
        if getattr(getattr(module, "config", None), "num_hidden_layers", None) == before:
            module.config.num_hidden_layers = len(keep)
    for i, layer in enumerate(model.get_submodule(name)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):  # transformers' decoders find their cache by it
                module.layer_idx = i
    return model


@contextlib.contextmanager
def layer_drop(model: nn.Module, p: float = 0.5, name: str | None = None) -> Iterator[nn.Module]:
    """Inside the block each layer of `model` is skipped with probability p whenever it is called in train mode.

    So it learns to do without: afterwards `layers` may take some away. Drawn from torch's random state, which
    `train.Training` sets for each step. p: for a net that shall keep the part r of its layers the paper advises 1 - r.
    name: as in `layers`. A layer must map its first argument to a tensor of the same shape.

    Fan, Grave & Joulin 2019, arXiv:1909.11556, sections 3.1 and 3.2.
    """
    if not 0 <= p < 1:
        raise ValueError(f"p is the probability of skipping a layer, at least 0 and below 1, got {p}")

    def perhaps(layer: nn.Module, forward: Callable, hidden: Tensor, *others, **named) -> Tensor:
        return hidden if layer.training and torch.rand(()) < p else forward(hidden, *others, **named)

    stack = list(dict.fromkeys(_stack(model, name)[1]))  # a layer that is used twice is wrapped once
    for layer in stack:
        layer.forward = functools.partial(perhaps, layer, layer.forward)
    try:
        yield model
    finally:
        for layer in stack:
            del layer.forward  # the class's own shows again


def _stack(model: nn.Module, name: str | None) -> tuple[str, nn.ModuleList]:
    """The list of layers of this name; without one, the only one there is."""
    lists = {own: each for own, each in model.named_modules() if isinstance(each, nn.ModuleList) and len(each) > 1}
    if name is None and len(lists) == 1:
        return next(iter(lists.items()))
    if name not in lists:
        came = "no name was given" if name is None else f"{name!r} is none"
        raise ValueError(
            f"the name of an nn.ModuleList of at least two layers is wanted, and {came}; there are "
            f"{', '.join(lists) or 'none in this model'}"
        )
    return name, lists[name]
