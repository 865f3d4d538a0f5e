"""The one training loop: an iterator of steps. A method is its objective.

    for step in Training(student, (x, y), objective, epochs=5, lr=1e-3):   # watch it, stop it, go on later
        print(step.number, step.terms["kd"])

    fit(student, (x, y), objective, epochs=5, lr=1e-3)                     # or just run it to the end
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdlab import losses, machine, models

Objective = Callable[..., dict[str, Tensor]]  # a batch → named, already weighted scalars, such as {"ce": …, "kd": …}
Data = tuple[Tensor, ...]  # what goes together case by case: (x, y), or (x, y, teacher's logits)


class Step(NamedTuple):
    """One step that was taken: its number from 0, its epoch, and the objective's terms, still on the device."""

    number: int
    epoch: int
    terms: dict[str, Tensor]


def batches(data: Data, size: int, seed: int, epoch: int) -> list[Tensor]:
    """The case numbers of each shuffled minibatch of an epoch, on the data's device; the last one may be short.

    They depend on the seed and the epoch alone, so that a training can be taken up in the middle.
    """
    rng = torch.Generator().manual_seed(_mix(seed, epoch))
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
    optimizer: maps (parameters, lr) to a torch optimizer.

    A step whose objective raised is taken again by the next call of next(); where batch norm had already moved its
    averages, or Ctrl-C fell into the update itself, only `state()` and `resume()` give the same weights.
    Not for two trainings in two threads of one process: they share torch's random state.
    The same seed on the same CPU gives the same weights, bit by bit. `state()` in the middle, `resume(state)` on a
    fresh Training of the same settings, and the rest of the steps give the same weights as well.
    """

    def __init__(self, model: nn.Module, data: Data, objective: Objective, *, epochs: int, lr: float,
                 batch_size: int = 128, seed: int = 0, schedule: Callable[[float], float] = cosine,
                 optimizer: Callable[[list[nn.Parameter], float], torch.optim.Optimizer] = adam):
        _check(model, data, epochs, lr, batch_size)
        self.model, self.data, self.objective = model, data, objective
        self.epochs, self.lr, self.batch_size, self.seed, self.schedule = epochs, lr, batch_size, seed, schedule
        self.optimizer = optimizer([p for p in model.parameters() if p.requires_grad], lr)
        self.steps_an_epoch = math.ceil(len(data[0]) / batch_size)
        self.number = 0  # of the step to come
        self._constrained = models.constrained(model)
        self._epoch, self._batches = -1, []  # the epoch that the batches at hand belong to

    def __len__(self) -> int:
        return self.epochs * self.steps_an_epoch

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        if self.number >= len(self):
            self.model.eval()
            raise StopIteration
        epoch, position = divmod(self.number, self.steps_an_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, batches(self.data, self.batch_size, self.seed, epoch)
        batch = tuple(tensor[self._batches[position]] for tensor in self.data)
        with machine.threads(), _random_state(_mix(self.seed, epoch, position), self.data[0].device):
            terms = self._learn(batch)
        self.number += 1
        return Step(self.number - 1, epoch, terms)

    def _learn(self, batch: Data) -> dict[str, Tensor]:
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * self.schedule(self.number / len(self))
        terms = self.objective(*batch)
        loss = _total(terms)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for layer in self._constrained:
            layer.constrain()
        return {name: term.detach() for name, term in terms.items()}

    def state(self) -> dict:
        """All that `resume` needs: weights, the optimizer's memory and the number of the step to come, copied."""
        copies = {name: value.clone() for name, value in self.model.state_dict().items()}
        memory = copy.deepcopy(self.optimizer.state_dict())
        return {"model": copies, "optimizer": memory, "number": self.number, "settings": self._settings()}

    def resume(self, state: dict) -> "Training":
        """Go on from `state`. Raises ValueError where this training has other settings than the one that was left."""
        if state["settings"] != self._settings():
            raise ValueError(f"this training has the settings {self._settings()} and the one to resume had "
                             f"{state['settings']}; resume with the same ones")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.number = state["number"]
        return self

    def _settings(self) -> dict[str, float]:
        return {"cases": len(self.data[0]), "epochs": self.epochs, "lr": self.lr, "batch_size": self.batch_size,
                "seed": self.seed}


def fit(model: nn.Module, data: Data, objective: Objective, *, progress: str = "",
        **settings) -> list[dict[str, float]]:
    """Run a `Training` to its end; return one row of mean terms per epoch, {"epoch": 0, "ce": …, "kd": …}.

    progress: a name to show beside a progress bar; no name, no bar. settings: as for `Training`.
    Raises FloatingPointError when the loss is no longer a number.
    """
    from tqdm.auto import tqdm  # here, because in a notebook it imports widgets

    training = Training(model, data, objective, **settings)
    history: list[dict[str, float]] = []
    rows: list[dict[str, Tensor]] = []
    for step in tqdm(training, desc=progress, disable=not progress, unit="step", leave=False):
        rows.append(step.terms)
        if len(rows) == training.steps_an_epoch:
            history.append(_means(step.epoch, rows))
            rows = []
    return history


def _total(terms: dict[str, Tensor]) -> Tensor:
    if not isinstance(terms, dict) or not terms:
        raise TypeError(f'an objective returns its terms by name, such as {{"ce": loss}}, got {type(terms).__name__}; '
                        "each term is a scalar tensor, already weighted")
    return sum(terms.values())


def _means(epoch: int, rows: list[dict[str, Tensor]]) -> dict[str, float]:
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
    ask = None if teacher is None else frozen(teacher)

    def objective(x: Tensor, y: Tensor, t: Tensor | None = None) -> dict[str, Tensor]:
        if (t is None) == (ask is None):
            raise ValueError("give either the teacher, with data (x, y), or its logits, with data (x, y, t)")
        return losses.two_terms(student(x), ask(x) if t is None else t, y, T, alpha)

    return objective


def frozen(teacher: nn.Module) -> Callable[[Tensor], Tensor]:
    """The teacher as a plain function of x: always in eval mode, never with gradients.

    It stays frozen: teacher.requires_grad_(True) lets it learn again.
    A teacher left in train mode drops units at random and moves its batch norms' averages: it forgets as it teaches.
    """
    teacher.requires_grad_(False)

    def ask(x: Tensor) -> Tensor:
        teacher.eval()
        with torch.no_grad():
            return teacher(x)

    return ask


def _check(model: nn.Module, data: Data, epochs: int, lr: float, batch_size: int) -> None:
    lengths = [len(tensor) for tensor in data]
    if not data or min(lengths) != max(lengths) or lengths[0] == 0:
        raise ValueError(f"data must be tensors of one and the same length, at least 1, got lengths {lengths}")
    if epochs < 0 or batch_size < 1 or not 0 <= lr < math.inf:
        raise ValueError("epochs must be at least 0, batch_size at least 1 and lr a number of at least 0, got "
                         f"epochs={epochs}, batch_size={batch_size}, lr={lr}")
    places = {str(p.device) for p in model.parameters()} | {str(tensor.device) for tensor in data}
    if len(places) > 1:
        raise ValueError(f"model and data must be on one device, got {sorted(places)}; use model.to(x.device)")
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("no parameter of the model may change; is this the frozen teacher?")


def _mix(*numbers: int) -> int:
    """One random seed from several whole numbers."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number) % 2**63
    return mixed


@contextlib.contextmanager
def _random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's random state set from `seed` inside the block, and put back after it.

    On the generators themselves: torch.manual_seed() also queues a call for every kind of device, 0.1 ms a step.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    before = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)
