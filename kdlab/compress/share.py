"""One layer's weights used in several layers: fewer parameters, as many operations.

albert = share_layers(net)             # one layer, used everywhere
pairs = share_layers(net, groups=3)    # of six layers: the first two are one, the next two, the last two
"""

import torch
from torch import nn

from .surgery import copied, layers

LISTS = (nn.ModuleList, nn.Sequential)


@torch.no_grad()
def share_layers(model: nn.Module, groups: int = 1, name: str | None = None, *, start: str = "first") -> nn.Module:
    """A copy whose layers, run after run, are one layer used several times: kept once, counted once, and a gradient is
    the sum of what every use asks for. It computes as much as before, and is wrong until it is trained again.

    groups: into how many runs of neighbors the layers fall; 1, all are one; as many as layers, nothing changes.
    name: of the ModuleList or Sequential that holds the layers; not needed where one alone holds layers that are alike.
    start: a group begins with the weights of its "first" layer, or with the "mean" of its layers', which is worse where
    they learned apart: the units of two layers have nothing to do with each other, so their mean is no layer.
    Layers that know their place, as those of transformers' decoders do (layer_idx: where their keys and values are
    cached; a sliding window), stay modules of their own and share each weight; all others become one module.
    Raises ValueError for groups that are too few or too many, and for layers whose weights differ in name or shape.

    Lan et al. 2019 (ALBERT), arXiv:1909.11942, section 3.1; groups in its section 4.5 and in its published code.
    """
    if start not in ("mean", "first"):
        raise ValueError(f"start is mean or first, got {start!r}")
    model = copied(model)
    name, held = _layers(model, name)
    if groups not in range(1, len(held) + 1):
        raise ValueError(f"groups must be a whole number from 1 to {len(held)}, the layers in {name}, got {groups!r}")
    decodes = _decodes(model, name, held)
    for run in torch.arange(len(held)).tensor_split(int(groups)):
        members = [held[i] for i in run.tolist()]
        if start == "mean":
            _average(members)
        for i in run.tolist():
            if decodes:
                _tie(members[0], held[i])
            else:
                held[i] = members[0]
    return model


def _decodes(model: nn.Module, name: str, held: nn.Module) -> bool:
    """Whether the layers know their place: those of encoders have a layer_idx and do not use it."""
    config = getattr(_owner(model, name), "config", None)
    encodes = getattr(config, "is_decoder", None) is False
    if getattr(config, "is_encoder_decoder", False) and "decoder" in name.split("."):
        encodes = False
    return not encodes and any(hasattr(module, "layer_idx") for module in held.modules())


def _owner(model: nn.Module, name: str) -> nn.Module:
    """The innermost module around the list that has a config; the model where there is none."""
    parts = name.split(".")
    around = [model.get_submodule(".".join(parts[:n])) for n in range(len(parts))]
    return next((module for module in reversed(around) if hasattr(module, "config")), model)


def _tie(first: nn.Module, other: nn.Module) -> None:
    """Make every parameter and buffer of `other` the one of `first`, in place."""
    for one, another in zip(first.modules(), other.modules(), strict=True):
        for kept, gone in ((one._parameters, another._parameters), (one._buffers, another._buffers)):
            gone.update(kept)


def _layers(model: nn.Module, name: str | None) -> tuple[str, nn.Module]:
    """The list of layers called `name`, or the only one whose layers are alike."""
    if name is not None:
        found = layers(model, name, LISTS)
        if len(found) > 1:
            raise ValueError(f"{name!r} fits {', '.join(found)}; share the layers of one after those of another")
        ((name, held),) = found.items()
        _check(name, held)
        return name, held
    there = {each: held for each, held in model.named_modules() if isinstance(held, LISTS)}
    alike = {
        each: held
        for each, held in there.items()
        if len(held) > 1 and len({_shapes(one) for one in held}) == 1 and _shapes(held[0])
    }
    if len(alike) != 1:
        raise ValueError(
            f"name the list of layers to share: {len(alike)} of this model hold layers that are alike "
            f"({', '.join(alike or there) or 'it has no ModuleList or Sequential at all'})"
        )
    ((name, held),) = alike.items()
    _check(name, held)
    return name, held


def _check(name: str, held: nn.Module) -> None:
    if any(not isinstance(value, torch.Tensor) for value in held.state_dict().values()):
        raise ValueError(f"the layers of {name} pack their weights into bytes; share first, then take compress.int8")
    for i, layer in enumerate(held):
        odd = sorted(set(_shapes(held[0])) ^ set(_shapes(layer)))
        if odd:
            raise ValueError(
                f"the layers 0 and {i} of {name} cannot share their weights: {odd[0][0]} has the shape "
                f"{odd[0][1]} in one of them only; were heads or units cut out? share first, then cut"
            )


def _shapes(layer: nn.Module) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, tuple(getattr(value, "shape", ()))) for name, value in layer.state_dict().items())


def _average(members: list[nn.Module]) -> None:
    """Write the mean of the layers' weights into the first, in place."""
    for values in zip(*(layer.state_dict().values() for layer in members), strict=True):
        if values[0].is_floating_point():
            values[0].copy_(torch.stack(values).mean(dim=0))
