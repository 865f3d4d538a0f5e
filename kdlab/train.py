"""The one training loop: an iterator of steps. A method is its objective.

for step in Training(student, (x, y), objective, epochs=5, lr=1e-3):   # watch it, stop it, go on later
    print(step.number, step.terms["kd"])

fit(student, (x, y), objective, epochs=5, lr=1e-3)                     # or just run it to the end
"""

import contextlib
import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kdlab import checkpoints, losses, machine, models
from kdlab.data.tensors import digest
from kdlab.randomness import for_a_step, mix

SECONDS_BETWEEN_CHECKPOINTS = 60
HOW = ("foreach", "fused", "capturable", "differentiable")  # how an optimizer computes, not what
LIKE_ITS_WEIGHT = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "sum")  # in its memory

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

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        objective: Objective,
        *,
        epochs: int,
        lr: float,
        batch_size: int = 128,
        seed: int | Sequence[int] = 0,
        schedule: Callable[[float], float] = cosine,
        optimizer: Callable[[list[nn.Parameter], float], torch.optim.Optimizer] = adam,
    ):
        _check(model, data, epochs, lr, batch_size)
        epochs, lr, batch_size, seed = int(epochs), float(lr), int(batch_size), _seeds(seed)
        self.model, self.data, self.objective = model, tuple(data), objective
        self.epochs, self.lr, self.batch_size, self.seed, self.schedule = epochs, lr, batch_size, seed, schedule
        self.optimizer = optimizer([p for p in model.parameters() if p.requires_grad], lr)
        for settings in (self.optimizer.defaults, *self.optimizer.param_groups):
            settings.update({key: _plain(value) for key, value in settings.items() if key != "params"})
        self.steps_an_epoch = math.ceil(len(data[0]) / batch_size)
        self.number = 0  # of the step to come
        self._seeds = seed if isinstance(seed, list) else [seed]
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
            group["lr"] = self.lr * ratio * float(self.schedule(self.number / len(self)))
        self.optimizer.step()
        self.number += 1  # at once: a Ctrl-C from here on finds this step taken
        for layer in self._constrained:
            layer.constrain()
        return {name: term.detach() for name, term in terms.items()}

    def state(self) -> dict:
        """All that `resume` needs: weights, the optimizer's memory and the number of the step to come, copied."""
        copies = {name: value.clone() for name, value in self.model.state_dict().items()}
        memory = copy.deepcopy(self.optimizer.state_dict())
        return {
            "model": copies,
            "optimizer": memory,
            "learns": self._learns(),
            "number": self.number,
            "settings": self.settings(),
        }

    def resume(self, state: dict) -> "Training":
        """Go on from `state`. Raises ValueError, before anything changes, where it is of another training or model.

        Compared are the numbers, the optimizer's kind and its own settings, the schedule's course, a sample of the
        data, and the names, shapes and types of all weights and of the optimizer's memory of them; not the objective,
        which is yours to give again.
        """
        if not isinstance(state, dict) or not {"model", "optimizer", "learns", "number", "settings"} <= state.keys():
            raise ValueError("this is not what Training.state() returns in this version of kdlab")
        here, there = self.settings(), state["settings"]
        if parted := [key for key in {**here, **there} if here.get(key) != there.get(key)]:
            told = "; ".join(f"{key}: {there.get(key)} then, {here.get(key)} now" for key in parted)
            raise ValueError(f"this training is not the one that was left ({told}); resume with the same settings")
        if parted := checkpoints.differing(self.model.state_dict(), state["model"]) or self._misremembered(state):
            raise ValueError(
                f"this model is not the one that was left ({'; '.join(parted[:3])}); nothing was changed: "
                "build the model as it was then, or keep this training elsewhere"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.number = state["number"]
        return self

    def _learns(self) -> list[list[str]]:
        """The names of the weights that learn, by the optimizer's groups."""
        names = {id(weight): name for name, weight in self.model.named_parameters()}
        return [[names.get(id(weight), "?") for weight in group["params"]] for group in self.optimizer.param_groups]

    def _misremembered(self, state: dict) -> list[str]:
        """What the optimizer's memory in `state` is of, where that is not what learns here."""
        if state["learns"] != (now := self._learns()):
            then, now = ({name for group in groups for name in group} for groups in (state["learns"], now))
            names = sorted(then ^ now) or ["the same, in other groups"]
            return [f"other weights learn than then: {', '.join(names[:3])}"]
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        parted = []
        for number, memory in state["optimizer"]["state"].items():
            then = {key: memory[key] for key in LIKE_ITS_WEIGHT if isinstance(memory.get(key), Tensor)}
            parted += checkpoints.differing(dict.fromkeys(then, weights[number]), then)
        return parted

    def settings(self) -> dict:
        """What makes this training itself, as plain values: the numbers, the optimizer, the schedule, a data digest."""
        own = {
            key: value
            for key, value in self.optimizer.defaults.items()
            if key not in ("lr", *HOW) and value and isinstance(value, bool | int | float | tuple)
        }
        return {
            **self._begun_with,
            "schedule": [float(self.schedule(i / 8)) for i in range(9)],
            "optimizer": f"{type(self.optimizer).__name__} {own}",
            "data": digest(self.data),
        }


def fit(
    model: nn.Module,
    data: Data,
    objective: Objective,
    *,
    progress: str = "",
    checkpoint: Path | str | None = None,
    **settings,
) -> list[dict[str, float]]:
    """Run a `Training` to its end; return one row of mean terms per epoch, {"epoch": 0, "ce": …, "kd": …}.

    progress: a name to show beside a progress bar; no name, no bar. settings: as for `Training`.
    checkpoint: a file that keeps the training after the epochs that end a minute or more apart, and is deleted at
    the end; where it is there at the beginning, the training goes on from it. One of another training or model is
    refused with a ValueError and stays; a damaged one is kept beside it, as NAME.damaged, and the training begins anew.
    Raises FloatingPointError when the loss is no longer a number.
    """
    from tqdm.auto import tqdm  # here, because in a notebook it imports widgets

    training = Training(model, data, objective, **settings)
    checkpoint = Path(checkpoint) if checkpoint else None
    history: list[dict[str, float]] = checkpoints.take_up(training, checkpoint) if checkpoint else []
    rows: list[dict[str, Tensor]] = []
    kept = time.monotonic()
    bar = tqdm(training, desc=progress, disable=not progress, unit="step", leave=False, initial=training.number)
    for step in bar:
        rows.append(step.terms)
        if len(rows) == training.steps_an_epoch:
            history.append(_means(step.epoch, rows))
            rows = []
            if checkpoint and time.monotonic() - kept > SECONDS_BETWEEN_CHECKPOINTS:
                checkpoints.keep(checkpoint, {"state": training.state(), "history": history})
                kept = time.monotonic()
    if checkpoint:
        with contextlib.suppress(OSError):  # there is none, or its folder is none
            checkpoint.unlink()
    return history


def _seeds(seed: int | Sequence[int]) -> int | list[int]:
    """The seed or seeds as Python's own whole numbers, whether numpy's, torch's or Python's came."""
    seed = seed.tolist() if hasattr(seed, "tolist") else seed
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        return [_seeds(one) for one in seed]
    if not isinstance(seed, Integral):
        raise TypeError(f"a seed is a whole number, got {seed!r}; use int()")
    return int(seed)


def _plain(value: Any) -> Any:
    """A number of numpy's as Python's, alone or in a tuple; all else as it is."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _total(terms: dict[str, Tensor]) -> Tensor:
    if not isinstance(terms, dict) or not terms or "epoch" in terms:
        came = f"the names {list(terms)}" if isinstance(terms, dict) else type(terms).__name__
        raise TypeError(
            f'an objective returns its terms by name, such as {{"ce": loss}}, got {came}; '
            'each term is a scalar tensor, already weighted, and none is called "epoch"'
        )
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
        raise ValueError(
            f"an objective returns the same terms at every step, got {list(rows[0])} and {list(parted)}; "
            "give a term that does not count just now the value 0 * another"
        )
    means = {name: float(torch.stack([row[name] for row in rows]).mean()) for name in rows[0]}
    if not all(map(math.isfinite, means.values())):
        raise FloatingPointError(
            f"the loss is no longer a number in epoch {epoch}: {means}; the usual cause is a "
            "learning rate that is too high: try a tenth of it"
        )
    return {"epoch": epoch, **means}


def labels(student: nn.Module) -> Objective:
    """The student alone: an objective of cross-entropy with the labels, for data (x, y, …)."""
    return lambda x, y, *_: {"ce": losses.label(student(x), y)}


def distilling(
    student: nn.Module, teacher: nn.Module | None = None, *, T: float = 4.0, alpha: float = 0.9
) -> Objective:
    """The student and its teacher: an objective of `losses.two_terms`.

    With a teacher, for data (x, y): it is asked for every batch, in eval mode and without gradients whatever mode
    its owner left it in. Without one, for data (x, y, t), where t are its logits from `metrics.logits`: quicker
    where the images do not change from epoch to epoch.
    """
    if teacher is student:
        raise ValueError("teacher and student are the same net; a student learns from a copy or from another net")
    T, alpha = losses.temperature(T), losses.share(alpha)
    if teacher is not None and {id(p) for p in teacher.parameters()} & {id(p) for p in student.parameters()}:
        warnings.warn(
            "teacher and student share layers, so the teacher will change as its student learns; "
            "copy.deepcopy(teacher) keeps it as it is",
            stacklevel=2,
        )
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
        raise TypeError(
            f"data must be a tuple of tensors, such as (x, y), got {came}; torch.from_numpy() makes a "
            "tensor of an array, and a Dataset is given as (data.x_train, data.y_train)"
        )
    lengths = [len(tensor) for tensor in data]
    if min(lengths) != max(lengths) or lengths[0] == 0:
        raise ValueError(f"data must be tensors of one and the same length, at least 1, got lengths {lengths}")
    if not isinstance(epochs, Integral) or not isinstance(batch_size, Integral):
        raise TypeError(f"epochs and batch_size are whole numbers, got {epochs!r} and {batch_size!r}; use // or int()")
    if epochs < 0 or batch_size < 1 or not 0 <= lr < math.inf:
        raise ValueError(
            "epochs must be at least 0, batch_size at least 1 and lr a number of at least 0, got "
            f"epochs={epochs}, batch_size={batch_size}, lr={lr}"
        )
    learning = [p for p in model.parameters() if p.requires_grad]
    if not learning:
        raise ValueError("no parameter of the model may change; is this the frozen teacher?")
    places = {str(p.device) for p in model.parameters()} | {str(tensor.device) for tensor in data}
    if len(places) > 1:
        raise ValueError(f"model and data must be on one device, got {sorted(places)}; use model.to(x.device)")
    x, wanted = data[0], learning[0].dtype
    if x.dtype == torch.uint8 or (x.is_floating_point() and x.dtype != wanted):
        raise ValueError(
            f"the inputs are {x.dtype} and the model's weights {wanted}; use x.to({wanted})"
            f"{' / 255 for images in bytes' if x.dtype == torch.uint8 else ''}"
        )
