"""What the training loop checks: its input before the first step, the objective's terms, and who learns."""

import math
import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


def seeds(seed: int | Sequence[int]) -> int | list[int]:
    """The seed or seeds as Python's own whole numbers, whether numpy's, torch's or Python's came."""
    seed = seed.tolist() if hasattr(seed, "tolist") else seed
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        return [seeds(one) for one in seed]
    if not isinstance(seed, Integral):
        raise TypeError(f"a seed is a whole number, got {seed!r}; use int()")
    return int(seed)


def plain(value: Any) -> Any:
    """A number of numpy's as Python's, alone or in a tuple; all else as it is."""
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    return value.item() if isinstance(value, np.generic) else value


def total(terms: dict[str, Tensor]) -> Tensor:
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
    loss = sum(terms.values())
    if not loss.requires_grad:
        raise ValueError(f"the terms {list(terms)} do not depend on the weights; was the student asked under no_grad?")
    return loss


def means(epoch: int, rows: list[dict[str, Tensor]]) -> dict[str, float]:
    if parted := next((row for row in rows if row.keys() != rows[0].keys()), None):
        raise ValueError(
            f"an objective returns the same terms at every step, got {list(rows[0])} and {list(parted)}; "
            "give a term that does not count just now the value 0 * another"
        )
    row = {name: float(torch.stack([row[name] for row in rows]).mean()) for name in rows[0]}
    if not all(map(math.isfinite, row.values())):
        raise FloatingPointError(
            f"the loss is no longer a number in epoch {epoch}: {row}; the usual cause is a "
            "learning rate that is too high: try a tenth of it"
        )
    return {"epoch": epoch, **row}


def inputs(model: nn.Module, data: Any, epochs: int | None, steps: int | None, lr: float, batch_size: int) -> None:
    """Raise what is wrong with a training's input, before anything changes."""
    numbers = {"epochs": epochs, "steps": steps, "batch_size": batch_size}
    if (epochs is None) == (steps is None):
        raise ValueError(f"give either epochs or steps, got epochs={epochs} and steps={steps}")
    if slips := [f"{name}={value!r}" for name, value in numbers.items() if not isinstance(value, Integral | None)]:
        raise TypeError(f"epochs, steps and batch_size are whole numbers, got {', '.join(slips)}; use // or int()")
    if (epochs or 0) < 0 or (steps or 0) < 0 or batch_size < 1 or not 0 <= lr < math.inf:
        raise ValueError(
            "epochs and steps must be at least 0, batch_size at least 1 and lr a number of at least 0, got "
            f"epochs={epochs}, steps={steps}, batch_size={batch_size}, lr={lr}"
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("no parameter of the model may change; is this the frozen teacher?")
    if not isinstance(data, Dataset | DataLoader):
        _tensors(model, data)
        _last_batch(model, len(data[0]), batch_size)


def _tensors(model: nn.Module, data: Any) -> None:
    if not isinstance(data, tuple | list) or not data or not all(isinstance(part, Tensor) for part in data):
        came = [type(part).__name__ for part in data] if isinstance(data, tuple | list) else type(data).__name__
        raise TypeError(
            f"data must be a tuple of tensors, such as (x, y), a torch Dataset or a DataLoader, got {came}; "
            "torch.from_numpy() makes a tensor of an array, and a set of kdlab's is given as data.train"
        )
    lengths = [len(tensor) for tensor in data]
    if min(lengths) != max(lengths) or lengths[0] == 0:
        raise ValueError(f"data must be tensors of one and the same length, at least 1, got lengths {lengths}")
    places = {str(p.device) for p in model.parameters()} | {str(tensor.device) for tensor in data}
    if len(places) > 1:
        raise ValueError(f"model and data must be on one device, got {sorted(places)}; use model.to(x.device)")
    x, wanted = data[0], next(p for p in model.parameters() if p.requires_grad).dtype
    if x.dtype == torch.uint8 or (x.is_floating_point() and x.dtype != wanted):
        raise ValueError(
            f"the inputs are {x.dtype} and the model's weights {wanted}; use x.to({wanted})"
            f"{' / 255 for images in bytes' if x.dtype == torch.uint8 else ''}"
        )


def _last_batch(model: nn.Module, n: int, batch_size: int) -> None:
    """A batch norm over units cannot train on one case, which torch says only when it comes to it."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d) and (m.training or not model.training)]
    if n % batch_size == 1 and norms:
        raise ValueError(
            f"{n} cases in batches of {batch_size} leave one case for the last batch, on which the model's BatchNorm1d "
            f"cannot train; use batch_size={batch_size + 1}, or leave one case out"
        )


def who_learns(loss: Tensor, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Compare the weights that the loss depends on with those that the optimizer changes.

    Raises ValueError where they have none in common, such as when the objective calls another model. Warns where the
    loss depends on weights that want a gradient but are not the optimizer's: they will not learn.
    """
    learning = {id(p) for group in optimizer.param_groups for p in group["params"]}
    reached = {id(leaf): leaf for leaf in _leaves(loss)}
    if not learning & reached.keys():
        raise ValueError(
            "the loss does not depend on any weight of the model that is trained, so it would learn nothing; the usual "
            "cause is an objective that calls another model: call the one that it is given, objective(model, x, y)"
        )
    if left := {key: leaf for key, leaf in reached.items() if key not in learning}:
        names = {id(p): name for name, p in model.named_parameters()}
        told = ", ".join(names.get(key, f"a tensor of shape {tuple(leaf.shape)}") for key, leaf in [*left.items()][:3])
        warnings.warn(
            f"the loss depends on {len(left)} tensors that require a gradient and that the optimizer does not have, so "
            f"they do not learn: {told}. Unfreeze layers before the training begins; give others to the optimizer "
            "(optimizer=lambda weights, lr: train.adam([*weights, T], lr)); ask a teacher by train.frozen(teacher)",
            stacklevel=4,
        )


def _leaves(loss: Tensor) -> list[Tensor]:
    """The tensors that require a gradient at the ends of the loss's graph."""
    found, seen, waiting = [], set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        waiting += [below for below, _ in node.next_functions]
    return found
