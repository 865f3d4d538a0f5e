"""The course: its notebooks as programs, what they measured, and the claims that this is set against."""

import importlib

from . import claims, contents
from .notebooks import (
    execute,
    find,
    for_projector,
    run,
    to_html,
    widget_errors,
    with_mathml,
    without_slow_formats,
    write_index,
)
from .parameters import given, profile

__all__ = [
    "Experiment",
    "claims",
    "claims_page",
    "contents",
    "execute",
    "find",
    "for_projector",
    "given",
    "header",
    "profile",
    "readme",
    "records",
    "rows",
    "run",
    "site",
    "to_html",
    "widget_errors",
    "with_mathml",
    "without_slow_formats",
    "write_index",
]


def __getattr__(name: str):
    """Import what needs torch when it is first used: a notebook is run, and listed, without it."""
    if name == "Experiment":
        return importlib.import_module("kdlab.course.experiment").Experiment
    if name in __all__:
        return importlib.import_module(f"kdlab.course.{name}")
    raise AttributeError(f"module 'kdlab.course' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
