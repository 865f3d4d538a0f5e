"""Each notebook at smoke size and from another seed: run once in a run of the tests, for every test that asks."""

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

import papermill
import pytest
from conftest import OTHER_SEED, cut_off
from filelock import FileLock

from kdlab import course

SECONDS_A_CELL = 1_800  # only what hangs takes so long, also on a slow machine with other work


class Ran(NamedTuple):
    """A notebook that was run."""

    notebook: Path  # with its outputs
    problem: str  # what went wrong, or ""
    seconds: float


def ran(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Run the notebook with the network off, or take it from the test that did so, in this process or a worker's."""
    here = tmp_path_factory.getbasetemp()
    folder = (here.parent if "PYTEST_XDIST_WORKER" in os.environ else here) / "smoke"
    folder.mkdir(exist_ok=True)
    notebook, record = folder / path.name, folder / f"{path.stem}.json"
    with FileLock(folder / f"{path.stem}.lock"):
        if not record.exists():
            start = time.perf_counter()
            with pytest.MonkeyPatch.context() as patch:
                cut_off(patch)
                patch.setenv("KDLAB_WORKERS", "1")  # two tests run side by side; a process costs more than it brings
                problem = course.execute(path, notebook, parameters(path), SECONDS_A_CELL)
            record.write_text(json.dumps([problem, time.perf_counter() - start]))
    return Ran(notebook, *json.loads(record.read_text()))


def parameters(path: Path) -> dict:
    """The notebook's values at smoke size, with another seed where it has one."""
    seed = {"seed": OTHER_SEED} if "seed" in papermill.inspect_notebook(str(path)) else {}
    return course.profile(path, "smoke") | seed
