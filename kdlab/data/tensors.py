"""What is done to images before a net sees them: shift them, leave classes out, take a part, make a drawing MNIST's.

Functions on tensors, the whole batch at once; a drawing alone comes singly.
"""

import hashlib
import operator
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab import machine


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


def shift(x: Tensor, down: int, right: int) -> Tensor:
    """Shift all images by the same whole pixels, the uncovered edge filled with zeros; negative: up, left.

    x: (batch, channels, height, width). Returns the same shape.
    """
    if x.dim() != 4 or max(abs(down), abs(right)) > min(x.shape[2:]):
        raise ValueError(
            f"shift takes images (batch, channels, height, width) and at most their size, got {tuple(x.shape)}, "
            f"{down} and {right}"
        )
    return F.pad(x, (right, -right, down, -down))  # a negative width crops


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
    with machine.threads():  # dozens of small operations, each of which would wait for threads on a busy machine
        classes, counts = y.cpu().unique(return_counts=True)
        quotas = _shares(counts, n)
        order = torch.randperm(len(y), generator=rng)
        shuffled = y.cpu()[order]
        by_class = [order[shuffled == c][:quota] for c, quota in zip(classes, quotas, strict=True)]
    chosen = torch.cat(by_class)[torch.randperm(n, generator=rng)].to(y.device)
    return x[chosen], y[chosen]


def like_mnist(ink: Tensor) -> Tensor:
    """A drawing as MNIST keeps its digits: the longer side 20 pixels, the center of mass in the middle of 28 × 28.

    ink: (height, width), uint8, or floats from 0 (paper) to 1 (ink). Returns (1, 28, 28) floats in [0, 1]: each pixel
    is the mean ink of its part of the drawing. Empty paper stays empty.

    LeCun, Cortes & Burges, the MNIST database of handwritten digits, "file formats".
    """
    digit, sheet = _cropped(_checked(ink)), torch.zeros(1, 28, 28, device=ink.device)
    if digit.numel() == 0:
        return sheet
    size = [max(1, round(20 * n / max(digit.shape))) for n in digit.shape]
    small = F.interpolate(digit[None, None], size=size, mode="area")[0, 0]
    rows, columns = (slice(at, at + n) for at, n in zip(_corner(small), size, strict=True))
    sheet[0, rows, columns] = small
    return sheet


def digest(tensors: Iterable[Tensor]) -> str:
    """Stands for data among settings: 16 digits made from the shapes, types and about a thousand cases of each tensor.

    What is no tensor, such as a data set's class names, is passed over.
    """
    made = hashlib.sha256()
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            made.update(str((tensor.shape, tensor.dtype)).encode())
            some = tensor[:: max(1, len(tensor) // 1000)].detach().cpu().contiguous()
            made.update(some.view(torch.uint8).numpy())
    return made.hexdigest()[:16]


def _checked(ink: Tensor) -> Tensor:
    if ink.dim() != 2:
        raise ValueError(f"like_mnist takes one drawing (height, width), got {tuple(ink.shape)}; of many, take x[i, 0]")
    ink = ink / 255 if ink.dtype == torch.uint8 else ink.float()
    if not ((ink >= 0) & (ink <= 1)).all():  # NaN is in no range
        raise ValueError(
            f"ink is uint8, or from 0 (paper) to 1, got {ink.min():.3g} to {ink.max():.3g}; "
            "was the image normalized for a net?"
        )
    return ink


def _cropped(ink: Tensor) -> Tensor:
    """The box around the ink, which is nothing on empty paper. A stroke's faint rim does not widen it."""
    dark = ink > 0.02 * ink.max() if ink.numel() else ink.bool()
    rows, columns = (dark.any(dim).nonzero().flatten().tolist() for dim in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if rows else ink[:0]


def _corner(small: Tensor) -> list[int]:
    """Where to lay a digit of at most 20 × 20 so that its center of mass falls on pixel (14, 14), or next to it."""
    middles = [
        (small.sum(1 - dim) * torch.arange(n, device=small.device)).sum() / small.sum()
        for dim, n in enumerate(small.shape)
    ]
    return [min(max(round(14 - m.item()), 0), 28 - n) for m, n in zip(middles, small.shape, strict=True)]


def _shares(counts: Tensor, n: int) -> list[int]:
    """n split in proportion to counts: whole numbers, the largest remainders rounded up."""
    exact = counts.double() * n / counts.sum()
    quotas = exact.floor().long()
    quotas[(exact - quotas).argsort(descending=True, stable=True)[: n - int(quotas.sum())]] += 1
    return quotas.tolist()


def _same_length(x: Tensor, y: Tensor) -> None:
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} cases and y has {len(y)}; they must belong together, case by case")
