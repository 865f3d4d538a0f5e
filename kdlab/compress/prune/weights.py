"""Weights at zero: at once, held there while the rest learns, or ever more of them while it learns."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from .. import surgery


def magnitude(
    model: nn.Module, share: float, names: str | Iterable[str] = "*", *, per_layer: bool = False
) -> nn.Module:
    """A copy of `model` with the smallest of its linear layers' weights at zero; shapes and biases stay.

    share: of those weights that are zero afterwards, in [0, 1); zeros that are there already count first.
    names: of the layers, as in `surgery.layers`, such as "*encoder*". per_layer: cut the same share of each layer,
    instead of the smallest of all of them together, wherever they are. A weight that an embedding shares with a linear
    layer stays shared, so that the embedding gets the same zeros. Raises ValueError for a name that fits no layer;
    warns where the linear layers hold little of the model.

    Han et al. 2015, arXiv:1506.02626, section 3.
    """
    model = surgery.copied(model)
    cut = _weights(model, names)
    if names == "*":
        surgery.warn_if_little(model, surgery.layers(model), "magnitude")
    _apply(cut, _kept(cut, fraction(share), per_layer))
    return model


def zeros(model: nn.Module, names: str | Iterable[str] = "*") -> float:
    """The share of the linear layers' weights that is zero, in [0, 1]. names: as in `magnitude`."""
    found = _weights(model, names)
    return 1 - sum(int(weight.count_nonzero()) for weight in found) / sum(weight.numel() for weight in found)


@contextlib.contextmanager
def hold_zeros(model: nn.Module, names: str | Iterable[str] = "*") -> Iterator[nn.Module]:
    """Inside the block the weights of `model` that are zero now stay zero, while the course's one loop trains it.

    The loop calls `model.constrain()` after every step (`train.Training`; your own loop has to). The model itself stays
    plain: nothing is added to its state_dict, and nothing is left on it after the block.
    """
    cut = _weights(model, names)
    masks = [weight != 0 for weight in cut]
    with _after_each_step(model, lambda: _apply(cut, masks)):
        yield model


@contextlib.contextmanager
def gradually(
    model: nn.Module,
    share: float,
    steps: int,
    names: str | Iterable[str] = "*",
    *,
    every: int = 10,
    per_layer: bool = False,
) -> Iterator[nn.Module]:
    """Inside the block ever more of the weights of `model` become zero, while the course's one loop trains it.

    In place. After `steps` steps it is `share` of them, by the course of `cubic`; in later steps the rest recovers.
    every: steps from one cut to the next. What is zero stays zero. names, per_layer: as in `magnitude`.
    Raises ValueError at the end of the block where fewer than `steps` steps were taken.
    """
    share, cut, taken = fraction(share), _weights(model, names), 0
    masks = [weight != 0 for weight in cut]

    def constrain() -> None:
        nonlocal taken, masks
        taken += 1
        _apply(cut, masks)
        if taken == steps or (taken < steps and taken % every == 0):
            masks = _kept(cut, cubic(taken / steps, share), per_layer)
            _apply(cut, masks)

    with _after_each_step(model, constrain):
        yield model
    if taken < steps:
        raise ValueError(
            f"the share of zeros was to grow for {steps} steps, and {taken} were taken: it ends at "
            f"{zeros(model, names):.0%} and not at {share:.0%}; train longer, or let it grow faster"
        )


def cubic(progress: float, share: float) -> float:
    """The share of zeros when `progress`, in [0, 1], of the cutting is done: much at first, less and less to the end.

    Zhu & Gupta 2017, arXiv:1710.01878, eq. 1, beginning at none.
    """
    return share * (1 - (1 - progress) ** 3)


def _weights(model: nn.Module, names: str | Iterable[str]) -> list[nn.Parameter]:
    """The weights of the linear layers of these names, once where layers share one."""
    found = surgery.layers(model, names)
    for name, layer in found.items():
        surgery.check_parameter(name, layer)
    return list({id(layer.weight): layer.weight for layer in found.values()}.values())


def _kept(weights: list[nn.Parameter], share: float, per_layer: bool) -> list[Tensor]:
    """A mask a weight matrix: what is left when the smallest `share` of all of them, or of each, is gone."""
    if per_layer:
        return [mask for weight in weights for mask in _kept([weight], share, per_layer=False)]
    sizes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    stay = torch.ones_like(sizes, dtype=torch.bool)
    stay[sizes.topk(round(share * len(sizes)), largest=False, sorted=False).indices] = False
    parts = stay.split([weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]


@torch.no_grad()
def _apply(weights: list[nn.Parameter], masks: list[Tensor]) -> None:
    for weight, mask in zip(weights, masks, strict=True):
        weight.masked_fill_(~mask, 0)  # a product with the mask would leave -0.0, and NaN where a weight broke


@contextlib.contextmanager
def _after_each_step(model: nn.Module, work: Callable[[], None]) -> Iterator[None]:
    """Let `model.constrain()` do `work`, too."""
    own, before = getattr(model, "constrain", None), dict(model.__dict__)

    def constrain() -> None:
        if own is not None:
            own()
        work()

    model.constrain = constrain
    try:
        yield
    finally:
        del model.constrain
        if "constrain" in before:  # of a block around this one
            model.constrain = before["constrain"]


def fraction(share: float) -> float:
    """`share` as a number, if it is one that can go."""
    if not 0 <= share < 1:
        raise ValueError(f"share is the part that goes, at least 0 and below 1, got {share}; for 30 % give 0.3")
    return float(share)
