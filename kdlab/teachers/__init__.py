"""Teachers that come with kdlab, so that a first lesson need not begin with half an hour of training."""

import torch
from torch import nn

from kdlab import machine, models, store


def mnist(device: str | torch.device | None = None) -> tuple[nn.Module, dict]:
    """The teacher of section 3: 2 × 1200 rectified units, trained on all 60,000 digits, and its record.

    Returns the net, frozen, in eval mode and on `device` (default: `machine.device()`), and how it was made:
    {"settings": …, "measures": {"test_errors": …}, "machine": …}. scripts/train_teacher.py makes it anew.
    """
    state, record = store.packaged("mnist-2x1200")
    teacher = models.mlp(record["settings"]["hidden"], dropout=record["settings"]["dropout"])
    teacher.load_state_dict(state)
    return teacher.to(machine.device(device)).requires_grad_(False).eval(), record
