"""What every way of compressing needs: find layers by name in a copy of a net, and put others in their place."""

import copy
import fnmatch
from collections.abc import Iterable

from torch import nn


def copied(model: nn.Module) -> nn.Module:
    """A copy whose weights may be changed, in eval mode: the net that was given stays as it is."""
    return copy.deepcopy(model).requires_grad_(True).eval()


def layers(
    model: nn.Module,
    names: str | Iterable[str] = "*",
    kind: type | tuple[type, ...] = nn.Linear,
    but: str | Iterable[str] = (),
) -> dict[str, nn.Module]:
    """Name → layer, in the model's order: its layers of `kind` whose name fits one of `names` and none of `but`.

    Names are as in model.named_modules() and may hold * and ?, such as "*.intermediate.dense".
    Raises ValueError where a name fits no layer, and says what there is.
    """
    names, but = ([each] if isinstance(each, str) else list(each) for each in (names, but))
    there = {name: layer for name, layer in model.named_modules() if isinstance(layer, kind)}
    for wanted in names:
        if not fnmatch.filter(there, wanted):
            kinds = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
            some = ", ".join(list(there)[:5]) or "none at all"
            raise ValueError(
                f"no {kinds} of this model is called {wanted!r}; there are {some}"
                f"{f' and {len(there) - 5} more' if len(there) > 5 else ''}"
            )
    return {
        name: layer
        for name, layer in there.items()
        if any(fnmatch.fnmatch(name, each) for each in names) and not any(fnmatch.fnmatch(name, each) for each in but)
    }


def put(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put `layer` into the place called `name`, in place."""
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layer)
