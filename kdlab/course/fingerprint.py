"""Digest what a result depends on: a function's code, the values it reads, and the kdlab code that it uses.

Code counts by its syntax tree without docstrings: a changed comment or line break changes no digest, a changed
statement does. Of other libraries only the names of what is called count, of the machine nothing.
"""

import ast
import dis
import enum
import functools
import hashlib
import importlib.util
import inspect
import itertools
import sys
import sysconfig
import textwrap
import types
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# What these rooms hold decides where and how fast something is computed, kept or drawn, not what comes out.
WITHOUT_EFFECT = (
    *("kdlab.machine", "kdlab.parallel", "kdlab.store", "kdlab.disk", "kdlab.place", "kdlab.checkpoints"),
    *("kdlab.plots", "kdlab.widgets", "kdlab.course"),
)
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


class Tracer:
    """Follow what a function reads, and what the functions that it calls read.

    code: the digest of each function's and class's own source, by name. values: a digest of each value read, by name.
    """

    def __init__(self) -> None:
        self.code: dict[str, str] = {}
        self.values: dict[str, str] = {}
        self._seen: dict[int, Any] = {}  # by id, and held, so that no other object gets it

    def digest(self) -> str:
        """One digest of all that was followed."""
        return shorten(repr((sorted(self.code.items()), sorted(self.values.items()))), 16)

    def follow(self, found: Any, name: str, strict: bool = True) -> None:
        """Follow `found`, which code calls `name`. strict: raise TypeError for a value that cannot be digested."""
        found = getattr(found, "__wrapped__", found)
        if isinstance(found, types.ModuleType):
            self.values[name] = found.__name__
        elif isinstance(found, types.FunctionType | type):
            self._code(found, name)
        elif type(found).__module__.startswith(WITHOUT_EFFECT) and not isinstance(found, dict):
            self.values[name] = label(type(found))
        else:
            try:
                self.values[name] = self.of_value(found, name)
            except TypeError:
                if strict:
                    raise
                self.values[name] = label(type(found))

    def of_value(self, value: Any, name: str) -> str:
        """The digest of a value: plain ones, tensors by all their bytes, models, functions, and what holds them."""
        digest = hashlib.sha256()
        for part in self._parts(value, name):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.hexdigest()[:16]

    def _code(self, found: Any, name: str) -> None:
        """Follow a function or class: its source, and what it reads."""
        if id(found) in self._seen:
            return
        self._seen[id(found)] = found
        place = _place(found)
        if place == "library" or found.__module__.startswith(WITHOUT_EFFECT):
            self.values[name] = label(found)
            return
        called = name if getattr(found, "__name__", "") == "<lambda>" else label(found)
        self.code[_free(called, self.code)] = source_digest(found)
        for member in _methods(found) if isinstance(found, type) else [found]:
            for read, value in reads(member):
                self.follow(value, f"{called}: {read}", strict=place == "user")

    def _parts(self, value: Any, name: str) -> Iterator[bytes | memoryview]:
        """The bytes that stand for a value."""
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # 4 and 4.0 are one setting
        if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | Path | range):
            yield f"{type(value).__name__} {value!r}".encode()
        elif isinstance(value, torch.device):
            yield b"device"
        elif isinstance(value, Tensor):
            yield from _bytes_of_tensor(value)
        elif isinstance(value, np.ndarray) and value.dtype != object:
            yield f"array {value.dtype} {value.shape}".encode()
            yield np.ascontiguousarray(value).tobytes()
        elif isinstance(value, nn.Module):
            yield from self._parts_of_model(value, name)
        elif callable(value) and not hasattr(value, "_fields"):
            yield from self._parts_of_callable(value, name)
        else:
            yield from self._parts_of_many(value, name)

    def _parts_of_many(self, value: Any, name: str) -> Iterator[bytes | memoryview]:
        if isinstance(value, dict):
            items = [(repr(key), each) for key, each in value.items()]
        elif isinstance(value, set | frozenset):
            items = sorted((self.of_value(each, name), None) for each in value)
        elif isinstance(value, list | tuple):
            items = [("", each) for each in value]
        elif is_dataclass(value):
            items = [(field.name, getattr(value, field.name)) for field in fields(value)]
        elif isinstance(value, enum.Enum):
            items = [(value.name, None)]
        elif isinstance(value, slice):
            items = [(repr(value), None)]
        else:
            raise TypeError(
                f"{name} is a {label(type(value))}, from which no key can be computed; make it inside the "
                "function, or use plain values, tensors, models, functions, or lists and dicts of them"
            )
        kind = "list" if type(value) in (list, tuple) else label(type(value))
        yield f"{kind} of {len(items)}".encode()
        for key, each in items:
            yield key.encode()
            yield from self._parts(each, f"{name}[{key}]" if key else name)

    def _parts_of_model(self, model: nn.Module, name: str) -> Iterator[bytes | memoryview]:
        yield repr(model).encode()
        for module_name, module in model.named_modules():
            self._code(type(module), label(type(module)))
            yield f"{module_name} {label(type(module))}".encode()
            yield from self._parts_of_many(_attributes(module), f"{name}.{module_name}" if module_name else name)
        for key, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
            yield f"{key} {tensor.requires_grad}".encode()
            yield from _bytes_of_tensor(tensor)
        tensors = {
            key
            for key, _ in itertools.chain(
                model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
            )
        }
        packed = {key: value for key, value in model.state_dict().items() if key not in tensors}
        yield from self._parts_of_many(packed, name)  # such as the int8 weights of torch.ao's layers

    def _parts_of_callable(self, value: Any, name: str) -> Iterator[bytes | memoryview]:
        if isinstance(value, functools.partial):
            yield from self._parts_of_many([value.func, list(value.args), value.keywords], name)
        elif isinstance(value, types.MethodType):
            yield from self._parts_of_many([value.__func__, value.__self__], name)
        elif isinstance(getattr(value, "__wrapped__", value), types.FunctionType | type):
            value = getattr(value, "__wrapped__", value)
            self._code(value, name)
            yield label(value).encode()
        elif isinstance(value, types.BuiltinFunctionType) or _place(type(value)) == "library":
            yield label(value).encode()
        else:
            yield from self._parts_of_many(getattr(value, "__dict__", None) or value, name)


def reads(function: Callable) -> list[tuple[str, Any]]:
    """The globals and closed-over values that a function reads, with their names; of a module, what is used of it."""
    code, found = function.__code__, []
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=False))
    for chain in _chains(code):
        first, *rest = chain
        if first in cells:
            try:
                value = cells[first].cell_contents
            except ValueError:  # not assigned yet
                continue
        elif first in function.__globals__:
            value = function.__globals__[first]
        else:
            continue  # a builtin, or a name that is not there yet
        found.append(_at_the_end(first, value, rest))
    found += [(f"default {i}", value) for i, value in enumerate(function.__defaults__ or ())]
    found += [(f"default {key}", value) for key, value in (function.__kwdefaults__ or {}).items()]
    return found + _imported(code, function.__globals__.get("__package__") or "")


def _at_the_end(name: str, value: Any, rest: list[str]) -> tuple[str, Any]:
    """Follow `train.fit` from the module to what is used of it; of another library's module, take only the name."""
    while isinstance(value, types.ModuleType) and rest and hasattr(value, rest[0]):
        if _place_of_module(value) == "library":
            return ".".join([name, *rest]), ".".join([value.__name__, *rest])
        name, value = f"{name}.{rest[0]}", getattr(value, rest.pop(0))
    return name, value


def _chains(code: types.CodeType) -> Iterator[list[str]]:
    """Each global that the code loads, and the attributes read of it at once: ["train", "fit"]."""
    chain: list[str] = []
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and chain:
            chain.append(step.argval)
            continue
        if chain:
            yield chain
        chain = [step.argval] if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF") else []
    if chain:
        yield chain
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _chains(constant)


def _imported(code: types.CodeType, package: str) -> list[tuple[str, Any]]:
    """What the code imports of kdlab in its own lines."""
    found, constants = [], []
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
            constants = [*constants[-1:], step.argval]
        if step.opname != "IMPORT_NAME":
            continue
        level, names = constants
        module_name = importlib.util.resolve_name("." * level + step.argval, package) if level else step.argval
        if not module_name.startswith("kdlab"):
            continue
        module = importlib.import_module(module_name)
        for name in names or ():
            value = getattr(module, name, None) or importlib.import_module(f"{module_name}.{name}")
            inside = [*_functions(value)] if isinstance(value, types.ModuleType) else [(name, value)]
            found += inside
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found += _imported(constant, package)
    return found


def _functions(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    """A module's own functions and classes."""
    for name, value in vars(module).items():
        if isinstance(value, types.FunctionType | type) and value.__module__ == module.__name__:
            yield name, value


def _methods(cls: type) -> Iterator[types.FunctionType]:
    for member in vars(cls).values():
        for part in (getattr(member, "__func__", member), getattr(member, "fget", None)):
            part = inspect.unwrap(part) if callable(part) else part
            if isinstance(part, types.FunctionType):
                yield part
    for base in cls.__bases__:
        if _place(base) != "library":
            yield from _methods(base)


def _place(found: Any) -> str:
    """Whose code it is: "kdlab", "user" (a notebook's, a script's), or another "library"."""
    module = getattr(found, "__module__", None) or ""
    return _place_of_module(sys.modules.get(module) or types.ModuleType(module))


def _place_of_module(module: types.ModuleType) -> str:
    if module.__name__.split(".")[0] == "kdlab":
        return "kdlab"
    if module.__name__ == "__main__":
        return "user"
    known = module.__name__ == "builtins" or module.__name__ in sys.builtin_module_names
    return "library" if known or (getattr(module, "__file__", None) or "").startswith(_INSTALLED) else "user"


def label(found: Any) -> str:
    """The name by which a digest calls a function or class: of a notebook's own, without its module."""
    name = getattr(found, "__qualname__", None) or getattr(found, "__name__", type(found).__qualname__)
    return name if _place(found) == "user" else f"{getattr(found, '__module__', '')}.{name}"


def _free(name: str, taken: dict[str, str]) -> str:
    numbered = (f"{name}~{i}" for i in itertools.count(2))
    return name if name not in taken else next(each for each in numbered if each not in taken)


@functools.lru_cache(maxsize=4096)
def _digest_of(code: types.CodeType | type, source: str) -> str:
    return shorten(normalized(source) or repr(_of_bytecode(code)))


def source_digest(found: Any) -> str:
    """The digest of a function's or class's own source, or of its bytecode where there is no source."""
    try:
        source = textwrap.dedent(inspect.getsource(found))
    except (OSError, TypeError):
        source = ""
    if isinstance(found, type) and not source:  # a class of a notebook: by its methods
        return shorten(repr([source_digest(method) for method in _methods(found)]))
    return _digest_of(getattr(found, "__code__", found), source)


def normalized(source: str) -> str:
    """The source as its syntax tree tells it, without docstrings; "" for what is no whole statement.

    Of a line that holds one lambda, the lambda.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    if not isinstance(tree.body[0] if tree.body else None, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        lambdas = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
        return ast.unparse(lambdas[0]) if len(lambdas) == 1 else ""
    return ast.unparse(without_docstrings(tree))


def without_docstrings(tree: ast.AST) -> ast.AST:
    """The syntax tree with the docstrings of its functions and classes taken out, in place."""
    for node in ast.walk(tree):
        documented = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if documented and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _of_bytecode(code: types.CodeType) -> tuple:
    constants = [_of_bytecode(each) if isinstance(each, types.CodeType) else repr(each) for each in code.co_consts]
    return code.co_code, constants, code.co_names, code.co_varnames


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What a module holds beside its weights and its parts; of a library's module, the plain values."""
    own = {key: value for key, value in sorted(vars(module).items()) if key not in _OF_EVERY_MODULE}
    if _place(type(module)) == "library":
        own = {key: value for key, value in own.items() if isinstance(value, bool | int | float | str)}
    return own | {"training": module.training}


def _bytes_of_tensor(tensor: Tensor) -> Iterator[bytes | memoryview]:
    flat = tensor.detach()
    yield f"tensor {flat.dtype} {tuple(flat.shape)}".encode()
    if flat.is_quantized:
        per_channel = flat.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric)
        yield repr(
            (flat.q_per_channel_scales().tolist(), flat.q_per_channel_zero_points().tolist())
            if per_channel
            else (flat.q_scale(), flat.q_zero_point())
        ).encode()
        flat = flat.int_repr()
    reach = 1 + sum((n - 1) * step for n, step in zip(flat.shape, flat.stride(), strict=True))
    if flat.numel() > reach > 0:  # overlapping windows: each number that they show is read once
        yield f"windows {flat.stride()}".encode()
        flat = flat.as_strided((reach,), (1,))
    if flat.numel():
        yield memoryview(flat.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def shorten(text: str, digits: int = 8) -> str:
    """The first hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
