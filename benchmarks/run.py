"""The speeds that the README quotes, measured side by side on this machine: `make bench`.

    python benchmarks/run.py                    # prints, and writes build/bench.json
    python benchmarks/run.py --only training    # one section of it, or several: --only training --only sliders
    python benchmarks/run.py --keep             # writes results/bench.json, from which the README is made

With --keep and --only the other sections stay as they were; each section's machine stands under "machines".
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import batched
import equation5
import in_page
import loops
import sliders
import typer

from kdlab import machine

ROOT = Path(__file__).parent.parent


def imports(rounds: int) -> dict[str, float]:
    """Return the seconds of importing torch, and what a notebook takes of kdlab, each in a fresh Python, in turn."""
    commands = {"torch": "import torch", "kdlab": "from kdlab import data, losses, metrics, models, teachers, train"}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, measured in seconds.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", commands[name]], check=True)
            measured.append(time.perf_counter() - start)
    row = {name: round(statistics.median(measured), 2) for name, measured in seconds.items()}
    print(f"import torch {row['torch']} s, what a notebook takes of kdlab {row['kdlab']} s")
    return row


SECTIONS = {
    "training": loops.training,
    "many": batched.students,
    "speech": batched.acoustic_models,
    "eq5": equation5.joined,
    "import": imports,
    "sliders": sliders.sliders,
    "in_page": in_page.in_page,
}


def main(keep: bool = False, rounds: int = 3, only: list[str] | None = None) -> None:
    """rounds: each speed is measured this often, in turn with what it is compared with; the median counts."""
    out = ROOT / ("results" if keep else "build") / "bench.json"
    earlier = json.loads(out.read_text(encoding="utf-8")) if keep and only and out.exists() else {}
    if earlier and earlier["rounds"] != rounds:
        raise ValueError(
            f"the other sections of {out} are medians of {earlier['rounds']} rounds, and this run was "
            f"asked for {rounds}: use --rounds {earlier['rounds']}, or measure all sections"
        )
    result = merge(earlier, measure(only or list(SECTIONS), rounds))
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {out}")


def measure(names: list[str], rounds: int, **sizes: dict) -> dict:
    """Measure the sections called `names`. sizes: by section, what its function takes beside the rounds."""
    if unknown := set(names) - set(SECTIONS):
        raise ValueError(f"there is no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    sections, machines = {}, {}
    for name in names:
        sections[name] = SECTIONS[name](rounds, **sizes.get(name, {}))
        machines[name] = machine.describe()
    return {"rounds": rounds, **sections, "machines": machines}


def merge(earlier: dict, later: dict) -> dict:
    """Return both records as one: the later one's sections and machines replace the earlier one's."""
    return earlier | later | {"machines": earlier.get("machines", {}) | later["machines"]}


if __name__ == "__main__":
    typer.run(main)
