"""The recipe of a model: module by module what stands there, as JSON, and its weights as plain tensors."""

import importlib.metadata
import json
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import kdlab
from kdlab import text

from .quantize import is_packed, unpacked

FORMAT = 1
GROUPS = ("parameters", "buffers", "passing")  # passing: buffers that no state_dict holds


def describe(model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The recipe of a model, and its weights by the name under which each is first met."""
    _check_kinds(model)
    modules, weights, frozen = {}, {}, []
    places: dict[int, str] = {}  # of each module
    sources: dict[int, str] = {}  # of each tensor
    for name, module in told_apart(model):
        if id(module) in places:
            modules[name] = {"same_as": places[id(module)]}
            continue
        places[id(module)] = name
        told = modules[name] = {"type": kind_of(type(module)), "values": _values(module)} | {
            group: {} for group in GROUPS
        }
        if is_packed(module):
            weights |= {inside(name, key): part for key, part in unpacked(module).items()}
        for leaf, tensor, group in own_tensors(module):
            source = told[group][leaf] = sources.setdefault(id(tensor), inside(name, leaf))
            if source == inside(name, leaf):
                weights[source] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                frozen += [source] if group == "parameters" and not tensor.requires_grad else []
    versions = {"kdlab": kdlab.__version__, "torch": str(torch.__version__)}
    recipe = {"format": FORMAT, "versions": versions, "model": _maker(model), "frozen": frozen, "modules": modules}
    return recipe, weights


def told_apart(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Each module by each of its names; not what is inside one that was met before, or in a layer of bytes."""
    met: set[int] = set()
    closed: list[str] = []
    for name, module in model.named_modules(remove_duplicate=False):
        if name.startswith(tuple(closed)):
            continue
        yield name, module
        if id(module) in met or is_packed(module):
            closed.append(f"{name}.")
        met.add(id(module))


def _check_kinds(model: nn.Module) -> None:
    """Raise ValueError for what cannot be described."""
    for name, module in told_apart(model):
        if parametrize.is_parametrized(module):
            raise ValueError(
                f"the weights of {name} are parametrized; compress.bake(model) makes them plain: save that"
            )
        if not is_packed(module) and type(module).get_extra_state is not nn.Module.get_extra_state:
            raise ValueError(f"{name} is a {type(module).__name__} with a state of its own kind, which cannot be kept")
        if not is_packed(module) and hasattr(module, "_packed_params"):
            raise ValueError(f"{name} is a {type(module).__name__} of torch.ao; of those only Linear can be kept")
        for leaf, tensor, _ in own_tensors(module):
            if type(tensor) not in (Tensor, nn.Parameter):
                raise ValueError(
                    f"{inside(name, leaf)} is a {type(tensor).__name__}, and only plain tensors can be kept; "
                    "torch.save(model.state_dict()) keeps it"
                )


def own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor, str]]:
    """A module's own parameters and buffers that are not None: name, tensor, group."""
    for name, tensor in module._parameters.items():
        if tensor is not None:
            yield name, tensor, "parameters"
    for name, tensor in module._buffers.items():
        if tensor is not None:
            yield name, tensor, "passing" if name in module._non_persistent_buffers_set else "buffers"


def _values(module: nn.Module) -> dict[str, Any]:
    """A module's plain attributes, as JSON holds them: sizes, rates, its mode; functions and dtypes by their names."""
    own = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    return {key: plain(value) for key, value in own.items() if plain(value) is not NotImplemented}


def plain(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, torch.dtype):
        return {"dtype": str(value)[6:]}
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType):
        return {"function": f"{value.__module__}.{value.__qualname__}"}
    if type(value) in (tuple, list) and all(type(each) in (bool, int, float, str) for each in value):
        return {type(value).__name__: list(value)}
    return NotImplemented


def kind_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def inside(module: str, leaf: str) -> str:
    return f"{module}.{leaf}" if module else leaf


def _maker(model: nn.Module) -> dict[str, Any]:
    """Who makes the model again: a class of transformers by its config, or the reader."""
    inner = model.model if isinstance(model, text.Bert) else model
    kind, config = type(inner), getattr(inner, "config", None)
    if not kind.__module__.startswith("transformers.") or not hasattr(config, "to_dict"):
        return {"class": type(model).__qualname__}
    return {
        "class": type(model).__qualname__,
        "transformers": kind.__name__,
        "config": json.loads(config.to_json_string(use_diff=False)),
        "attention": getattr(config, "_attn_implementation", None),
        "version": importlib.metadata.version("transformers"),
    }
