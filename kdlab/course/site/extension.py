"""What the site asks of Sphinx beside its settings: formulas as MathML, and docstrings, plain text, as its markup."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable
from typing import Any

from kdlab.course import notebooks


def setup(app) -> dict[str, Any]:
    """Register with Sphinx, which calls this."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(visitor, node) -> None:
    from docutils.nodes import SkipNode

    visitor.body.append(notebooks.formula_in_line(node.astext()))
    raise SkipNode


def _display(visitor, node) -> None:
    from docutils.nodes import SkipNode

    visitor.body.append(f"<div class='formula'>{notebooks.formula(node.astext(), 'block')}</div>")
    raise SkipNode


def _process(app, what: str, name: str, obj: Any, options, lines: list[str]) -> None:
    lines[:] = marked_up(lines, _parameters(obj))


def _parameters(obj: Any) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(obj).parameters)
    except (TypeError, ValueError):
        return frozenset()


def marked_up(lines: Iterable[str], parameters: frozenset[str]) -> list[str]:
    """A docstring as reStructuredText: Python as code, a point for each parameter, and all else as it stands."""
    made: list[str] = []
    for paragraph in "\n".join(lines).split("\n\n"):
        made += _code(paragraph) if _is_code(paragraph) else _points(paragraph, parameters)
    return made


def _is_code(paragraph: str) -> bool:
    try:
        ast.parse(textwrap.dedent(paragraph).replace("…", "..."))
    except SyntaxError:
        return False
    return "(" in paragraph


def _code(paragraph: str) -> list[str]:
    return ["::", "", *(f"    {line}" for line in paragraph.splitlines()), ""]


def _points(paragraph: str, parameters: frozenset[str]) -> list[str]:
    """The paragraph with a point for each "name: …" that begins one of its sentences."""
    text = " ".join(line.strip() for line in paragraph.splitlines() if not line.startswith("Alias for field number"))
    start, *found = re.split(r"(?:^|(?<=[.;] ))(\w+(?:, \w+)*): ", text)
    points: list[list[str]] = []
    for names, said in zip(found[::2], found[1::2], strict=True):
        if parameters.issuperset(names.split(", ")):
            points.append([names, said])
        elif points:
            points[-1][1] += f"{names}: {said}"
        else:
            start += f"{names}: {said}"
    said, rest = re.match(r"(.*?)((?:Raises|Returns) .*)?$", points[-1][1] if points else "").groups()
    if points:
        points[-1][1] = said
    listed = [f"- **{_plain(names)}**: {_plain(said.strip())}" for names, said in points]
    return [_plain(start.strip()), "", *listed, "", *([_plain(rest), ""] if rest else [])]


def _plain(line: str) -> str:
    """The line with what reStructuredText would read as markup escaped; `room.name` leads to its description."""
    parts = re.split(r"(`[^`]*`)", line)
    escaped = (re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", part) for part in parts[::2])
    named = [_name(part) for part in parts[1::2]]
    return "".join(f"{text}{name}" for text, name in zip(escaped, [*named, ""], strict=True))


def _name(code: str) -> str:
    within = re.fullmatch(r"`([a-z_]+\.[\w.]+)`", code)
    return f":py:obj:`{within[1]} <kdlab.{within[1]}>`" if within else code
