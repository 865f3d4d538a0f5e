"""kdlab: learn, reproduce and teach knowledge distillation (Hinton, Vinyals & Dean 2015), live."""

import importlib

from kdlab import data, losses, machine, metrics, models, store, teachers, train

__version__ = "0.1.0"
__all__ = [
    "compress",
    "course",
    "data",
    "live",
    "losses",
    "machine",
    "metrics",
    "models",
    "parallel",
    "plots",
    "specialists",
    "store",
    "teachers",
    "text",
    "train",
    "widgets",
]


def __getattr__(name: str):
    """Import the other rooms when they are first used: some bring matplotlib, ipywidgets or papermill."""
    if name in __all__:
        return importlib.import_module(f"kdlab.{name}")
    raise AttributeError(f"module 'kdlab' has no attribute {name!r}")
