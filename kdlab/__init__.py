"""kdlab: learn, reproduce and teach knowledge distillation (Hinton, Vinyals & Dean 2015), live."""

import importlib

from kdlab import data, losses, machine, metrics, models, store, teachers, train

__version__ = "0.1.0"
__all__ = ["data", "losses", "machine", "metrics", "models", "plots", "store", "teachers", "train", "widgets"]


def __getattr__(name: str):
    """kdlab.plots and kdlab.widgets are imported when first used: they bring matplotlib and ipywidgets."""
    if name in ("plots", "widgets"):
        return importlib.import_module(f"kdlab.{name}")
    raise AttributeError(f"module 'kdlab' has no attribute {name!r}")
