"""One panel of each kind over made-up numbers, for a notebook in a real JupyterLab."""

import numpy as np
import torch

from kdlab import metrics, models, widgets

NAMES = [str(c) for c in range(10)]
RNG = torch.Generator().manual_seed(0)
Z, S = 3 * torch.randn(2, 60, 10, generator=RNG)
IMAGES, LABELS = torch.rand(60, 1, 28, 28, generator=RNG), torch.arange(60) % 10


def listen() -> widgets.Panel:
    """Half a second of six states of three words."""
    energies, teacher, student = (torch.randn(50, k, generator=RNG) for k in (40, 6, 6))
    sound, truth = np.zeros(4_000, dtype=np.int16), torch.arange(50) * 6 // 50
    heard = {"groups": [0, 0, 1, 1, 1, 2], "energies": energies, "sound": sound, "rate": 8_000}
    return widgets.listen(student, teacher, truth, ["a", "b", "–"], **heard)


def pad() -> widgets.Panel:
    """A pad with a drawing on it."""
    panel = widgets.pad({"teacher": models.mlp((20,), seed=1), "student": models.mlp((20,), seed=2)}, NAMES)
    panel.pieces["pad"].put(torch.eye(28))
    return panel


def specialists() -> widgets.Panel:
    """Two specialists of three classes each."""
    clusters = [[0, 1, 2], [2, 3, 4]]
    return widgets.specialists(Z[:4], torch.randn(2, 4, 4, generator=RNG), clusters, LABELS[:4], NAMES)


def stack() -> widgets.Stack:
    """Two ways of compressing, each of which halves what a model costs."""

    def measure(order):
        n = len(order)
        costs = {"bytes": 90_000_000 // 2**n, "ms_32": 100 / (1 + n), "multiply_adds": 1e8 / (1 + n)}
        return metrics.Row("a stack", (90.0 - n,), 100, **costs)

    return widgets.Stack({"layers": "3 of 6 layers", "heads": "half of the heads"}, measure)


PANELS = {
    "temperature": lambda: widgets.temperature(Z[0], NAMES, image=IMAGES[0], label=2),
    "microscope": lambda: widgets.microscope(Z[:9], LABELS[:9], NAMES, images=IMAGES[:9], others=(Z, LABELS, IMAGES)),
    "similarity": lambda: widgets.similarity(Z, LABELS, NAMES, images=IMAGES),
    "two_terms": lambda: widgets.two_terms(S[0], Z[0], 2, NAMES),
    "gradient_size": lambda: widgets.gradient_size(S, Z),
    "hot_limit": lambda: widgets.hot_limit(S[0], Z[0], NAMES),
    "ensemble": lambda: widgets.ensemble(Z[:3], NAMES),
    "omitted": lambda: widgets.omitted(Z, LABELS, NAMES, classes=(3,), images=IMAGES),
    "specialists": specialists,
    "listen": listen,
    "pad": pad,
    "runs": lambda: widgets.runs([1, 10, 100], {"test": Z[:2, :3]}, ["1 %", "3 %"], stop=[10, 1]),
    "grids": lambda: widgets.grids([-1, 0, 1], {"rounded": Z[:2, :3].abs()}, [8, 2], {"per tensor": [90, 5]}),
    "Stack": stack,
}
