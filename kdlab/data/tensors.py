"""What is done to a transfer set before a student sees it: shift it, leave classes out, take a part.

Functions on tensors, the whole batch at once.
"""

import operator

import torch
import torch.nn.functional as F
from torch import Tensor


def jitter(x: Tensor, pixels: int = 2, generator: torch.Generator | None = None) -> Tensor:
    """Each image moved by up to `pixels` in any direction, the uncovered edge filled with zeros.

    x: (batch, channels, height, width). Returns the same shape; each image draws its own shift, uniform over the
    (2 pixels + 1)² possible ones, from `generator` (a CPU one) or from torch's global state.

    Hinton et al. 2015, section 3 (up to two pixels).
    """
    if x.dim() != 4:
        raise ValueError(f"jitter moves images of shape (batch, channels, height, width), got {tuple(x.shape)}")
    if pixels < 0:
        raise ValueError(f"pixels must be 0 or more, got {pixels}")
    batch, _, height, width = x.shape
    padded = F.pad(x, (pixels, pixels, pixels, pixels))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # every possible shift, as a view
    down, right = torch.randint(0, 2 * pixels + 1, (2, batch), generator=generator).to(x.device)
    return windows[torch.arange(batch, device=x.device), :, down, right]


def without(x: Tensor, y: Tensor, *classes: int) -> tuple[Tensor, Tensor]:
    """The cases of (x, y) whose class is none of `classes`.

    Hinton et al. 2015, section 3 (a transfer set without 3s).
    """
    _same_length(x, y)
    try:
        numbers = [operator.index(c) for c in classes]
    except TypeError:
        raise TypeError(f"classes are whole numbers, one by one, such as without(x, y, 3, 5), got {classes}") from None
    keep = ~torch.isin(y, torch.tensor(numbers, dtype=y.dtype, device=y.device))
    if not keep.any():
        raise ValueError(f"leaving out the classes {classes} leaves no case at all")
    return x[keep], y[keep]


def subset(x: Tensor, y: Tensor, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """`n` cases drawn by `seed`, each class in its share of the whole (to within one case), in shuffled order."""
    _same_length(x, y)
    if not 1 <= n <= len(y):
        raise ValueError(f"n must be between 1 and the {len(y):,} cases there are, got {n}")
    rng = torch.Generator().manual_seed(seed)
    classes, counts = y.cpu().unique(return_counts=True)
    quotas = _shares(counts, n)
    order = torch.randperm(len(y), generator=rng)
    by_class = [order[y.cpu()[order] == c][:quota] for c, quota in zip(classes, quotas, strict=True)]
    chosen = torch.cat(by_class)[torch.randperm(n, generator=rng)].to(y.device)
    return x[chosen], y[chosen]


def _shares(counts: Tensor, n: int) -> list[int]:
    """n split in proportion to counts: whole numbers, the largest remainders rounded up."""
    exact = counts.double() * n / counts.sum()
    quotas = exact.floor().long()
    quotas[(exact - quotas).argsort(descending=True, stable=True)[: n - int(quotas.sum())]] += 1
    return quotas.tolist()


def _same_length(x: Tensor, y: Tensor) -> None:
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} cases and y has {len(y)}; they must belong together, case by case")
