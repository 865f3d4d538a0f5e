"""Teachers that come with kdlab, so that a lesson need not begin with half an hour of training; and their recipe."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from kdlab import data, machine, metrics, models, store, train

from . import answers, bert

__all__ = ["RECIPE", "answers", "bert", "learn", "mnist", "record", "trained", "untrained"]

# As in section 3 of Hinton et al. 2015: dropout, a weight constraint, images moved by up to two pixels, all 60,000
# training images. What the paper leaves unsaid is chosen here, and was not tuned on the test set.
RECIPE = {
    "hidden": [1200, 1200],
    "dropout": [0.1, 0.4],  # share of pixels and of hidden units left out
    "max_norm": 3.0,  # longest incoming weight vector of a hidden unit
    "pixels": 2,  # jitter
    "epochs": 200,
    "lr": 1.5e-3,
    "batch_size": 512,
}


PACKAGED = {"mnist": "mnist-2x1200", "glosses": "glosses-minilm"}  # name -> file


def record(name: str) -> dict:
    """Return how a packaged teacher was made: {"settings": …, "measures": {"test_errors": …}, "machine": …}.

    name: "mnist" or "glosses".
    """
    if name not in PACKAGED:
        raise ValueError(f"there is no packaged teacher {name!r}; there are {', '.join(PACKAGED)}")
    return store.packaged(PACKAGED[name])[1]


def mnist(device: str | torch.device | None = None) -> nn.Module:
    """Return the teacher of section 3: 2 × 1200 rectified units, trained on all 60,000 digits.

    It is frozen, in eval mode and on `device` (default: `machine.device()`). record("mnist") says how it was made;
    scripts/train_teacher.py makes it anew.
    """
    state, made = store.packaged(PACKAGED["mnist"])
    teacher = models.mlp(made["settings"]["hidden"], dropout=made["settings"]["dropout"])
    teacher.load_state_dict(state)
    return teacher.to(machine.device(device)).requires_grad_(False).eval()


def trained(dataset: data.Dataset, seed: int, **changed) -> nn.Module:
    """A teacher like the packaged one, from another start: kept in the store, half an hour of training where it is not.

    changed: settings other than RECIPE's, such as epochs=5. An interrupted training goes on where it stopped.
    """
    settings = RECIPE | changed | {"seed": seed, "images": data.digest(dataset)}
    checkpoint = store.checkpoint("teacher", settings)
    return store.model(
        "teacher",
        settings,
        lambda: untrained(settings).to(dataset.x_train.device),
        lambda net: learn(net, dataset, settings, checkpoint),
    )[0]


def untrained(settings: dict) -> nn.Module:
    """The net of a recipe, before it has learned."""
    return models.mlp(
        settings["hidden"], dropout=settings["dropout"], max_norm=settings["max_norm"], seed=settings["seed"]
    )


def learn(teacher: nn.Module, dataset: data.Dataset, settings: dict, checkpoint: Path | None = None) -> dict:
    """Train `teacher` by a recipe, in place; returns its measures."""

    def objective(model, x, y):
        return {"ce": F.cross_entropy(model(data.jitter(x, settings["pixels"])), y)}

    with machine.autocast():
        train.fit(
            teacher,
            (dataset.x_train, dataset.y_train),
            objective,
            epochs=settings["epochs"],
            lr=settings["lr"],
            batch_size=settings["batch_size"],
            seed=settings["seed"],
            schedule=train.one_cycle,
            checkpoint=checkpoint,
            progress="teacher",
        )
    teacher.half().float()  # what is measured is what is shipped
    return {
        "test_errors": metrics.errors(metrics.logits(teacher, dataset.x_test), dataset.y_test),
        "train_errors": metrics.errors(metrics.logits(teacher, dataset.x_train), dataset.y_train),
        "parameters": metrics.parameters(teacher),
    }
