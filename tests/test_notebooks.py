"""Every notebook runs from top to bottom, from an empty cache, with the network off; and is fit to be committed."""

import json
import re
import time

import nbformat
import papermill
import pytest
import yaml
from conftest import BROWSER, NOTEBOOKS, OTHER_SEED, ROOT, with_sliders

from kdlab import course

SECONDS_A_CELL = 600
PROFILES = yaml.safe_load((ROOT / "notebooks" / "profiles.yaml").read_text())
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.mark.notebook
@each_notebook
def test_notebook_runs_from_top_to_bottom(path, tmp_path, offline, record_property):
    start = time.perf_counter()
    problem = course.execute(path, tmp_path / path.name, {}, SECONDS_A_CELL)
    record_property("notebook", path.stem)
    record_property("seconds", time.perf_counter() - start)
    assert not problem


@pytest.mark.notebook
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if not (BROWSER and with_sliders(path))],
                         ids=lambda path: path.stem)  # fmt: skip
def test_notebook_also_holds_when_it_is_small_and_the_seed_is_another(path, tmp_path, offline):
    """Those with sliders run so in the browser (test_browser.py), and here where there is none."""
    small = course.profile(path, "smoke") | {"seed": OTHER_SEED}
    assert not course.execute(path, tmp_path / path.name, small, SECONDS_A_CELL)


def notebook(*sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=spec)


@pytest.mark.parametrize("source, problem", [
    ("1 / 0", "ZeroDivisionError"),
    ("import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)", "network is off"),
    ("import urllib.request; urllib.request.urlopen('http://example.org')", "network is off"),
    ("import ipywidgets as w; w.interact(lambda x: 1 / 0, x=(0, 3));", "ZeroDivisionError"),
    ("import time; time.sleep(60)", "timed out|Timeout"),
    ("import os; os._exit(3)", "died|Dead"),
])  # fmt: skip
def test_what_is_wrong_with_a_notebook_is_seen(source, problem, tmp_path, offline):
    """Planted: an error, two ways out to the network, an error inside a widget, a cell without end, a dead kernel."""
    nbformat.write(notebook(source), tmp_path / "bad.ipynb")
    said = course.execute(tmp_path / "bad.ipynb", tmp_path / "out.ipynb", {}, seconds_a_cell=8)
    assert re.search(problem, said), said


@each_notebook
def test_notebook_is_committed_without_outputs_and_with_its_parts(path):
    raw = json.loads(path.read_text(encoding="utf-8"))
    cells = raw["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert all(cell["id"] for cell in cells)
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in cells) == 1
    assert raw["metadata"]["kernelspec"]["name"] == "python3"
    text = "".join("".join(cell["source"]) for cell in cells)
    for part in ("**Question:**", "does not show", "## Exercises", "arXiv:1503.02531", "assert "):
        assert part in text, f"{path.name} lacks its {part!r}"
    exercises = next("".join(c["source"]) for c in cells if "".join(c["source"]).startswith("## Exercises"))
    assert re.findall(r"^(\d)\. ", exercises.split("<details>")[0], re.M) == ["1", "2", "3"]


@each_notebook
def test_parameters_are_plain_values_and_every_profile_value_is_some_notebooks(path):
    cell = next(c for c in nbformat.read(path, 4).cells if "parameters" in c.metadata.get("tags", []))
    for line in filter(None, map(str.strip, cell.source.splitlines())):
        assert re.fullmatch(r"\w+ = (-?[\d_.e-]+|\"[^\"]*\"|True|False)(  # .+)?", line), f"not a plain value: {line}"
        assert line.split()[0] in papermill.inspect_notebook(str(path)), f"papermill does not see it: {line}"
    declared = {name for path in NOTEBOOKS for name in papermill.inspect_notebook(str(path))}
    for name, values in PROFILES.items():
        assert set(values) <= declared, f"profile {name} sets what no notebook declares"


def test_a_profile_or_notebook_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="'tiny'.*smoke"):
        course.profile(NOTEBOOKS[0], "tiny")
    with pytest.raises(ValueError, match=r"'99'.*00_start_here"):
        course.find(ROOT / "notebooks", ["99"])
