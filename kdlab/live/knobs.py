"""The values a person may turn while the loop runs, the log of their turning, and its replay.

knobs = Knobs(T=4.0, alpha=0.9, lr=1e-3)
run = Run(build, data, lambda knobs: train.distilling(T=knobs.T, alpha=knobs.alpha), knobs)
next(run); knobs.turn(T=8.0); next(run)  # the second step uses T = 8

again = replay(run.log(), run)           # the same turns at the same steps: the same weights
"""

import copy
import hashlib
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdlab import machine, train
from kdlab.train import Objective, Step

Value = float | list[float]
FORMAT = 1


class Knob(NamedTuple):
    """A value that may be turned from `low` to `high`; a list is one value a class. log: on a logarithmic scale."""

    value: Value
    low: float
    high: float
    log: bool = False


# What a bare number stands for, by the knob's name: its range, and whether its scale is logarithmic.
RANGES = {"T": (0.1, 100.0, True), "alpha": (0.0, 1.0, False), "lr": (1e-5, 1.0, True), "bias": (-10.0, 10.0, False)}


class Knobs:
    """Values by name, as the step at hand uses them: `knobs.T`. `turn` sets those of the next step, from any thread.

    A name in RANGES may be given as a number (bias: a list, one a class); any other needs a Knob with its range.
    """

    def __init__(self, **knobs: Knob | Value):
        self.knobs = {name: _knob(name, given) for name, given in knobs.items()}
        self._lock = threading.Lock()
        self._wanted = {name: _within(name, knob, knob.value) for name, knob in self.knobs.items()}
        self._used = dict(self._wanted)
        self._watchers: list[Callable[[dict[str, Value]], None]] = []
        self._start = self.wanted()
        self.turns: list[dict[str, Any]] = []  # {"step": the first that used them, name: value, …}

    def __getattr__(self, name: str) -> Any:
        used = self.__dict__.get("_used", {})
        if name not in used:
            raise AttributeError(f"there is no knob {name!r}; there are {', '.join(used)}")
        return _own(used[name])

    @property
    def start(self) -> dict[str, Value]:
        """The values as they stood before the first step."""
        return {name: _own(value) for name, value in self._start.items()}

    def turn(self, **values: Value) -> None:
        """Set these for the next step to come. Raises ValueError outside a knob's range, and then turns none."""
        checked = self.checked(values)
        with self._lock:
            self._wanted.update(checked)
        for watcher in self._watchers:
            watcher(checked)

    def checked(self, values: dict[str, Any]) -> dict[str, Value]:
        """The values as plain numbers. Raises ValueError or TypeError for one that its knob cannot take."""
        if unknown := [name for name in values if name not in self.knobs]:
            raise ValueError(f"there is no knob {unknown[0]!r}; there are {', '.join(self.knobs)}")
        return {name: _within(name, self.knobs[name], value) for name, value in values.items()}

    def observe(self, watcher: Callable[[dict[str, Value]], None]) -> None:
        """Call watcher({name: value}) after each turn, in the thread that turned."""
        self._watchers.append(watcher)

    def used(self) -> dict[str, Value]:
        """Return the values that the step at hand uses."""
        return {name: _own(value) for name, value in self._used.items()}

    def wanted(self) -> dict[str, Value]:
        """The values that the next step will use."""
        with self._lock:
            return {name: _own(value) for name, value in self._wanted.items()}

    def take(self, step: int) -> dict[str, Value]:
        """What the loop calls before each step: from here on the step uses what is wanted; what changed is logged."""
        wanted = self.wanted()
        changed = {name: value for name, value in wanted.items() if value != self._used[name]}
        if changed and self.turns and self.turns[-1]["step"] == step:  # a step that failed, and is tried again
            self.turns[-1].update(changed)
        elif changed:
            self.turns.append({"step": step, **changed})
        self._used = wanted
        return wanted

    def copy_from(self, other: "Knobs") -> None:
        """Stand where `other` stands, with the turns that led there."""
        with self._lock:
            self._wanted, self._used = other.wanted(), dict(other._used)
        self.turns = copy.deepcopy(other.turns)


def _knob(name: str, given: Knob | Value) -> Knob:
    if name == "step" or name.startswith("_") or hasattr(Knobs, name) or name in ("knobs", "turns"):
        raise ValueError(f"a knob cannot be called {name!r}, which Knobs and their log use themselves")
    if isinstance(given, Knob):
        return given._replace(value=_plain(given.value))
    if name not in RANGES:
        raise ValueError(
            f"the knob {name!r} needs a range, such as {name}=Knob({given}, low=0, high=1); "
            f"only {', '.join(RANGES)} have one of their own"
        )
    return Knob(_plain(given), *RANGES[name])


def _plain(value: Any) -> Any:
    """A tensor, array or tuple as a list, a tensor's single number as a number."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return list(value) if isinstance(value, tuple) else value


def _own(value: Value) -> Value:
    return list(value) if isinstance(value, list) else value


def _within(name: str, knob: Knob, value: Any) -> Value:
    """The value as plain numbers, checked against the knob's range."""
    value = _plain(value)
    numbers = value if isinstance(value, list) else [value]
    if slips := [v for v in numbers if isinstance(v, bool) or not isinstance(v, Real)]:
        raise TypeError(f"the knob {name!r} takes a number, got {slips[0]!r}")
    if isinstance(knob.value, list) != isinstance(value, list):
        raise TypeError(f"the knob {name!r} started as {knob.value!r} and cannot become {value!r}")
    if isinstance(knob.value, list) and len(numbers) != len(knob.value):
        raise ValueError(f"the knob {name!r} has {len(knob.value)} values, one a class, got {len(numbers)}")
    for number in numbers:
        if not (math.isfinite(number) and knob.low <= number <= knob.high):
            raise ValueError(
                f"the knob {name!r} goes from {knob.low:g} to {knob.high:g}, got {number:g}; "
                f"{name}=Knob(value, low, high) sets another range"
            )
    return [float(v) for v in numbers] if isinstance(value, list) else float(value)


class Run:
    """A training whose knobs may be turned: an iterator of steps, as `train.Training`, that can be forked and replayed.

    build: makes the untrained student, the same at every call. objective: maps the knobs to an objective, such as
    lambda knobs: train.distilling(T=knobs.T); called again when a knob was turned. A knob called lr is the
    learning rate, without any schedule. script: turns that it makes by itself, such as [{"step": 100, "T": 20.0}].
    settings: epochs, batch_size, seed, optimizer, as for `train.Training`.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        data: train.Data,
        objective: Callable[[Knobs], Objective],
        knobs: Knobs,
        *,
        script: Sequence[dict[str, Any]] = (),
        epochs: int = 100_000,
        **settings,
    ):
        if "lr" not in knobs.knobs:
            raise ValueError("a run needs the knob lr, its learning rate, such as Knobs(lr=1e-3, T=4.0)")
        self.recipe: dict[str, Any] = {
            "build": build,
            "data": data,
            "objective": objective,
            "epochs": epochs,
            **settings,
        }
        self.knobs = knobs
        self.script = sorted(copy.deepcopy([*script]), key=lambda turn: turn["step"])
        self.student = build()
        self._made, self._made_for = None, None  # the objective, and the knobs' values that it was made for
        self.training = train.Training(
            self.student, data, self._objective, epochs=epochs, lr=1.0, schedule=self._rate, **settings
        )
        self.until = len(self.training)  # a log that is followed ends sooner,
        self.promised = ""  # and says with which weights

    def _objective(self, model: nn.Module, *batch: Tensor) -> dict[str, Tensor]:
        if self._made_for != (values := self.knobs.used()):
            self._made, self._made_for = self.recipe["objective"](self.knobs), values
        return self._made(model, *batch)

    def _rate(self, progress: float) -> float:
        return self.knobs.lr

    @property
    def number(self) -> int:
        """Of the step to come."""
        return self.training.number

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        while self.script and self.script[0]["step"] <= self.number:
            self.knobs.turn(**{name: value for name, value in self.script.pop(0).items() if name != "step"})
        if self.number < len(self.training):
            self.knobs.take(self.number)
        return next(self.training)

    def steps(self, n: int) -> Iterator[Step]:
        """The next n steps, or as many as are left."""
        return itertools.islice(self, n)

    def restart(self) -> "Run":
        """The same run from its beginning, with the knobs where they stood at its beginning."""
        return self._like(self.knobs.start)

    def fork(self, **turned: Value) -> "Run":
        """Another run that goes on from here, its knobs turned; both go on by themselves. The log has all its turns."""
        other = self._like(self.knobs.start)
        other.knobs.copy_from(self.knobs)
        other.training.resume(self.training.state())
        other.script = copy.deepcopy(self.script)
        other.knobs.turn(**turned)
        return other

    def _like(self, start: dict[str, Value]) -> "Run":
        knobs = Knobs(**{name: knob._replace(value=start[name]) for name, knob in self.knobs.knobs.items()})
        return Run(knobs=knobs, **self.recipe)

    def log(self) -> dict[str, Any]:
        """All that `replay` needs beside the recipe, as plain JSON: where the knobs started, each turn, the step count.

        "weights" tells whether a replay came out the same, bit by bit; on another machine it may not.
        """
        turns = [turn for turn in copy.deepcopy(self.knobs.turns) if turn["step"] < self.number]
        return {
            "format": FORMAT,
            "settings": self.settings(),
            "start": dict(self.knobs.start),
            "turns": turns,
            "steps": self.number,
            "weights": fingerprint(self.student),
            "machine": machine.describe(),
        }

    def settings(self) -> dict[str, Any]:
        """What a log and the run that replays it must share: the data's digest, seed, sizes, optimizer."""
        return {key: value for key, value in self.training.settings().items() if key not in ("schedule", "lr")}


def follow(log: dict[str, Any], run: Run) -> Run:
    """A fresh run of the same recipe as `run`, not begun, that will turn its knobs as the log says, step by step.

    Raises ValueError where the recipe is not the one of the log: other data, batch size, seed, optimizer or knobs.
    """
    said, start, turns, steps = _parts(log)
    if set(start) != set(run.knobs.start):
        raise ValueError(f"the log has the knobs {', '.join(start)}, and this run {', '.join(run.knobs.start)}")
    try:
        again = run._like(start)
        for turn in turns:
            again.knobs.checked({name: value for name, value in turn.items() if name != "step"})
    except TypeError as error:
        raise ValueError(f"the log cannot be followed: {error}") from None
    here = again.settings()
    if parted := [key for key in {**here, **said} if here.get(key) != said.get(key)]:
        told = "; ".join(f"{key}: {said.get(key)} in the log, {here.get(key)} here" for key in parted)
        raise ValueError(f"this run is not the one that was logged ({told}); build it with the same recipe")
    again.script = sorted(copy.deepcopy(turns), key=lambda turn: turn["step"])
    again.until, again.promised = min(steps, again.until), log.get("weights", "")
    return again


def _parts(log: dict[str, Any]) -> tuple[dict, dict, list[dict], int]:
    """The log's settings, start, turns and steps, if it is one."""
    try:
        kind, said, start, turns, steps = (log[key] for key in ("format", "settings", "start", "turns", "steps"))
        if kind != FORMAT:
            raise ValueError(f"the log has format {kind!r}, and this version of kdlab reads {FORMAT}")
        sound = isinstance(said, dict) and isinstance(start, dict) and isinstance(steps, int)
        sound = sound and all(isinstance(turn["step"], int) for turn in turns)
    except (TypeError, KeyError):
        sound = False
    if not sound:
        raise ValueError(
            "this is no log of a run: format, settings, start, turns (each with its step) or steps is "
            "missing or of another kind; Run.log() makes one, and json.loads reads it from a file"
        )
    return said, start, turns, steps


def replay(log: dict[str, Any], run: Run) -> Run:
    """`follow` the log to its last step: on the same machine and versions the weights come out the same, bit by bit."""
    again = follow(log, run)
    for _ in again.steps(again.until):
        pass
    return again


def learning_curve(run: Run, measure: Callable[[nn.Module], float], steps: int, every: int) -> list[tuple[int, float]]:
    """Take `steps` steps; returns (steps taken, measure(student)) before the first and after each `every` of them."""
    points = [(run.number, measure(run.student))]
    for step in run.steps(steps):
        if (step.number + 1) % every == 0:
            points.append((run.number, measure(run.student)))
    return points


def fingerprint(model: nn.Module) -> str:
    """A digest of every weight's bits: equal for two models if they are equal bit by bit."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
