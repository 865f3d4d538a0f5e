"""The course: its notebooks as programs, what they measured, and the claims that this is set against."""

from . import claims, claims_page, contents, readme, records, rows
from .experiment import Experiment
from .notebooks import (
    execute,
    find,
    for_projector,
    given,
    profile,
    run,
    to_html,
    widget_errors,
    with_mathml,
    without_slow_formats,
    write_index,
)

__all__ = [
    "Experiment",
    "claims",
    "claims_page",
    "contents",
    "execute",
    "find",
    "for_projector",
    "given",
    "profile",
    "readme",
    "records",
    "rows",
    "run",
    "to_html",
    "widget_errors",
    "with_mathml",
    "without_slow_formats",
    "write_index",
]
