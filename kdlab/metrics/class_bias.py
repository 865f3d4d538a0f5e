"""A class that a student has never seen: its bias was learned from other classes, and how far it is off.

Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 3: without a 3 in the transfer set most of a student's errors
come from a bias of the 3 that is much too low; raised, the student recognizes the 3s that it has never seen.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from . import quality

ROUNDS = 200  # of `by_frequencies` at most: enough for ten classes and 10,000 cases, to within a case or two


def shifted(logits: Tensor, classes: Sequence[int], bias: float | Sequence[float]) -> Tensor:
    """Add `bias` to the logits of `classes`: the same as moving the last layer's biases.

    logits: (n, n_classes). bias: one number for all of `classes`, or one for each. Returns (n, n_classes).
    """
    numbers = _numbers(logits, classes)
    amount = torch.as_tensor(bias, dtype=logits.dtype, device=logits.device)
    if amount.shape not in ((), (len(numbers),)):
        raise ValueError(f"bias is one number, or one for each of {len(numbers)} classes, got {amount.numel()}")
    moved = logits.clone()
    moved[:, numbers] += amount
    return moved


def by_errors(logits: Tensor, y: Tensor, classes: Sequence[int]) -> float:
    """Return the shift of the biases of `classes` with the fewest errors: exact, not from a grid.

    logits: (n, n_classes); y: (n,), their labels. Where a range of shifts does equally well, its middle. On the test
    set this is the paper's way, an upper bound that uses the test labels; on held-out cases it is an honest choice
    that needs labeled cases of the class.
    """
    if y.shape != logits.shape[:1]:
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(y.shape)} must have the shapes (n, classes) and (n,)"
        )
    margin, inside, outside = _turns(logits, classes)
    margin, order = margin.sort()
    gained = (inside == y).long() - (outside == y).long()  # by a case, once the shift exceeds its margin
    right = torch.cat([torch.zeros(1, dtype=torch.long, device=y.device), gained[order].cumsum(0)])
    ends = torch.cat([margin[:1] - 1, margin, margin[-1:] + 1])  # the shifts between which `right[i]` holds
    right = right.masked_fill(ends[1:] <= ends[:-1], right.min() - 1)  # equal margins turn together
    best = int(right.argmax())
    return ((ends[best] + ends[best + 1]) / 2).item()


def by_frequency(logits: Tensor, classes: Sequence[int], share: float) -> float:
    """Return the shift at which `share` of the cases is called one of `classes`: needs no label.

    logits: (n, n_classes) of unlabeled cases in which the classes are as frequent as they will be. share: theirs
    together, in (0, 1), such as 0.1 for one digit of ten. All of `classes` are shifted alike.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is the classes' part of all cases, between 0 and 1, got {share}")
    return _between(_turns(logits, classes)[0], share)


def by_frequencies(logits: Tensor, shares: Mapping[int, float]) -> list[float]:
    """Return a shift for each class, at which each is called its own share of the cases: needs no label.

    logits: (n, n_classes) of unlabeled cases. shares: by class its share, such as {3: 0.1, 5: 0.1}, together below 1;
    the shifts come in the same order. Of all ways to call so many cases by each name this one has the largest sum of
    logits. The shifts rise in turn, like prices in an auction, until all shares are met (Bertsekas 1981).
    """
    classes = _numbers(logits, [*shares])
    if not (all(0 < share < 1 for share in shares.values()) and sum(shares.values()) < 1):
        raise ValueError(f"shares must be between 0 and 1, and together below 1, got {dict(shares)}")
    logits = logits.double()
    moved = logits.clone()
    moved[:, classes] -= 2 * (logits.max() - logits.min()) + 1  # so low that no case is called by these names
    for _ in range(ROUNDS):
        before = moved.clone()
        for c in classes:
            moved[:, c] = -torch.inf
            moved[:, c] = logits[:, c] + _between(moved.amax(dim=1) - logits[:, c], shares[c])
        if torch.equal(before, moved):
            break
    return [(moved[0, c] - logits[0, c]).item() for c in classes]


def recognized(logits: Tensor, y: Tensor) -> Tensor:
    """Return for each class the percent of its cases that are called by its name; NaN for one without cases.

    logits: (n, n_classes); y: (n,), the labels. Returns (n_classes,).
    """
    counts = quality.confusion(logits, y).double()
    return 100 * counts.diag() / counts.sum(dim=1)


def outcomes(logits: Tensor, y: Tensor, classes: Sequence[int], biases: Sequence[float]) -> Tensor:
    """Return for each bias of `classes`: itself, the errors on all cases, percent of the classes' cases recognized.

    logits: (n, n_classes); y: (n,), the labels. Returns (biases, 3).
    """
    numbers, rows = _numbers(logits, classes), []
    theirs = torch.isin(y, torch.tensor(numbers, device=y.device))
    for bias in biases:
        moved = logits.clone()
        moved[:, numbers] += bias
        right = moved.argmax(dim=1) == y
        rows.append([bias, int((~right).sum()), 100 * float(right[theirs].double().mean())])
    return torch.tensor(rows, dtype=torch.float64)


def _between(margins: Tensor, share: float) -> float:
    """Return the middle between two neighbors of the sorted margins (n,): `share` of them lie below it."""
    margins = margins.sort().values
    n = min(max(round(share * len(margins)), 1), len(margins) - 1)
    return ((margins[n - 1] + margins[n]) / 2).item()


def _turns(logits: Tensor, classes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """By case: the shift above which it is called one of `classes`, which one that is, and what it is called below."""
    numbers = _numbers(logits, classes)
    chosen = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
    chosen[numbers] = True
    inside, outside = (logits.masked_fill(gone, -torch.inf).max(dim=1) for gone in (~chosen, chosen))
    return outside.values - inside.values, inside.indices, outside.indices


def _numbers(logits: Tensor, classes: Sequence[int]) -> list[int]:
    numbers = [int(c) for c in classes]
    if logits.dim() != 2 or not len(logits) or not logits.isfinite().all():
        raise ValueError(f"logits must be finite, of the shape (n, classes), got {tuple(logits.shape)}")
    if not numbers or len(set(numbers)) == logits.shape[1] or not all(0 <= c < logits.shape[1] for c in numbers):
        raise ValueError(f"classes are some, not all, of the numbers 0 to {logits.shape[1] - 1}, got {list(classes)}")
    return numbers
