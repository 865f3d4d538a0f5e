"""A class that a student has never seen: its bias was learned from other classes, and how far it is off.

Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 3: without a 3 in the transfer set most of a student's errors
come from a bias of the 3 that is much too low; raised, the student knows the 3s it has never seen.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def shifted(logits: Tensor, classes: Sequence[int], bias: float) -> Tensor:
    """Logits (n, n_classes) with `bias` added to those of `classes`: the same as moving the last layer's biases."""
    moved = logits.clone()
    moved[:, _numbers(logits, classes)] += bias
    return moved


def by_errors(logits: Tensor, y: Tensor, classes: Sequence[int]) -> float:
    """The shift of the biases of `classes` that errs least on the labeled cases (logits, y): exact, not a grid.

    Where a range of shifts does equally well, its middle. On the test set this is the paper's way, and a choice that
    nobody could make who does not have its labels; on held-out cases it is an honest one that needs labeled cases
    of the class.
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
    """The shift at which a share `share`, in (0, 1), of the cases is called one of `classes`: needs no label at all.

    logits: (n, n_classes) of unlabeled cases in which the classes are as frequent as they will be. share: theirs
    together, such as 0.1 for one digit of ten.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is the classes' part of all cases, between 0 and 1, got {share}")
    margin = _turns(logits, classes)[0].sort().values
    n = min(max(round(share * len(margin)), 1), len(margin) - 1)
    return ((margin[n - 1] + margin[n]) / 2).item()


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
