"""kdlab: learn, reproduce and teach knowledge distillation (Hinton, Vinyals & Dean 2015), live."""

import importlib

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
    """Import a room when it is first used: the command line answers without torch, and a loss without matplotlib."""
    if name in __all__:
        return importlib.import_module(f"kdlab.{name}")
    raise AttributeError(f"module 'kdlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
