"""The page on other people's training loops is run; its trained weights are those of kdlab's own loop."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from kdlab import models, train

PAGE = (Path(__file__).parent.parent / "docs" / "other_loops.md").read_text(encoding="utf-8")
SETUP, ACCELERATE, TRAINER = re.findall(r"```python\n(.*?)```", PAGE, re.S)


def sgd(parameters, lr):
    return torch.optim.SGD(parameters, lr=lr)


def apart(model, other):
    """The largest difference of two models' weights."""
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def test_a_loop_of_accelerate_trains_what_fit_trains():
    made = {}
    exec(SETUP + ACCELERATE, made)
    ours, untrained = models.mlp((30, 30)), models.mlp((30, 30))
    loader = DataLoader(TensorDataset(made["x"], made["y"]), batch_size=64)
    train.fit(ours, loader, made["objective"], epochs=1, lr=0.1, schedule=train.constant, optimizer=sgd)
    assert apart(ours, made["student"]) < 1e-5 < 1e-2 < apart(untrained, made["student"])


def trained_by_the_trainer(page, folder, monkeypatch):
    """What the page's block leaves behind, and its student as it was before the training."""
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    made = {"train": train, "torch": torch}
    before, after = page.split("trainer = DistillingTrainer(")
    exec(before, made)
    start = copy.deepcopy(made["student"])
    exec(f"trainer = DistillingTrainer({after}", made)
    return made, start


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_trainer_of_transformers_trains_what_fit_trains(accumulated, tmp_path, monkeypatch):
    sizes = f"train_batch_size={8 // accumulated}, gradient_accumulation_steps={accumulated}"
    made, ours = trained_by_the_trainer(TRAINER.replace("train_batch_size=8", sizes), tmp_path, monkeypatch)
    start, loader = copy.deepcopy(ours), DataLoader(made["texts"], batch_size=8)
    train.fit(ours, loader, made["objective"], epochs=2, lr=0.05, schedule=train.constant, optimizer=sgd)
    assert apart(ours, made["student"]) < 1e-5 < 1e-3 < apart(start, made["student"])
    assert {"eval_loss"} <= made["trainer"].evaluate(made["texts"]).keys()


def test_the_line_on_accumulated_gradients_matters(tmp_path, monkeypatch):
    page = TRAINER.replace("train_batch_size=8", "train_batch_size=4, gradient_accumulation_steps=2")
    right, _ = trained_by_the_trainer(page, tmp_path, monkeypatch)
    without = page.replace("trainer.model_accepts_loss_kwargs = False", "pass")
    wrong, _ = trained_by_the_trainer(without, tmp_path, monkeypatch)
    assert apart(right["student"], wrong["student"]) > 1e-3
