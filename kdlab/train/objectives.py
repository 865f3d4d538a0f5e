"""Objectives: what a minibatch costs a model, as named, already weighted scalars. A method is its objective.

    train.fit(student, (x, y), train.labels(), …)
    train.fit(student, (x, y), train.distilling(teacher, T=8), …)            # the teacher is asked for every batch
    train.fit(student, (x, y, t), train.distilling(T=8), …)                  # t: its logits, from metrics.logits

An objective is called as objective(model, *batch), so it also serves other people's loops:
`sum(objective(model, x, y).values()).backward()`.
"""

import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from kdlab import losses, models

Objective = Callable[..., dict[str, Tensor]]  # (model, *batch) -> named, already weighted scalars


def labels() -> Objective:
    """Return the objective of a student alone: cross-entropy with the labels, for data (x, y, …)."""

    def objective(model: nn.Module, x: Any, y: Tensor, *_: Tensor) -> dict[str, Tensor]:
        return {"ce": losses.label(models.logits(model, x), y)}

    return objective


def distilling(teacher: nn.Module | None = None, *, T: float = 4.0, alpha: float = 0.9) -> Objective:
    """Return the objective of a student and its teacher: `losses.two_terms`.

    teacher: asked for every batch (x, y), in eval mode and without gradients, whatever mode its owner left it in.
    For data (x, y, t), where t are the teacher's logits, leave it out: this is faster where the inputs do not change
    from epoch to epoch. T: temperature > 0. alpha: share of the soft targets' term, in [0, 1].

    Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 2.
    """
    if teacher is not None and not isinstance(teacher, nn.Module):
        raise TypeError(
            f"teacher must be a model, or None for data (x, y, t) with its logits, got {type(teacher).__name__}; "
            "give the temperature by name: T=8"
        )
    T, alpha = losses.temperature(T), losses.share(alpha)
    ask = None if teacher is None else frozen(teacher)
    compared: list[nn.Module] = []  # the models that were compared with the teacher

    def objective(model: nn.Module, x: Any, y: Tensor, t: Tensor | None = None) -> dict[str, Tensor]:
        if (t is None) == (ask is None):
            raise ValueError("give either the teacher, with data (x, y), or its logits, with data (x, y, t)")
        if teacher is not None and not any(model is one for one in compared):
            _compare(model, teacher)
            compared.append(model)
        return losses.two_terms(models.logits(model, x), ask(x) if t is None else t, y, T, alpha)

    return objective


def _compare(student: nn.Module, teacher: nn.Module) -> None:
    if teacher is student:
        raise ValueError("teacher and student are the same model; a student learns from a copy or from another model")
    if {id(p) for p in teacher.parameters()} & {id(p) for p in student.parameters() if p.requires_grad}:
        warnings.warn(
            "teacher and student share layers, so the teacher will change as its student learns; "
            "copy.deepcopy(teacher) keeps it as it is",
            stacklevel=3,
        )


def frozen(teacher: nn.Module) -> Callable[[Any], Tensor]:
    """Return the teacher as a function x -> logits: always in eval mode, never with gradients.

    The modes of its modules are put back. A teacher left in train mode drops units at random and moves the averages
    of its batch norms: it forgets as it teaches.
    """

    def ask(x: Any) -> Tensor:
        with models.evaluating(teacher):
            return models.logits(teacher, x)

    return ask
