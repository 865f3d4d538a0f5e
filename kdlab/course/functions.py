"""Read functions without calling them: their source, what globals they read, and whose code they are."""

import ast
import dis
import functools
import hashlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any

_INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


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
        if place_of_module(value) == "library":
            return ".".join([name, *rest]), ".".join([value.__name__, *rest])
        name, value = f"{name}.{rest[0]}", getattr(value, rest.pop(0))
    return name, value


@functools.lru_cache(maxsize=8192)  # code does not change
def _chains(code: types.CodeType) -> tuple[list[str], ...]:
    """Each global that the code loads, and the attributes read of it at once: ["train", "fit"]."""
    return tuple(_each_chain(code))


def _each_chain(code: types.CodeType) -> Iterator[list[str]]:
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
    found = []
    for module_name, names in _imports(code, package):
        module = importlib.import_module(module_name)
        for name in names:
            value = getattr(module, name, None) or importlib.import_module(f"{module_name}.{name}")
            found += [*functions_of(value)] if isinstance(value, types.ModuleType) else [(name, value)]
    return found


@functools.lru_cache(maxsize=8192)
def _imports(code: types.CodeType, package: str) -> list[tuple[str, tuple[str, ...]]]:
    """The modules of kdlab that the code imports, with the names that it takes from each."""
    found, constants = [], []
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
            constants = [*constants[-1:], step.argval]
        if step.opname != "IMPORT_NAME":
            continue
        level, names = constants
        module_name = importlib.util.resolve_name("." * level + step.argval, package) if level else step.argval
        if module_name.startswith("kdlab"):
            found.append((module_name, tuple(names or ())))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found += _imports(constant, package)
    return found


def functions_of(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    """A module's own functions and classes."""
    for name, value in vars(module).items():
        if isinstance(value, types.FunctionType | type) and value.__module__ == module.__name__:
            yield name, value


def methods_of(cls: type) -> Iterator[types.FunctionType]:
    """Yield the functions of a class and of its bases, other libraries' bases left out."""
    for member in vars(cls).values():
        for part in (getattr(member, "__func__", member), getattr(member, "fget", None)):
            part = inspect.unwrap(part) if callable(part) else part
            if isinstance(part, types.FunctionType):
                yield part
    for base in cls.__bases__:
        if place_of(base) != "library":
            yield from methods_of(base)


def place_of(found: Any) -> str:
    """Whose code it is: "kdlab", "user" (a notebook's, a script's), or another "library"."""
    module = getattr(found, "__module__", None) or ""
    return place_of_module(sys.modules.get(module) or types.ModuleType(module))


def place_of_module(module: types.ModuleType) -> str:
    if module.__name__.split(".")[0] == "kdlab":
        return "kdlab"
    if module.__name__ == "__main__":
        return "user"
    known = module.__name__ == "builtins" or module.__name__ in sys.builtin_module_names
    return "library" if known or (getattr(module, "__file__", None) or "").startswith(_INSTALLED) else "user"


def label(found: Any) -> str:
    """The name by which a digest calls a function or class: of a notebook's own, without its module."""
    name = getattr(found, "__qualname__", None) or getattr(found, "__name__", type(found).__qualname__)
    return name if place_of(found) == "user" else f"{getattr(found, '__module__', '')}.{name}"


@functools.lru_cache(maxsize=4096)
def _digest_of(code: types.CodeType | type, source: str) -> str:
    return shorten(normalized(source) or repr(_of_bytecode(code)))


def source_digest(found: Any) -> str:
    """The digest of a function's or class's own source, or of its bytecode where there is no source."""
    if place_of(found) != "kdlab":  # a notebook's own are read at every call: its classes can get other methods
        return _digest_now(found)
    file = getattr(sys.modules.get(found.__module__), "__file__", None)
    return _digest_in_kdlab(found, os.stat(file).st_mtime_ns if file else 0)


@functools.lru_cache(maxsize=4096)
def _digest_in_kdlab(found: Any, written: int) -> str:
    """written: when its file was, so that code that is edited and reloaded, in place, is read again."""
    return _digest_now(found)


def _digest_now(found: Any) -> str:
    try:
        source = textwrap.dedent(inspect.getsource(found))
    except (OSError, TypeError):
        source = ""
    if isinstance(found, type) and not source:  # a class of a notebook: by its methods
        return shorten(repr([source_digest(method) for method in methods_of(found)]))
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


def shorten(text: str, digits: int = 8) -> str:
    """The first hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
