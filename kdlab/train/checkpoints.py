"""A training's file, from which it goes on after an interrupt: never half written, never of another training."""

import io
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from kdlab import disk


def take_up(training: Any, checkpoint: Path) -> tuple[list[dict[str, float]], list[dict[str, Tensor]]]:
    """Put a `train.Training` where its checkpoint left it, if there is one.

    Returns its history, and the terms of the steps that it took in the epoch that had begun.
    """
    if not checkpoint.exists():
        return [], []
    blob = checkpoint.read_bytes()
    if blob and not blob.startswith(b"PK"):  # of the zip archives that torch writes
        raise ValueError(f"{checkpoint} is another file, no checkpoint, and stays as it is; name a path of its own")
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            if bad := archive.testzip():
                raise zipfile.BadZipFile(f"the checksum of {bad} is wrong")
    except Exception as error:  # zipfile has many
        aside = checkpoint.with_name(f"{checkpoint.name}.damaged")
        os.replace(checkpoint, aside)
        warnings.warn(
            f"{checkpoint} is damaged ({error}) and kept as {aside.name}; the training begins anew", stacklevel=3
        )
        return [], []
    try:
        kept = torch.load(io.BytesIO(blob), weights_only=True, map_location="cpu")
        state, history, rows = kept["state"], kept["history"], kept["rows"]
    except Exception as error:  # pickle and torch each have their own
        raise ValueError(
            f"{checkpoint} is whole, but no checkpoint of train.fit ({type(error).__name__}); it stays as "
            "it is: name a path of its own"
        ) from error
    try:
        training.resume(state)
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from None
    return history, rows


def keep(checkpoint: Path, kept: dict) -> None:
    """Write what `take_up` reads: a whole file is there at any moment."""
    try:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        with disk.replacing(checkpoint) as file:
            torch.save(kept, file)
    except (OSError, RuntimeError) as error:  # a full disk must not end a training
        warnings.warn(f"the training goes on, but could not be kept in {checkpoint}: {error}", stacklevel=3)


def differing(here: dict[str, Tensor], there: dict[str, Tensor]) -> list[str]:
    """List the tensors that differ in shape or type, or that one side lacks."""
    told = []
    for name in {**there, **here}:
        then, now = (_form(tensors.get(name)) for tensors in (there, here))
        if then != now and "lazy" not in (then, now):
            told.append(f"{name}: {then} then, {now} now")
    return told


def _form(tensor: Tensor | None) -> str:
    if tensor is None:
        return "missing"
    if is_lazy(tensor):
        return "lazy"
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
