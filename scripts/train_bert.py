"""Fine-tune the BERT of notebooks 09 to 16 on the glosses: updates of rank 16, half precision, under 2 MB.

    python scripts/train_bert.py                   # writes kdlab/teachers/glosses-minilm.safetensors
    python scripts/train_bert.py --n-train 10000   # a quick look, written to build/ instead

Its recipe is `kdlab.teachers.bert.RECIPE`. Interrupted, it continues where it stopped.
"""

import time
from pathlib import Path

import torch
import typer

from kdlab import machine, store, text
from kdlab.teachers import bert


def main(epochs: int = bert.RECIPE["epochs"], n_train: int | None = None, seed: int = 0) -> None:
    settings = bert.RECIPE | {"epochs": epochs, "seed": seed, "n_train": n_train}
    folder = Path("kdlab/teachers") if settings == bert.RECIPE | {"seed": 0, "n_train": None} else Path("build")
    task = text.read("glosses", n_train)
    net = bert.untrained(settings, len(task.classes))
    start = time.perf_counter()
    measures = bert.learn(net, task, settings, Path("build") / "bert.checkpoint")
    measures["seconds"] = round(time.perf_counter() - start)  # of this sitting
    updates = {name: weight for name, weight in net.named_parameters() if weight.requires_grad}
    record = {"settings": settings, "measures": measures, "machine": machine.describe()}
    folder.mkdir(parents=True, exist_ok=True)
    print(store.save(folder / "glosses-minilm.safetensors", updates, record, dtype=torch.float16))


if __name__ == "__main__":
    typer.run(main)
