"""What every way of compressing needs: find layers by name in a copy of a model, and put others in their place."""

import copy
import fnmatch
import warnings
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn


class _IsConv1D(type):
    def __instancecheck__(cls, layer: object) -> bool:
        return type(layer).__name__ == "Conv1D" and type(layer).__module__.startswith("transformers.")


class Conv1D(metaclass=_IsConv1D):
    """Stand for transformers' Conv1D, as in GPT-2: a linear layer whose weight is (n_in, n_out), not (n_out, n_in)."""


LINEAR = (nn.Linear, Conv1D)


def copied(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode whose weights may be changed; the model given stays as it is.

    A copy of a model that is frozen as a whole (no parameter has requires_grad) learns: a teacher is compressed in
    order to be trained again. Where only some parameters are frozen, the same ones are frozen in the copy.
    """
    made = copy.deepcopy(model).eval()
    if not any(weight.requires_grad for weight in made.parameters()):
        for weight in made.parameters():
            weight.requires_grad_(weight.is_floating_point() or weight.is_complex())
    return made


def layers(
    model: nn.Module,
    names: str | Iterable[str] = "*",
    kind: type | tuple[type, ...] = LINEAR,
    but: str | Iterable[str] = (),
) -> dict[str, nn.Module]:
    """Return name → layer of `kind` whose name fits one of `names` and none of `but`.

    They are in the model's order. Names are as in model.named_modules() and may hold * and ?, such as
    "*.intermediate.dense".
    Raises ValueError where a name fits no layer, or where `but` leaves none, and says what there is.
    """
    names, but = ([each] if isinstance(each, str) else list(each) for each in (names, but))
    there = {name: layer for name, layer in model.named_modules() if isinstance(layer, kind)}
    for wanted in names:
        if not fnmatch.filter(there, wanted):
            known = kind if isinstance(kind, tuple) else (kind,)
            kinds = " or ".join(each.__name__ for each in known if each is not Conv1D)
            raise ValueError(f"no {kinds} of this model is called {wanted!r}; there are {_some(there)}")
    fitting = {name: layer for name, layer in there.items() if any(fnmatch.fnmatch(name, each) for each in names)}
    chosen = {name: layer for name, layer in fitting.items() if not any(fnmatch.fnmatch(name, each) for each in but)}
    if not chosen:
        raise ValueError(
            f"no layer is left to work on: but={but} leaves out every layer that names={names} chooses, "
            f"which are {_some(fitting)}; choose other names, or leave out fewer"
        )
    return chosen


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) or "none at all") + more


def put(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put `layer` into the place called `name`, in place."""
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layer)


def replace(model: nn.Module, layer: nn.Module, made: nn.Module) -> None:
    """Put `made` into every place that `layer` has in the model: a layer used twice stays one."""
    for place in [other for other, module in model.named_modules(remove_duplicate=False) if module is layer]:
        put(model, place, made)


def replace_each(
    model: nn.Module, chosen: Mapping[str, nn.Module], make: Callable[[str, nn.Module], nn.Module]
) -> None:
    """Put make(name, layer) into the place of each chosen layer: one for all that share a weight."""
    made: dict[int, nn.Module] = {}
    for name, layer in chosen.items():
        key = id(layer.weight)
        if key not in made:
            made[key] = make(name, layer)
        replace(model, layer, made[key])


def check_alone(
    model: nn.Module,
    chosen: Mapping[str, nn.Module],
    unless: str = "alike",
    advice: str = "leave it out: but={!r}; or ",
) -> None:
    """Raise ValueError where a chosen layer's weight is the weight of another layer, too.

    unless: what may be, where all layers that use a weight are chosen: they are "alike" in kind and bias, so that one
    layer can take all their places; they are "chosen", whatever else they have; or "never".
    advice: what the message says can be done instead.
    """
    users: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for weight in module.parameters(recurse=False):
            users.setdefault(id(weight), []).append(name)
    for name, layer in chosen.items():
        shared = users.get(id(layer.weight), [])
        together = unless != "never" and set(shared) <= set(chosen)
        if together and unless == "alike":
            together = len({(type(chosen[each]), id(getattr(chosen[each], "bias", None))) for each in shared}) <= 1
        if len(shared) > 1 and not together:
            other = next((each for each in shared if each != name), name)
            both = "choose both; or " if unless == "chosen" else ""
            inside = [each for each in shared if each in chosen]
            raise ValueError(
                f"{name} and {other} share one weight, and they cannot be changed together, so that the weight would "
                f"be kept twice; {both}{advice.format(inside[0] if len(inside) == 1 else inside)}untie them first: "
                "other.weight = nn.Parameter(other.weight.clone())"
            )


def check_parameter(name: str, layer: nn.Module) -> None:
    """Raise ValueError where a layer's weight is no parameter, but computed from others."""
    if not isinstance(layer.weight, nn.Parameter):
        raise ValueError(
            f"the weight of {name} is computed from others as it is used (parametrized), so that it cannot be changed; "
            "end that first: compress.bake, or torch's remove_parametrizations"
        )


def check_plain(name: str, layer: nn.Module) -> None:
    """Raise ValueError where a layer does more than torch's own Linear or Embedding.

    What put a plain layer into its place would lose that.
    """
    check_parameter(name, layer)
    base = nn.Embedding if isinstance(layer, nn.Embedding) else nn.Linear
    if isinstance(layer, base) and type(layer).forward is not base.forward:
        raise ValueError(
            f"{name} is a {type(layer).__name__}, which computes more than torch's {base.__name__} (its forward is its "
            f"own), and that would be lost; leave it out: but={name!r}"
        )
    if getattr(layer, "max_norm", None) is not None:
        raise ValueError(
            f"{name} shortens its rows as it looks them up (max_norm={layer.max_norm}), which its replacement cannot; "
            f"leave it out: but={name!r}"
        )


def matrices(model: nn.Module) -> dict[int, Tensor]:
    """Return id → parameter of two or more dimensions; those of embeddings are left out."""
    words = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {id(weight): weight for weight in model.parameters() if weight.dim() > 1 and id(weight) not in words}


def warn_if_little(model: nn.Module, chosen: Mapping[str, nn.Module], way: str) -> None:
    """Warn where the chosen layers hold less than half of the model's matrices, embeddings left out."""
    every = {key: weight.numel() for key, weight in matrices(model).items()}
    inside = {id(weight) for layer in chosen.values() for weight in layer.parameters()}
    touched = sum(every.get(each, 0) for each in inside)
    if touched < 0.5 * sum(every.values()):
        warnings.warn(
            f"{way} changes {touched / sum(every.values()):.0%} of the numbers in this model's matrices ({len(chosen)} "
            f"layers: {_some(chosen)}); the others are of kinds that it does not know. compress.touched(before, after) "
            "counts what changed",
            stacklevel=3,
        )
