"""The one training loop: an iterator of steps. A method is its objective.

for step in Training(student, (x, y), objective, epochs=5, lr=1e-3):   # watch it, stop it, go on later
    print(step.number, step.terms["kd"])

fit(student, (x, y), objective, epochs=5, lr=1e-3)                     # or just run it to the end
"""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdlab import machine, models
from kdlab.randomness import for_a_step, mix

from . import checkpoints, checks
from .minibatches import Data, Minibatches
from .objectives import Objective

SECONDS_BETWEEN_CHECKPOINTS = 60
HOW = ("foreach", "fused", "capturable", "differentiable")  # how an optimizer computes, not what
LIKE_ITS_WEIGHT = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "sum")  # in its memory


class Step(NamedTuple):
    """One step that was taken: its number from 0, its epoch, and the objective's terms, still on the device."""

    number: int
    epoch: int
    terms: dict[str, Tensor]


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
    """Train `model` on `data`: an iterator of steps; `step.terms` sum to the loss.

    data: a tuple of tensors that belong together case by case, (x, y) or (x, y, teacher's logits); or a torch Dataset
    or DataLoader of such batches, which are moved to the model's device.
    objective: called as objective(model, *batch), returns the terms by name, each a scalar, already weighted. The
    teacher, the temperature and the weights live in its closure, not here. Inside it torch's random state is set from
    (seed, step), so dropout and `jitter` draw the same numbers whatever ran in between; the caller's state is left as
    it was. epochs, steps: how long; give one of them.
    schedule: maps the share of the steps taken, in [0, 1], to a factor on lr.
    optimizer: maps (parameters, lr) to a torch optimizer; where it makes groups, each keeps its own rate's ratio to lr.
    precision: "auto", "float32" or "bfloat16", of the matrix products, see `machine.precision`; None: as around it.

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
        epochs: int | None = None,
        steps: int | None = None,
        lr: float,
        batch_size: int = 128,
        seed: int | Sequence[int] = 0,
        schedule: Callable[[float], float] = cosine,
        optimizer: Callable[[list[nn.Parameter], float], torch.optim.Optimizer] = adam,
        precision: str | None = None,
    ):
        checks.inputs(model, data, epochs, steps, lr, batch_size)
        lr, batch_size, seed = float(lr), int(batch_size), checks.seeds(seed)
        epochs, steps = (None if number is None else int(number) for number in (epochs, steps))
        self.model, self.objective, self.precision = model, objective, precision
        self.batches = Minibatches(data if not isinstance(data, list) else tuple(data), batch_size, seed)
        self.epochs, self.lr, self.batch_size, self.seed, self.schedule = epochs, lr, batch_size, seed, schedule
        self.steps = self._count(steps)
        self.optimizer = optimizer([p for p in model.parameters() if p.requires_grad], lr)
        for settings in (self.optimizer.defaults, *self.optimizer.param_groups):
            settings.update({key: checks.plain(value) for key, value in settings.items() if key != "params"})
        self.number = 0  # of the step to come
        self._seeds = seed if isinstance(seed, list) else [seed]
        self._ratios = [group["lr"] / lr if lr else 1.0 for group in self.optimizer.param_groups]
        self._stay_in_eval = [module for module in model.modules() if model.training and not module.training]
        self._checked = -1  # the epoch in which it was last compared who learns with who should
        self._begun_with = {"epochs": epochs, "steps": steps, "lr": lr, "batch_size": batch_size, "seed": seed}

    def _count(self, steps: int | None) -> int:
        if steps is not None:
            return steps
        if self.batches.an_epoch is None:
            raise ValueError("this loader does not know its length, so say how long to train by steps=, not epochs=")
        return self.epochs * self.batches.an_epoch

    @property
    def steps_an_epoch(self) -> int:
        """The number of minibatches in an epoch; all steps where a loader does not know its length."""
        return self.batches.an_epoch or self.steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        if self.number >= len(self):
            self.model.eval()
            raise StopIteration
        epoch, position = divmod(self.number, self.steps_an_epoch)
        device = next(self.model.parameters()).device
        with machine.threads():
            batch = self.batches.get(epoch, position, device)
            with for_a_step(mix(*self._seeds, epoch, position), device), self._multiplying():
                return Step(self.number, epoch, self._learn(batch))

    def _multiplying(self) -> contextlib.AbstractContextManager:
        return machine.autocast(self.precision) if self.precision else contextlib.nullcontext()

    def _learn(self, batch: tuple) -> dict[str, Tensor]:
        self.model.train()
        for module in self._stay_in_eval:
            module.eval()
        averages = [(buffer, buffer.clone()) for buffer in self.model.buffers()]  # batch norm's
        try:
            terms = self.objective(self.model, *batch)
            loss = checks.total(terms)
            if self._checked != (epoch := self.number // max(1, self.steps_an_epoch)):
                checks.who_learns(loss, self.optimizer, self.model)
                self._checked = epoch
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
        for layer in models.constrained(self.model):
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
            **self.batches.settings(),
            "precision": self.precision,
            "schedule": [float(self.schedule(i / 8)) for i in range(9)],
            "optimizer": f"{type(self.optimizer).__name__} {own}",
        }


def fit(
    model: nn.Module,
    data: Data,
    objective: Objective,
    *,
    progress: str = "",
    checkpoint: Path | str | None = None,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    **settings,
) -> list[dict[str, float]]:
    """Run a `Training` to its end; return one row of mean terms per epoch, {"epoch": 0, "ce": …, "kd": …}.

    progress: a name to show beside a progress bar; no name, no bar. settings: as for `Training`.
    validate: called as validate(model) after each epoch, in eval mode; what it returns is added to that epoch's row.
    checkpoint: a file that keeps the training once a minute, and is deleted at the end; where it is there at the
    beginning, the training goes on from it. One of another training or model is refused with a ValueError and stays;
    a damaged one is kept beside it, as NAME.damaged, and the training begins anew.
    Raises FloatingPointError when the loss is no longer a number.
    """
    from tqdm.auto import tqdm  # here, because in a notebook it imports widgets

    training = Training(model, data, objective, **settings)
    checkpoint = Path(checkpoint) if checkpoint else None
    history, rows = checkpoints.take_up(training, checkpoint) if checkpoint else ([], [])
    kept = time.monotonic()
    for step in tqdm(training, desc=progress, disable=not progress, unit="step", leave=False, initial=training.number):
        rows.append(step.terms)
        if len(rows) == training.steps_an_epoch or training.number == len(training):
            history.append(_row(step.epoch, rows, model, validate))
            rows = []
        if checkpoint and time.monotonic() - kept > SECONDS_BETWEEN_CHECKPOINTS:
            checkpoints.keep(checkpoint, {"state": training.state(), "history": history, "rows": rows})
            kept = time.monotonic()
    if checkpoint:
        with contextlib.suppress(OSError):  # there is none, or its folder is none
            checkpoint.unlink()
    return history


def _row(epoch: int, rows: list[dict[str, Tensor]], model: nn.Module, validate: Callable | None) -> dict[str, float]:
    row = checks.means(epoch, rows)
    if validate is None:
        return row
    with models.evaluating(model):
        found = validate(model)
    if not isinstance(found, dict) or found.keys() & row.keys():
        raise TypeError(f"validate must return numbers by names other than {list(row)}, got {found!r}")
    return row | {name: float(value) for name, value in found.items()}
