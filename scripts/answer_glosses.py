"""Ask the packaged BERT for its logits on every WordNet definition, and keep them in half precision, 12 MB.

    python scripts/answer_glosses.py    # writes kdlab/teachers/glosses-answers.safetensors

Computed in float32, on whatever machine: a half-precision product would add an error of its own.
"""

import time
from pathlib import Path

import torch

from kdlab import machine, metrics, store, teachers, text
from kdlab.teachers import answers, bert


def main() -> None:
    task = text.read("glosses")
    width = max(part.shape[1] for part in (task.x_train, task.x_dev, task.x_test))
    x = torch.cat(
        [torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in (task.x_train, task.x_dev, task.x_test)]
    ).unique(dim=0)
    numbers, order = answers.hashes(x).sort()
    if (numbers[1:] == numbers[:-1]).any():
        raise ValueError("two different texts have one hash; choose another multiplier")
    teacher = bert.glosses()
    record = teachers.record("glosses")
    start = time.perf_counter()
    with machine.threads():
        logits = metrics.logits(teacher, x[order], 512)
    kept = {"teacher": record["settings"], "seconds": round(time.perf_counter() - start), "machine": machine.describe()}
    state = {"hashes": numbers.cpu(), "logits": logits.half().cpu()}
    store.save(Path("kdlab/teachers") / f"{answers.PACKAGED}.safetensors", state, kept)
    print(f"{len(x):,} texts, {kept['seconds']} s")


if __name__ == "__main__":
    main()
