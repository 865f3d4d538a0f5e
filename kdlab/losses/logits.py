"""What a student is asked to answer: soft targets, labels, logits, an ensemble.

Every function takes logits, before softmax, of shape (batch, classes), and returns a mean over the batch in nats, or
with reduction="none" a value for each case, (batch,), as torch's own losses do.
Half-precision logits are computed in single precision, because T² and exp leave half's range quickly; `soft_targets`
in double, because at a high T it is T² times the small difference of two large numbers.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Reduction = Literal["mean", "none"]


def softened(logits: Tensor, T: float = 4.0) -> Tensor:
    """softmax(logits / T) over the last dimension: the soft targets at temperature T > 0, in [0, 1].

    Hinton, Vinyals & Dean 2015, arXiv:1503.02531, eq. 1.
    """
    return F.softmax(_divided(wide(logits), temperature(T)), dim=-1)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) over the last dimension, in nats, from log-probabilities that broadcast; (…,).

    A mass of 0 in p costs nothing, in the value and in the gradient, whatever q has there.
    """
    p = log_p.exp()
    return (p * torch.where(p > 0, log_p - log_q, 0.0)).sum(dim=-1)


def soft_targets(
    student_logits: Tensor, teacher_logits: Tensor, T: float = 4.0, *, reduction: Reduction = "mean"
) -> Tensor:
    """KL(teacher || student) between temperature-softened predictions, times T².

    student_logits, teacher_logits: (batch, classes). A logit may be -inf (a class that gets no mass), the student's
    only where the teacher's is.
    T: temperature > 0. The T² keeps the gradient's size about constant as T grows. From about T = 1e6 on rounding
    shows; `logit_matching` is the limit.
    Returns a scalar, or (batch,); no gradient reaches the teacher. Its gradient is that of the paper's cross-entropy,
    from which it differs by the entropy of the soft targets; so it is 0 for a student that agrees with its teacher.

    Hinton et al. 2015, section 2 and eq. 2.
    """
    student, teacher = _checked(student_logits, teacher_logits)
    T = temperature(T)
    log_p, log_q = (F.log_softmax(_divided(_fine(each), T), dim=1) for each in (teacher, student))
    loss = _reduced(T**2 * kl(log_p, log_q), reduction)
    if loss.isinf().any():
        raise ValueError(
            "the student's logit is -inf for a class to which the teacher gives mass, an infinite loss; "
            "leave out in both nets the classes that do not count"
        )
    return loss.to(student.dtype)


def label(student_logits: Tensor, y: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Cross-entropy with the labels at T = 1. student_logits: (batch, classes); y: (batch,) class numbers."""
    if student_logits.dim() != 2 or y.shape != student_logits.shape[:1] or y.is_floating_point():
        raise ValueError(
            f"student logits {tuple(student_logits.shape)} and labels {tuple(y.shape)} of {y.dtype} "
            "must have the shapes (batch, classes) and (batch,); labels are whole class numbers, not "
            "one-hot rows"
        )
    _not_empty(student_logits)
    if not 0 <= int(y.min()) <= int(y.max()) < student_logits.shape[1]:
        raise ValueError(
            f"labels run from {int(y.min())} to {int(y.max())}, but the student has "
            f"{student_logits.shape[1]} classes, 0 to {student_logits.shape[1] - 1}"
        )
    _sane(student_logits, "student")
    return _reduced(F.cross_entropy(wide(student_logits), y.long(), reduction="none"), reduction)


def two_terms(
    student_logits: Tensor,
    teacher_logits: Tensor,
    y: Tensor,
    T: float = 4.0,
    alpha: float = 0.9,
    *,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The weighted terms of the distillation loss: {"ce": (1 - alpha) · label, "kd": alpha · soft targets}.

    y: (batch,) class numbers. alpha: share of the soft-target term, in [0, 1].

    Hinton et al. 2015, section 2: the label's term works best with a considerably lower weight.
    """
    alpha = share(alpha)
    ce = label(student_logits, y, reduction=reduction)
    kd = soft_targets(student_logits, teacher_logits, T, reduction=reduction)
    return {"ce": (1 - alpha) * ce, "kd": alpha * kd}


def distillation(
    student_logits: Tensor,
    teacher_logits: Tensor,
    y: Tensor,
    T: float = 4.0,
    alpha: float = 0.9,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """The sum of `two_terms`: alpha · soft targets at T + (1 - alpha) · cross-entropy with the labels."""
    terms = two_terms(student_logits, teacher_logits, y, T, alpha, reduction=reduction)
    return terms["ce"] + terms["kd"]


def logit_matching(student_logits: Tensor, teacher_logits: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Half the mean squared distance of the logits, each case's logits centered on zero.

    This is what `soft_targets` tends to as T grows. All logits must be finite.

    Hinton et al. 2015, section 2.1, eq. 4.
    """
    student, teacher = _checked(student_logits, teacher_logits)
    if not (student.isfinite().all() and teacher.isfinite().all()):
        raise ValueError("a logit is -inf, and no distance to it can be matched; use soft_targets, or finite logits")
    gap = student - teacher
    return _reduced((gap - gap.mean(dim=1, keepdim=True)).square().mean(dim=1) / 2, reduction)


def ensemble(member_logits: Tensor, T: float = 4.0, mean: Literal["arithmetic", "geometric"] = "arithmetic") -> Tensor:
    """The logits of an ensemble: softened at the same T they give the mean of the members' soft targets.

    member_logits: (members, batch, classes). Returns (batch, classes), to be used as a teacher's logits.
    mean: of the members' probabilities. The geometric mean, renormalized, is the mean of the logits, at any T;
    the arithmetic one must be taken at the T it will be used at.

    Hinton et al. 2015, section 2 (either mean) and section 4 (ten acoustic models).
    """
    if not isinstance(member_logits, Tensor) or member_logits.dim() != 3 or member_logits.numel() == 0:
        came = tuple(member_logits.shape) if isinstance(member_logits, Tensor) else type(member_logits).__name__
        raise ValueError(
            f"member logits must have the shape (members, batch, classes), at least one of each, got "
            f"{came}; put the members together with torch.stack"
        )
    _sane(member_logits, "ensemble")
    members, T = wide(member_logits), temperature(T)
    if mean == "geometric":
        return members.mean(dim=0)
    if mean == "arithmetic":
        out = members.isneginf().all(dim=0)  # no member gives it mass: it has no part in a gradient
        log_p = F.log_softmax(_divided(members, T), dim=2).masked_fill(out, 0.0)
        return (T * (log_p.logsumexp(dim=0) - math.log(len(members)))).masked_fill(out, -math.inf)
    raise ValueError(f"mean must be 'arithmetic' or 'geometric', got {mean!r}")


def temperature(T: float) -> float:
    """T as a number, refused unless it is > 0 and finite. A tensor that learns stays one."""
    try:
        value = float(T.detach() if isinstance(T, Tensor) else T)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"temperature T must be one number, got {T!r}") from None
    if not 0 < value < math.inf:
        raise ValueError(
            f"temperature T must be > 0 and finite, got {value:g}; T = 1 leaves the predictions unsoftened"
        )
    return T if isinstance(T, Tensor) and T.requires_grad else value


def share(alpha: float) -> float:
    """alpha as a number, refused outside [0, 1]."""
    if not 0 <= float(alpha) <= 1:
        raise ValueError(f"alpha is the soft-target term's share of the loss and must be in [0, 1], got {float(alpha)}")
    return float(alpha)


def _divided(logits: Tensor, T: float | Tensor) -> Tensor:
    """logits / T. Where T learns, a logit of -inf has no part in its gradient, which would be NaN."""
    if not isinstance(T, Tensor):
        return logits / T
    out = logits.isneginf()
    return torch.where(out, logits, logits.masked_fill(out, 0.0) / T)


def _reduced(loss: Tensor, reduction: Reduction) -> Tensor:
    check_reduction(reduction)
    return loss.mean() if reduction == "mean" else loss


def check_reduction(reduction: str) -> None:
    """ValueError for what is neither of the two."""
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction is 'mean' or 'none', got {reduction!r}; a sum is loss.sum() of 'none'")


def _checked(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    if student.shape != teacher.shape or student.dim() != 2:
        raise ValueError(
            f"student logits {tuple(student.shape)} and teacher logits {tuple(teacher.shape)} must have the same "
            "shape (batch, classes); was one of them trained on a different set of classes?"
        )
    _not_empty(student)
    _sane(student, "student")
    _sane(teacher, "teacher")
    return wide(student), wide(teacher.detach())  # a teacher does not learn from its student


def _not_empty(logits: Tensor) -> None:
    if logits.numel() == 0:
        raise ValueError(f"the batch is empty, logits {tuple(logits.shape)}; was every case left out of the data?")


def _sane(logits: Tensor, whose: str) -> None:
    """Each row's largest logit must be a number: NaN, +inf and a row of nothing but -inf all show there."""
    if not logits.amax(dim=-1).isfinite().all():
        raise ValueError(
            f"the {whose}'s logits contain NaN, +inf or a row of nothing but -inf; the usual cause is a "
            "learning rate that is too high (try a tenth of it), else look for NaN in the images"
        )


def wide(logits: Tensor) -> Tensor:
    """Half-precision logits as single, others as they are."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _fine(logits: Tensor) -> Tensor:
    return logits if logits.device.type == "mps" else logits.double()  # Apple's graphics know no double
