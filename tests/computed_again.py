"""Imported in a notebook's kernel: what an earlier run kept is computed again when it is asked for, and compared.

A cached function whose key leaves something out answers from an entry that another run made; in an empty store it
would have computed another value. Here both stores are asked.
"""

import os
from pathlib import Path

import pytest
import torch

from kdlab import store, values

value_kept = store.value
EARLIER = {path.name for path in store.folder().glob("*.value.safetensors")}
EMPTY = Path(f"{store.folder()}-empty")  # at the beginning


def value(name, settings, compute, about=dict):
    """As store.value; AssertionError where an entry from before differs from what an empty store gives."""
    entry = f"{name}.{store.entry_key(name, settings)}.value.safetensors"
    kept = value_kept(name, settings, compute, about)
    if entry in EARLIER:
        EARLIER.remove(entry)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KDLAB_STORE", str(EMPTY))
            fresh, _ = value_kept(name, settings, compute, about)
        assert same(kept[0], fresh), f"{settings['function']}: another run kept {kept[0]!r}, computed anew: {fresh!r}"
    return kept


def same(a, b) -> bool:
    """Whether two values are the same, bit by bit."""
    a, b = values.take_apart(a), values.take_apart(b)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


store.value = value
assert "KDLAB_STORE" in os.environ, "the test names a store of its own"
