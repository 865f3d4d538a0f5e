"""Keep a compressed model in a folder, and load it again with the same answers.

save(small, "small")                     # recipe.json and weights.safetensors
load("small")                            # a model of transformers, or a kdlab.text.Bert
load("small", build=lambda: MyNet())     # your own: build makes the model as it was before it was compressed

The recipe says, module by module, what stands there now: so every way of compressing is kept, and every stack of them.
No code is kept and none is run from the folder but transformers' and kdlab's own classes.
"""

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from kdlab import disk, randomness, text

from . import surgery
from .low_rank import Product
from .quantize import Int8Embedding, Int8Linear, is_packed, packed, quietly
from .recipe import FORMAT, describe, inside, kind_of, own_tensors, plain, told_apart

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
    recipe, weights = describe(model)
    blob = safetensors.torch.save(weights)
    recipe["sha256"] = hashlib.sha256(blob).hexdigest()
    with _replacing(folder) as part:
        if tokenizer is not None:
            tokenizer.save_pretrained(part)
        disk.write(part / WEIGHTS, blob)
        disk.write(part / RECIPE, (json.dumps(recipe, indent=1) + "\n").encode())
    return folder


@contextlib.contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of `folder` when the block ends well, and leaves no trace else."""
    mark = secrets.token_hex(4)
    part, old = (folder.with_name(f".{folder.name}.{mark}.{kind}") for kind in ("part", "old"))
    part.mkdir(parents=True)
    try:
        yield part
        if folder.exists():
            folder.rename(old)
        try:
            part.rename(folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        for rest in (part, old):
            shutil.rmtree(rest, ignore_errors=True)


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


# ---- the model as it was before it was compressed


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
    config = kind.config_class.from_dict(told["config"], attn_implementation=told["attention"])
    made = kind(config)
    return text.Bert(made) if told["class"] == "Bert" else made


# ---- putting in what was saved


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not (folder / RECIPE).is_file():
        raise FileNotFoundError(f"{folder} holds no {RECIPE}: compress.save writes a model there that load can read")
    try:
        recipe = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        found, digest = recipe["format"], recipe["sha256"]
        blob = (folder / WEIGHTS).read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the model in {folder} is damaged ({error}); save it again, or take a copy") from error
    if found != FORMAT:
        raise ValueError(
            f"the model in {folder} has the format {found}, and this kdlab reads {FORMAT}: take a later kdlab"
        )
    if hashlib.sha256(blob).hexdigest() != digest:
        raise ValueError(f"{folder / WEIGHTS} is damaged: it is not the file that was saved; take a copy of it")
    return recipe, safetensors.torch.load(blob)


def _put_modules(model: nn.Module, recipe: dict[str, Any]) -> None:
    """Make the modules those of the recipe: kinds, plain attributes, what is shared; weights are put in later."""
    for name, told in recipe["modules"].items():
        if "same_as" in told:
            surgery.put(model, name, model.get_submodule(told["same_as"]))
            continue
        module = _at(model, name)
        if module is None or kind_of(type(module)) != told["type"]:
            module = _replaced(model, name, told, module)
        for key, value in told["values"].items():
            _set(name, module, key, value)
    for name, module in list(told_apart(model)):
        parent, _, own = name.rpartition(".")
        if name in recipe["modules"] or _at(model, name) is None:  # None: inside a layer that has just gone
            continue
        if not isinstance(model.get_submodule(parent), LISTS):
            raise ValueError(f"build makes a module {name}, a {type(module).__name__}, which the saved model lacks")
        model.get_submodule(parent)._modules.pop(own)


def _set(name: str, module: nn.Module, key: str, value: Any) -> None:
    """Give a module an attribute as it was saved; a function can only be compared with the one of the build."""
    if hasattr(module, key) and plain(getattr(module, key)) == value:
        return
    if isinstance(value, dict):
        ((kind, value),) = value.items()
        if kind == "function":
            raise ValueError(
                f"{inside(name, key)} is {value} in the saved model, and {getattr(module, key, 'nothing')} in the one "
                "that build makes: they are different models"
            )
        value = {"dtype": lambda: getattr(torch, value), "tuple": lambda: tuple(value), "list": lambda: value}[kind]()
    setattr(module, key, value)


def _at(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _replaced(model: nn.Module, name: str, told: dict[str, Any], before: nn.Module | None) -> nn.Module:
    """Put an empty module of the kind that was saved into the place called `name`, and return it."""
    kinds = {kind_of(each): each for each in (Product, Int8Embedding, Int8Linear, nn.Linear, nn.Embedding)}
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
            f"{name} is a {kind} in the saved model and a {kind_of(type(before))} in the one that build makes: they "
            "are different models"
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
        for group in ("buffers", "passing"):
            for leaf, source in told[group].items():
                tensor = made.setdefault(source, weights[source])
                module.register_buffer(leaf, tensor, persistent=group == "buffers")
        for leaf, source in told["parameters"].items():
            if source not in made:
                made[source] = nn.Parameter(weights[source], requires_grad=source not in recipe["frozen"])
            if leaf not in module._parameters:
                module.register_parameter(leaf, None)
            setattr(module, leaf, made[source])
            module._parameters[leaf] = module._parameters.pop(leaf)  # in the order that was saved


def _check_fits(name: str, module: nn.Module, told: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Raise ValueError where what was built has other weights than what was saved; heads may be fewer in a Linear."""
    there = {leaf: tensor for leaf, tensor, group in own_tensors(module) if group != "passing"}
    saved = {leaf: weights[source] for group in ("parameters", "buffers") for leaf, source in told[group].items()}
    if there and there.keys() != saved.keys():
        raise ValueError(
            f"{name} holds {', '.join(there)} in what build makes and {', '.join(saved)} in what was saved"
        )
    for leaf, tensor in there.items():
        if tensor.shape != saved[leaf].shape and not isinstance(module, nn.Linear):
            raise ValueError(
                f"{inside(name, leaf)} is {tuple(tensor.shape)} in what build makes and {tuple(saved[leaf].shape)} in "
                "what was saved: they are different models"
            )
