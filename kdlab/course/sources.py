"""Read a notebook's code without running it: a digest of the code that makes a number.

A record carries these digests, so that the report can say when the code that made it has changed since.
"""

import ast
import builtins
import functools
import importlib
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import parameters
from .fingerprint import Tracer
from .functions import shorten, source_digest, without_docstrings


def digests(notebook: str, functions: Iterable[str] = (), library: Iterable[Callable] = ()) -> dict[str, str] | None:
    """Digest the code that these functions of a notebook run: the notebook's own and kdlab's, by name.

    library: functions of kdlab, digested too. functions: none, and none of the library, stands for all code of the
    notebook. Returns None where there is no such notebook.
    """
    path, names, library = (
        parameters.path_of(notebook),
        sorted(set(functions)),
        {each.__name__: each for each in library},
    )
    if path is None:
        return None
    statements, used = ([], []) if library and not names else _used(path, names)
    tracer = Tracer()
    for name, found in (_kdlab_names(statements, used) | library).items():
        tracer.follow(found, name, strict=False)
    own = {f"{notebook}:{','.join(names)}": _digest(used)} if used else {}
    return own | {name: digest for name, digest in tracer.code.items() if name.startswith("kdlab.") and "<" not in name}


def _used(path: Path, names: list[str]) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """All statements of a notebook, and those that the functions of these names run; none of them: all."""
    statements = parameters.parse(parameters.cell_sources(path, tagged=False))
    return statements, _closure(statements, names) if names else statements


def _digest(used: list[ast.stmt]) -> str:
    text = [ast.unparse(without_docstrings(each)) for each in used if not isinstance(each, ast.Import)]
    return shorten("\n".join(text))


def current(names: Iterable[str]) -> dict[str, str | None]:
    """Return today's digest of each name that `digests` gave; None where it is gone."""
    return {name: _of_notebook(*name.split(":")) if ":" in name else _of_kdlab(name) for name in names}


def _of_notebook(notebook: str, functions: str) -> str | None:
    path = parameters.path_of(notebook)
    return _digest(_used(path, [each for each in functions.split(",") if each])[1]) if path else None


@functools.cache  # what is imported stays as it is; the records of a report share most of these names
def _of_kdlab(name: str) -> str | None:
    parts = name.split("~")[0].split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
            for part in parts[end:]:
                found = getattr(found, part)
            return source_digest(getattr(found, "__wrapped__", found))
        except (ImportError, AttributeError):
            continue
    return None


def _closure(statements: list[ast.stmt], names: list[str]) -> list[ast.stmt]:
    """The top-level statements that define these names, and those that define what they read, in order."""
    defining: dict[str, list[ast.stmt]] = {}
    for statement in statements:
        for name in _defines(statement):
            defining.setdefault(name, []).append(statement)
    wanted, todo = [], list(names)
    known = set(todo)
    while todo:
        for statement in defining.get(todo.pop(), []):
            if statement in wanted:
                continue
            wanted.append(statement)
            new = _loads(statement) - known
            known |= new
            todo += new
    return [statement for statement in statements if statement in wanted]


def _defines(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement binds or changes in place."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _loads(statement: ast.stmt) -> set[str]:
    loads = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return loads - set(dir(builtins))


def _kdlab_names(statements: list[ast.stmt], used: list[ast.stmt]) -> dict[str, Any]:
    """What the used statements take from kdlab: "train.fit" → the function."""
    rooms = {}
    for statement in statements:
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").split(".")[0] == "kdlab":
            module = importlib.import_module(statement.module)
            for alias in statement.names:
                found = getattr(module, alias.name, None)
                rooms[alias.asname or alias.name] = found or importlib.import_module(f"{module.__name__}.{alias.name}")
    found = {}
    for node in (node for statement in used for node in ast.walk(statement)):
        chain = _chain(node)
        if chain and chain[0] in rooms:
            value = rooms[chain[0]]
            for i, part in enumerate(chain[1:], start=1):
                if not isinstance(value, types.ModuleType) or not hasattr(value, part):
                    break
                value = getattr(value, part)
                found[".".join(chain[: i + 1])] = value
            if len(chain) == 1:
                found[chain[0]] = value
    return {name: value for name, value in found.items() if not isinstance(value, types.ModuleType)}


def _chain(node: ast.AST) -> list[str]:
    """The names of `train.fit` as ["train", "fit"]; [] for what is no such chain."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return [node.id, *parts] if isinstance(node, ast.Name) else []
