"""Keep a compressed model in a folder, and load it again with the same answers.

save(small, "small")                     # recipe.json and weights.safetensors
load("small")                            # a model of transformers, or a kdlab.text.Bert
load("small", build=lambda: MyNet())     # your own: build makes the model as it was before it was compressed

The recipe says, module by module, what stands there now: so every way of compressing is kept, and every stack of them.
No code is kept and none is run from the folder but transformers' and kdlab's own classes.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import kdlab
from kdlab import disk, randomness, text

from . import surgery
from .low_rank import Product
from .quantize import Int8Embedding, Int8Linear, is_packed, packed, quietly, unpacked

FORMAT = 1
RECIPE, WEIGHTS = "recipe.json", "weights.safetensors"
LISTS = (nn.ModuleList, nn.Sequential)  # of which a layer may be gone


def save(model: nn.Module, folder: str | Path, *, tokenizer: Any = None) -> Path:
    """Write `model` into `folder` and return the folder; one that `save` wrote before is replaced as a whole.

    model: any nn.Module, compressed or not. What layers share, dtypes, what is frozen and each module's mode are kept;
    gradients and hooks are not. tokenizer: one of transformers, kept in the same folder.
    Raises ValueError, before anything is written, for a model with parts that cannot be kept, and FileExistsError for
    a folder with other files in it.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and ((folder / RECIPE).exists() or not any(folder.iterdir()))):
        raise FileExistsError(f"{folder} is there and holds no {RECIPE}, so it is not replaced; choose another folder")
    recipe, weights = _described(model)
    blob = safetensors.torch.save(weights)
    recipe["sha256"] = hashlib.sha256(blob).hexdigest()
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if tokenizer is not None:
        tokenizer.save_pretrained(part)
    disk.write(part / WEIGHTS, blob)
    disk.write(part / RECIPE, (json.dumps(recipe, indent=1) + "\n").encode())
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder


def load(folder: str | Path, build: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Return the model that `save` wrote into `folder`, on the CPU.

    build: makes your own model as it was before it was compressed, with any weights. A model of transformers needs
    none, nor does a `kdlab.text.Bert`.
    Raises FileNotFoundError where `folder` holds no saved model, ValueError where its files are damaged or were written
    by a later version of kdlab, or where `build` makes another model than the one that was saved.
    """
    recipe, weights = _read(Path(folder))
    model = _built(recipe, build).cpu()
    _put_modules(model, recipe)
    _put_weights(model, recipe, weights)
    return model


# ---- what a model consists of


def _described(model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The recipe of a model, and its weights by the name under which each is first met."""
    _check_kinds(model)
    modules, weights, frozen = {}, {}, []
    places: dict[int, str] = {}  # of each module
    sources: dict[int, str] = {}  # of each tensor
    for name, module in _told_apart(model):
        if id(module) in places:
            modules[name] = {"same_as": places[id(module)]}
            continue
        places[id(module)] = name
        told = modules[name] = {"type": _kind(type(module)), "values": _values(module), "parameters": {}, "buffers": {}}
        if is_packed(module):
            weights |= {_inside(name, key): part for key, part in unpacked(module).items()}
        for leaf, tensor, group in _own(module):
            source = told[group][leaf] = sources.setdefault(id(tensor), _inside(name, leaf))
            if source == _inside(name, leaf):
                weights[source] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                frozen += [source] if group == "parameters" and not tensor.requires_grad else []
    versions = {"kdlab": kdlab.__version__, "torch": str(torch.__version__)}
    recipe = {"format": FORMAT, "versions": versions, "model": _maker(model), "frozen": frozen, "modules": modules}
    return recipe, weights


def _told_apart(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
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
    for name, module in _told_apart(model):
        if parametrize.is_parametrized(module):
            raise ValueError(
                f"the weights of {name} are parametrized; compress.bake(model) makes them plain: save that"
            )
        if not is_packed(module) and type(module).get_extra_state is not nn.Module.get_extra_state:
            raise ValueError(f"{name} is a {type(module).__name__} with a state of its own kind, which cannot be kept")
        if not is_packed(module) and hasattr(module, "_packed_params"):
            raise ValueError(f"{name} is a {type(module).__name__} of torch.ao; of those only Linear can be kept")
        for leaf, tensor, _ in _own(module):
            if type(tensor) not in (Tensor, nn.Parameter):
                raise ValueError(
                    f"{_inside(name, leaf)} is a {type(tensor).__name__}, and only plain tensors can be kept; "
                    "torch.save(model.state_dict()) keeps it"
                )


def _own(module: nn.Module) -> Iterator[tuple[str, Tensor, str]]:
    """A module's own parameters and kept buffers that are not None: name, tensor, group."""
    for name, tensor in module._parameters.items():
        if tensor is not None:
            yield name, tensor, "parameters"
    for name, tensor in module._buffers.items():
        if tensor is not None and name not in module._non_persistent_buffers_set:
            yield name, tensor, "buffers"


def _values(module: nn.Module) -> dict[str, Any]:
    """A module's plain attributes: sizes, rates, its mode; a dtype by its name."""
    own = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    dtypes = {key: {"dtype": str(value)[6:]} for key, value in own.items() if isinstance(value, torch.dtype)}
    return {
        key: value for key, value in own.items() if value is None or type(value) in (bool, int, float, str)
    } | dtypes


def _kind(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _inside(module: str, leaf: str) -> str:
    return f"{module}.{leaf}" if module else leaf


# ---- the model as it was before it was compressed


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
    }


def _built(recipe: dict[str, Any], build: Callable[[], nn.Module] | None) -> nn.Module:
    told = recipe["model"]
    if build is None and "transformers" not in told:
        raise ValueError(
            f"this folder holds a {told['class']}, whose code is yours: load(folder, build=...) wants a function that "
            "makes it as it was before it was compressed"
        )
    with randomness.for_a_while(0):  # the weights drawn here are replaced
        model = build() if build else _of_transformers(told)
    if not isinstance(model, nn.Module) or type(model).__qualname__ != told["class"]:
        raise ValueError(f"build makes a {type(model).__qualname__}, and the folder holds a {told['class']}")
    return model


def _of_transformers(told: dict[str, Any]) -> nn.Module:
    import transformers

    kind = getattr(transformers, told["transformers"], None)
    if kind is None:
        raise ValueError(f"transformers {transformers.__version__} has no {told['transformers']}; take a later version")
    made = kind(kind.config_class.from_dict(told["config"]))
    return text.Bert(made) if told["class"] == "Bert" else made


# ---- putting in what was saved


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not (folder / RECIPE).is_file():
        raise FileNotFoundError(f"{folder} holds no {RECIPE}: compress.save writes a model there that load can read")
    try:
        recipe = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        found = recipe["format"]
        blob = (folder / WEIGHTS).read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the model in {folder} is damaged ({error}); save it again, or take a copy") from error
    if found != FORMAT:
        raise ValueError(
            f"the model in {folder} has the format {found}, and this kdlab reads {FORMAT}: take a later kdlab"
        )
    if hashlib.sha256(blob).hexdigest() != recipe["sha256"]:
        raise ValueError(f"{folder / WEIGHTS} is damaged: it is not the file that was saved; take a copy of it")
    return recipe, safetensors.torch.load(blob)


def _put_modules(model: nn.Module, recipe: dict[str, Any]) -> None:
    """Make the modules those of the recipe: kinds, plain attributes, what is shared; weights are put in later."""
    for name, told in recipe["modules"].items():
        if "same_as" in told:
            surgery.put(model, name, model.get_submodule(told["same_as"]))
            continue
        module = _at(model, name)
        if module is None or _kind(type(module)) != told["type"]:
            module = _replaced(model, name, told, module)
        for key, value in told["values"].items():
            value = getattr(torch, value["dtype"]) if isinstance(value, dict) else value
            if not hasattr(module, key) or getattr(module, key) != value:
                setattr(module, key, value)
    for name, module in list(_told_apart(model)):
        parent, _, own = name.rpartition(".")
        if name in recipe["modules"] or _at(model, name) is None:  # None: inside a layer that has just gone
            continue
        if not isinstance(model.get_submodule(parent), LISTS):
            raise ValueError(f"build makes a module {name}, a {type(module).__name__}, which the saved model lacks")
        model.get_submodule(parent)._modules.pop(own)


def _at(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _replaced(model: nn.Module, name: str, told: dict[str, Any], before: nn.Module | None) -> nn.Module:
    """Put an empty module of the kind that was saved into the place called `name`, and return it."""
    kinds = {_kind(each): each for each in (Product, Int8Embedding, Int8Linear, nn.Linear, nn.Embedding)}
    kind = told["type"]
    parent = model.get_submodule(name.rpartition(".")[0])
    if before is None and not isinstance(parent, (Product, Int8Linear)):
        raise ValueError(f"the saved model has a module {name}, and the one that build makes has none")
    if kind.startswith("torch.ao.nn.quantized.dynamic") and kind.endswith(".Linear"):
        made = _layer_of_bytes(told["values"])
    elif kind in kinds:
        made = kinds[kind].__new__(kinds[kind])
        nn.Module.__init__(made)  # attributes, parts and weights are put in afterwards
        for leaf in ("weight", "bias") if kinds[kind] is nn.Linear else ():
            made.register_parameter(leaf, None)
    else:
        raise ValueError(
            f"{name} is a {kind} in the saved model and a {_kind(type(before))} in the one that build makes: they are "
            "different models"
        )
    surgery.put(model, name, made)
    return made


def _layer_of_bytes(values: dict[str, Any]) -> nn.Module:
    with quietly():
        try:
            from torch.ao.nn.quantized.dynamic import Linear
        except ImportError:
            raise ModuleNotFoundError(
                f"this model holds layers of torch.ao, which torch {torch.__version__} has no longer; load it with the "
                "torch that saved it"
            ) from None
        return Linear(values["in_features"], values["out_features"]).train(values["training"])


def _put_weights(model: nn.Module, recipe: dict[str, Any], weights: dict[str, Tensor]) -> None:
    made: dict[str, Tensor] = {}  # by source, so that what was shared is shared
    for name, told in recipe["modules"].items():
        if "same_as" in told:
            continue
        module: Any = model.get_submodule(name)
        if is_packed(module):
            module.set_weight_bias(*packed(name, weights))
        _check_fits(name, module, told, weights)
        for leaf, source in told["buffers"].items():
            module.register_buffer(leaf, made.setdefault(source, weights[source]))
        for leaf, source in told["parameters"].items():
            if source not in made:
                made[source] = nn.Parameter(weights[source], requires_grad=source not in recipe["frozen"])
            if leaf not in module._parameters:
                module.register_parameter(leaf, None)
            setattr(module, leaf, made[source])
            module._parameters[leaf] = module._parameters.pop(leaf)  # in the order that was saved


def _check_fits(name: str, module: nn.Module, told: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Raise ValueError where what was built has other weights than what was saved; heads may be fewer in a Linear."""
    there = {leaf: tensor for leaf, tensor, _ in _own(module)}
    saved = {leaf: weights[source] for group in ("parameters", "buffers") for leaf, source in told[group].items()}
    if there and there.keys() != saved.keys():
        raise ValueError(
            f"{name} holds {', '.join(there)} in what build makes and {', '.join(saved)} in what was saved"
        )
    for leaf, tensor in there.items():
        if tensor.shape != saved[leaf].shape and not isinstance(module, nn.Linear):
            raise ValueError(
                f"{_inside(name, leaf)} is {tuple(tensor.shape)} in what build makes and {tuple(saved[leaf].shape)} in "
                "what was saved: they are different models"
            )
