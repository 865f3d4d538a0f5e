"""Train the MNIST teacher that kdlab ships: 2 × 1200 rectified units, half precision, about 5 MB.

    python scripts/train_teacher.py              # writes kdlab/teachers/mnist-2x1200.safetensors
    python scripts/train_teacher.py --epochs 2   # a quick look, written to build/ instead

Its recipe is `kdlab.teachers.RECIPE`. Interrupted, it continues where it stopped.
"""

import time
from pathlib import Path

import torch
import typer

from kdlab import data, machine, store, teachers


def main(epochs: int = teachers.RECIPE["epochs"], seed: int = 0) -> None:
    settings = teachers.RECIPE | {"epochs": epochs, "seed": seed}
    folder = Path("kdlab/teachers") if epochs == teachers.RECIPE["epochs"] and seed == 0 else Path("build")
    teacher = teachers.untrained(settings).to(machine.device())
    start = time.perf_counter()
    measures = teachers.learn(teacher, data.load("mnist"), settings, Path("build") / "teacher.checkpoint")
    measures["seconds"] = round(time.perf_counter() - start)  # of this sitting
    record = {"settings": settings, "measures": measures, "machine": machine.describe()}
    folder.mkdir(parents=True, exist_ok=True)
    print(store.save(folder / "mnist-2x1200.safetensors", teacher.state_dict(), record, dtype=torch.float16))


if __name__ == "__main__":
    typer.run(main)
