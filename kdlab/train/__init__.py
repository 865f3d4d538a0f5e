"""Training: one loop (`loop`), its objectives, many small students at once (`batched`), masked words, features.

student = models.mlp((30, 30))
train.fit(student, (x, y), train.distilling(teacher, T=8), epochs=5, lr=1e-3)
"""

from .followed import follow, log_spaced
from .loop import Step, Training, adam, constant, cosine, fit, one_cycle
from .minibatches import Data, batches
from .objectives import Objective, distilling, frozen, labels

__all__ = [
    "Data",
    "Objective",
    "Step",
    "Training",
    "adam",
    "batches",
    "constant",
    "cosine",
    "distilling",
    "fit",
    "follow",
    "frozen",
    "labels",
    "log_spaced",
    "one_cycle",
]
