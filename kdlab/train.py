"""The one training loop: an iterator of steps. A method is its objective.

    for step in Training(student, (x, y), objective, epochs=5, lr=1e-3):   # watch it, stop it, go on later
        print(step.number, step.terms["kd"])

    fit(student, (x, y), objective, epochs=5, lr=1e-3)                     # or just run it to the end
"""

import contextlib
import copy
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdlab import losses, machine, models
from kdlab.data.tensors import digest
from kdlab.randomness import for_a_step, mix

SECONDS_BETWEEN_CHECKPOINTS = 60
HOW = ("foreach", "fused", "capturable", "differentiable")  # how an optimizer computes, not what

Objective = Callable[..., dict[str, Tensor]]  # a batch → named, already weighted scalars, such as {"ce": …, "kd": …}
Data = tuple[Tensor, ...]  # what goes together case by case: (x, y), or (x, y, teacher's logits)


class Step(NamedTuple):
    """One step that was taken: its number from 0, its epoch, and the objective's terms, still on the device."""

    number: int
    epoch: int
    terms: dict[str, Tensor]


def batches(data: Data, size: int, seed: int | Sequence[int], epoch: int) -> list[Tensor]:
    """The case numbers of each shuffled minibatch of an epoch, on the data's device; the last one may be short.

    They depend on the seed and the epoch alone, so that a training can be taken up in the middle. Several seeds, one
    for each of the nets that `kdlab.many` trains at once, give (seeds, size) case numbers.
    """
    if isinstance(seed, Sequence):
        return [torch.stack(each) for each in zip(*(batches(data, size, one, epoch) for one in seed), strict=True)]
    rng = torch.Generator().manual_seed(mix(seed, epoch))
    return list(torch.randperm(len(data[0]), generator=rng).to(data[0].device).split(size))


def constant(progress: float) -> float:
    """The same rate throughout."""
    return 1.0


def cosine(progress: float) -> float:
    """The rate falls from lr to 0 along half a cosine. progress: the share of the steps taken, in [0, 1]."""
    return (1 + math.cos(math.pi * progress)) / 2


def one_cycle(progress: float, warm_up: float = 0.1) -> float:
    """The rate rises in a line to lr over the first `warm_up` of the steps, then falls to 0 along half a cosine."""
    return progress / warm_up if progress < warm_up else cosine((progress - warm_up) / (1 - warm_up))


def adam(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Adam without weight decay: learns at nearly any sensible rate, which a first lesson wants."""
    return torch.optim.Adam(parameters, lr=lr, fused=parameters[0].device.type in ("cpu", "cuda"))


class Training:
    """One training of `model` on `data` as an iterator of steps; `step.terms` sum to the loss.

    objective: maps a minibatch of `data` to its terms. The teacher, the temperature and the weights live in its
    closure, not here. Inside it torch's random state is set from (seed, step), so dropout and `jitter` draw the
    same numbers whatever ran in between; the caller's state is left as it was.
    schedule: maps the share of the steps taken, in [0, 1], to a factor on lr.
    optimizer: maps (parameters, lr) to a torch optimizer; where it makes groups, each keeps its own rate's ratio to lr.

    The model trains in train mode. A module of it that is in eval mode while the model itself is in train mode, a
    batch norm that shall not move, say, stays in eval mode. At the end all of the model is in eval mode.
    A step whose objective raised is taken again by the next call of next(), as if it had not been tried.
    The same seed on the same CPU gives the same weights, bit by bit. `state()` in the middle, `resume(state)` on a
    fresh Training of the same settings, and the rest of the steps give the same weights as well.
    """

    def __init__(self, model: nn.Module, data: Data, objective: Objective, *, epochs: int, lr: float,
                 batch_size: int = 128, seed: int | Sequence[int] = 0, schedule: Callable[[float], float] = cosine,
                 optimizer: Callable[[list[nn.Parameter], float], torch.optim.Optimizer] = adam):
        _check(model, data, epochs, lr, batch_size)
        self.model, self.data, self.objective = model, tuple(data), objective
        self.epochs, self.lr, self.batch_size, self.seed, self.schedule = epochs, lr, batch_size, seed, schedule
        self.optimizer = optimizer([p for p in model.parameters() if p.requires_grad], lr)
        self.steps_an_epoch = math.ceil(len(data[0]) / batch_size)
        self.number = 0  # of the step to come
        self._seeds = list(seed) if isinstance(seed, Sequence) else [seed]
        self._ratios = [group["lr"] / lr if lr else 1.0 for group in self.optimizer.param_groups]
        self._stay_in_eval = [module for module in model.modules() if model.training and not module.training]
        self._constrained = models.constrained(model)
        self._epoch, self._batches = -1, []  # the epoch that the batches at hand belong to
        self._begun_with = {"cases": len(data[0]), "epochs": epochs, "lr": lr, "batch_size": batch_size, "seed": seed}

    def __len__(self) -> int:
        return self.epochs * self.steps_an_epoch

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        if self.number >= len(self):
            self.model.eval()
            raise StopIteration
        epoch, position = divmod(self.number, self.steps_an_epoch)
        with machine.threads(), for_a_step(mix(*self._seeds, epoch, position), self.data[0].device):
            if epoch != self._epoch:
                self._batches, self._epoch = batches(self.data, self.batch_size, self.seed, epoch), epoch
            batch = tuple(tensor[self._batches[position]] for tensor in self.data)
            return Step(self.number, epoch, self._learn(batch))

    def _learn(self, batch: Data) -> dict[str, Tensor]:
        self.model.train()
        for module in self._stay_in_eval:
            module.eval()
        averages = [(buffer, buffer.clone()) for buffer in self.model.buffers()]  # batch norm's
        try:
            terms = self.objective(*batch)
            loss = _total(terms)
            self.optimizer.zero_grad()
            loss.backward()
        except BaseException:
            for buffer, before in averages:
                buffer.copy_(before)
            raise
        for group, ratio in zip(self.optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = self.lr * ratio * self.schedule(self.number / len(self))
        self.optimizer.step()
        self.number += 1  # at once: a Ctrl-C from here on finds this step taken
        for layer in self._constrained:
            layer.constrain()
        return {name: term.detach() for name, term in terms.items()}

    def state(self) -> dict:
        """All that `resume` needs: weights, the optimizer's memory and the number of the step to come, copied."""
        copies = {name: value.clone() for name, value in self.model.state_dict().items()}
        memory = copy.deepcopy(self.optimizer.state_dict())
        return {"model": copies, "optimizer": memory, "number": self.number, "settings": self.settings()}

    def resume(self, state: dict) -> "Training":
        """Go on from `state`. Raises ValueError where this training has other settings than the one that was left.

        Compared are the numbers, the optimizer's kind and its own settings, the schedule's course and a sample of
        the data; not the objective, which is yours to give again.
        """
        here, there = self.settings(), state["settings"]
        if parted := [key for key in {**here, **there} if here.get(key) != there.get(key)]:
            told = "; ".join(f"{key}: {there.get(key)} then, {here.get(key)} now" for key in parted)
            raise ValueError(f"this training is not the one that was left ({told}); resume with the same settings")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.number = state["number"]
        return self

    def settings(self) -> dict:
        """What makes this training itself, as plain values: the numbers, the optimizer, the schedule, a data digest."""
        own = {key: value for key, value in self.optimizer.defaults.items() if key not in ("lr", *HOW)
               and value and isinstance(value, bool | int | float | tuple)}  # fmt: skip
        return {**self._begun_with, "schedule": [self.schedule(i / 8) for i in range(9)],
                "optimizer": f"{type(self.optimizer).__name__} {own}", "data": digest(self.data)}


def fit(model: nn.Module, data: Data, objective: Objective, *, progress: str = "", checkpoint: Path | None = None,
        **settings) -> list[dict[str, float]]:
    """Run a `Training` to its end; return one row of mean terms per epoch, {"epoch": 0, "ce": …, "kd": …}.

    progress: a name to show beside a progress bar; no name, no bar. settings: as for `Training`.
    checkpoint: a file that keeps the training after the epochs that end a minute or more apart, and is deleted at
    the end; where it is there at the beginning, the training goes on from it.
    Raises FloatingPointError when the loss is no longer a number.
    """
    from tqdm.auto import tqdm  # here, because in a notebook it imports widgets

    training = Training(model, data, objective, **settings)
    history: list[dict[str, float]] = _take_up(training, checkpoint)
    rows: list[dict[str, Tensor]] = []
    kept = time.monotonic()
    bar = tqdm(training, desc=progress, disable=not progress, unit="step", leave=False, initial=training.number)
    for step in bar:
        rows.append(step.terms)
        if len(rows) == training.steps_an_epoch:
            history.append(_means(step.epoch, rows))
            rows = []
            if checkpoint and time.monotonic() - kept > SECONDS_BETWEEN_CHECKPOINTS:
                _keep(checkpoint, {"state": training.state(), "history": history})
                kept = time.monotonic()
    if checkpoint:
        with contextlib.suppress(OSError):  # there is none, or its folder is none
            checkpoint.unlink()
    return history


def _take_up(training: Training, checkpoint: Path | None) -> list[dict[str, float]]:
    """Put `training` where its checkpoint left it, if there is one; returns the history until then."""
    if checkpoint is None or not checkpoint.exists():
        return []
    try:
        kept = torch.load(checkpoint, weights_only=True, map_location="cpu")
        training.resume(kept["state"])
    except ValueError:
        raise  # of another training: its settings are named
    except Exception as error:  # pickle, zip and torch each have their own
        warnings.warn(f"{checkpoint} is damaged ({type(error).__name__}); the training begins anew", stacklevel=3)
        return []
    return kept["history"]


def _keep(checkpoint: Path, kept: dict) -> None:
    """All of it under another name, then renamed, so that there is a whole checkpoint at any moment."""
    half_written = checkpoint.with_name(f"{checkpoint.name}.part")
    try:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        torch.save(kept, half_written)
        os.replace(half_written, checkpoint)
    except (OSError, RuntimeError) as error:  # a full disk must not end a training
        with contextlib.suppress(OSError):
            half_written.unlink()
        warnings.warn(f"the training goes on, but could not be kept in {checkpoint}: {error}", stacklevel=3)


def _total(terms: dict[str, Tensor]) -> Tensor:
    if not isinstance(terms, dict) or not terms or "epoch" in terms:
        came = f"the names {list(terms)}" if isinstance(terms, dict) else type(terms).__name__
        raise TypeError(f'an objective returns its terms by name, such as {{"ce": loss}}, got {came}; '
                        'each term is a scalar tensor, already weighted, and none is called "epoch"')
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.dim():
            came = f"the shape {tuple(term.shape)}" if isinstance(term, Tensor) else type(term).__name__
            raise TypeError(f"the term {name!r} must be a scalar tensor, got {came}; is a mean over the batch missing?")
    total = sum(terms.values())
    if not total.requires_grad:
        raise ValueError(f"the terms {list(terms)} do not depend on the weights; was the student asked under no_grad?")
    return total


def _means(epoch: int, rows: list[dict[str, Tensor]]) -> dict[str, float]:
    if parted := next((row for row in rows if row.keys() != rows[0].keys()), None):
        raise ValueError(f"an objective returns the same terms at every step, got {list(rows[0])} and {list(parted)}; "
                         "give a term that does not count just now the value 0 * another")
    means = {name: float(torch.stack([row[name] for row in rows]).mean()) for name in rows[0]}
    if not all(map(math.isfinite, means.values())):
        raise FloatingPointError(f"the loss is no longer a number in epoch {epoch}: {means}; the usual cause is a "
                                 "learning rate that is too high: try a tenth of it")
    return {"epoch": epoch, **means}


def labels(student: nn.Module) -> Objective:
    """The student alone: an objective of cross-entropy with the labels, for data (x, y, …)."""
    return lambda x, y, *_: {"ce": losses.label(student(x), y)}


def distilling(student: nn.Module, teacher: nn.Module | None = None, *, T: float = 4.0,
               alpha: float = 0.9) -> Objective:
    """The student and its teacher: an objective of `losses.two_terms`.

    With a teacher, for data (x, y): it is asked for every batch, in eval mode and without gradients whatever mode
    its owner left it in. Without one, for data (x, y, t), where t are its logits from `metrics.logits`: quicker
    where the images do not change from epoch to epoch.
    """
    if teacher is student:
        raise ValueError("teacher and student are the same net; a student learns from a copy or from another net")
    T, alpha = losses.temperature(T), losses.share(alpha)
    if teacher is not None and {id(p) for p in teacher.parameters()} & {id(p) for p in student.parameters()}:
        warnings.warn("teacher and student share layers, so the teacher will change as its student learns; "
                      "copy.deepcopy(teacher) keeps it as it is", stacklevel=2)
    ask = None if teacher is None else frozen(teacher)

    def objective(x: Tensor, y: Tensor, t: Tensor | None = None) -> dict[str, Tensor]:
        if (t is None) == (ask is None):
            raise ValueError("give either the teacher, with data (x, y), or its logits, with data (x, y, t)")
        return losses.two_terms(student(x), ask(x) if t is None else t, y, T, alpha)

    return objective


def frozen(teacher: nn.Module) -> Callable[[Tensor], Tensor]:
    """The teacher as a plain function of x: always in eval mode, never with gradients; its own mode is put back.

    A teacher left in train mode drops units at random and moves its batch norms' averages: it forgets as it teaches.
    """

    def ask(x: Tensor) -> Tensor:
        with models.evaluating(teacher):
            return teacher(x)

    return ask


def _check(model: nn.Module, data: Data, epochs: int, lr: float, batch_size: int) -> None:
    if not isinstance(data, tuple | list) or not data or not all(isinstance(part, Tensor) for part in data):
        came = [type(part).__name__ for part in data] if isinstance(data, tuple | list) else type(data).__name__
        raise TypeError(f"data must be a tuple of tensors, such as (x, y), got {came}; torch.from_numpy() makes a "
                        "tensor of an array, and a Dataset is given as (data.x_train, data.y_train)")
    lengths = [len(tensor) for tensor in data]
    if min(lengths) != max(lengths) or lengths[0] == 0:
        raise ValueError(f"data must be tensors of one and the same length, at least 1, got lengths {lengths}")
    if not isinstance(epochs, Integral) or not isinstance(batch_size, Integral):
        raise TypeError(f"epochs and batch_size are whole numbers, got {epochs!r} and {batch_size!r}; use // or int()")
    if epochs < 0 or batch_size < 1 or not 0 <= lr < math.inf:
        raise ValueError("epochs must be at least 0, batch_size at least 1 and lr a number of at least 0, got "
                         f"epochs={epochs}, batch_size={batch_size}, lr={lr}")
    learning = [p for p in model.parameters() if p.requires_grad]
    if not learning:
        raise ValueError("no parameter of the model may change; is this the frozen teacher?")
    places = {str(p.device) for p in model.parameters()} | {str(tensor.device) for tensor in data}
    if len(places) > 1:
        raise ValueError(f"model and data must be on one device, got {sorted(places)}; use model.to(x.device)")
    x, wanted = data[0], learning[0].dtype
    if x.dtype == torch.uint8 or (x.is_floating_point() and x.dtype != wanted):
        raise ValueError(f"the inputs are {x.dtype} and the model's weights {wanted}; use x.to({wanted})"
                         f"{' / 255 for images in bytes' if x.dtype == torch.uint8 else ''}")
