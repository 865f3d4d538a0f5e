"""How the learning rate and the temperature of notebook 00 were chosen: on held-out training images, not the test set.

python scripts/choose_settings.py      # about 3 minutes; writes results/start_here_settings.json
"""

import json
from pathlib import Path

from kdlab import data, machine, metrics, models, teachers, train

RATES, TEMPERATURES, SEEDS = (3e-3, 6e-3, 1e-2, 2e-2), (4.0, 8.0, 20.0), (0, 1, 2)


def main() -> None:
    mnist, teacher = data.load("mnist"), teachers.mnist()
    x, y = mnist.x_train[:50_000], mnist.y_train[:50_000]
    held_out = mnist.x_train[50_000:], mnist.y_train[50_000:]
    rows = []
    for lr in RATES:
        for T in (None, *TEMPERATURES):
            errors = [student_errors(teacher, x, y, held_out, lr, T, seed) for seed in SEEDS]
            rows.append({"lr": lr, "T": T, "held_out_errors": errors, "mean": round(sum(errors) / len(errors), 1)})
            print(rows[-1], flush=True)
    record = {
        "what": "errors on 10,000 held-out training images; T null is the student alone; 2 x 200 units, 5,000 "
        "images, 15 epochs, alpha 0.9",
        "seeds": SEEDS,
        "rows": rows,
        "machine": machine.describe(),
    }
    Path("results/start_here_settings.json").write_text(json.dumps(record, indent=1) + "\n")


def student_errors(teacher, x, y, held_out, lr: float, T: float | None, seed: int) -> int:
    x, y = data.subset(x, y, 5_000, seed=seed)
    student = models.mlp((200, 200), seed=seed).to(x.device)
    objective = train.labels() if T is None else train.distilling(T=T, alpha=0.9)
    train.fit(student, (x, y, metrics.logits(teacher, x)), objective, epochs=15, lr=lr, batch_size=64, seed=seed)
    return metrics.errors(metrics.logits(student, held_out[0]), held_out[1])


if __name__ == "__main__":
    main()
