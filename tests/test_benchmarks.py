"""Every benchmark runs to its end, at the size of seconds, and writes what the README is made from."""

import functools
import json
import sys

import nbformat
import pytest
import torch
from conftest import ROOT

from kdlab import machine
from kdlab.course import readme

sys.path.insert(0, str(ROOT / "benchmarks"))
import equation5
import loops
import run

SPEC = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
TINY = {
    "training": {"sizes": ((8, 300),), "seconds": 0.01},
    "many": {"n": 2, "units": 8, "cases": 300},
    "speech": {"n": 2, "units": 8, "utterances": 4},
    "eq5": {"n": 20, "n_classes": 30, "n_specialists": 4, "own": 5, "alone": 20},
    "import": {},
    "in_page": {"steps": 20, "images": 300, "presses": 4, "seconds": 0.3},
}
pytestmark = pytest.mark.xdist_group("processes")  # the tests that want them share them


def test_a_group_of_tests_is_kept_on_one_worker(request):
    """Else an app, a JupyterLab and a cluster are started for each worker; xdist tells it by the name of the test."""
    assert request.node.nodeid.endswith("@processes") == bool(request.config.getoption("loadgroup", False))


each_section = pytest.mark.parametrize("name", list(TINY))


@pytest.fixture(scope="module")
def measured():
    """What the sections came to, each measured once, as far as a test has asked for it."""
    return {}


@pytest.fixture
def record(measured):
    """Measures a section at its tiny size."""

    def measure(name):
        if name not in measured:
            measured[name] = run.measure([name], 1, **TINY)
        return measured[name]

    return measure


@each_section
def test_a_section_is_measured_alone_and_says_on_which_machine(name, record):
    result = record(name)
    assert set(result) == {"rounds", name, "machines"} and result["machines"] == {name: machine.describe()}
    rows = result[name] if isinstance(result[name], list) else [result[name]]
    assert rows and all(
        value > 0
        for row in rows
        for key, value in row.items()
        if key in ("kdlab", "torch", "tutorial", "one_by_one", "at_once", "ten_at_once", "as_written", "page", "played")
    )


def test_no_section_is_left_out():
    """The sliders are below, and the live panel, which is no section, is in test_live_browser.py."""
    assert set(TINY) | {"sliders"} == set(run.SECTIONS)


@pytest.mark.browser
def test_the_sliders_of_each_panel_are_pressed_the_temperature_before_others(tmp_path):
    pytest.importorskip("playwright", reason="playwright is not installed: pip install 'kdlab[test]'")
    panels = [
        "import torch",
        "from kdlab import metrics, widgets",
        "z, names = torch.eye(3), list('abc')",
        "widgets.two_terms(z, z.flip(0), [0, 1, 2], names)",  # an image, T and alpha
        "widgets.runs([1, 10], {'test': z[:, :2]}, names, start=2)",  # from the slider's upper end
        "widgets.Stack({}, lambda order: metrics.Row('a', (1.0,), 1, bytes=1, ms_32=1, multiply_adds=1))",
    ]  # none
    cells = list(map(nbformat.v4.new_code_cell, panels))
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=SPEC), tmp_path / "small.ipynb")
    rows = run.measure(["sliders"], 1, sliders={"presses": 4, "notebooks": {tmp_path / "small.ipynb": {}}})["sliders"]
    assert [(row["panel"], row["slider"], row["presses"], row["seen"]) for row in rows] == [
        (0, "temperature T", 4, 4),
        (1, "run", 4, 4),
    ]
    assert all(0 < row["median_ms"] <= row["p95_ms"] for row in rows)


def test_the_readme_can_be_made_from_what_is_measured(record, tmp_path):
    parts = [record(name) for name in TINY]
    (tmp_path / "bench.json").write_text(json.dumps(functools.reduce(run.merge, parts)))
    made = readme.fill("<!-- results: speed -->\n<!-- end -->\n", tmp_path)
    for name, key in (("training", "kdlab"), ("training", "tutorial"), ("eq5", "batched"), ("speech", "ten_at_once")):
        row = record(name)[name]
        assert f"{(row[0] if name == 'training' else row)[key]:,.0f}" in made


def test_models_trained_at_once_and_one_by_one_come_to_the_same_losses(record):
    assert record("many")["many"]["largest_difference_of_losses"] < 1e-5


def test_equation_5_is_the_same_in_a_batch_alone_and_as_it_is_written(record):
    row = record("eq5")["eq5"]
    assert row["largest_difference_of_q"] < 1e-5 and row["largest_difference_as_written"] < 2e-3


def test_the_written_equation_5_of_a_generalist_alone_is_its_own_answer():
    problem = equation5.random_problem(1, 6, 1, 2)._replace(answers=[], clusters=[])
    torch.testing.assert_close(equation5.as_written(problem).exp(), problem.generalist.softmax(1))


def test_the_multiply_adds_of_a_training_step_are_those_of_its_matrix_products():
    forward, backward = 784 * 5 + 5 * 5 + 5 * 10, 784 * 5 + 2 * (5 * 5 + 5 * 10)
    assert loops.multiply_adds(5) == forward + backward


def test_only_a_section_is_measured_anew_and_the_others_keep_their_machines(tmp_path, monkeypatch):
    earlier = {
        "rounds": 2,
        "import": {"torch": 1.0, "kdlab": 1.5},
        "eq5": {"batched": 1},
        "machines": {"import": {"processor": "an older one"}, "eq5": {"processor": "an older one"}},
    }
    (tmp_path / "results").mkdir()
    file = tmp_path / "results" / "bench.json"
    file.write_text(json.dumps(earlier))
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "SECTIONS", run.SECTIONS | {"eq5": lambda rounds: {"batched": 10 * rounds}})
    run.main(keep=True, rounds=2, only=["eq5"])
    kept = json.loads(file.read_text())
    assert kept == earlier | {"eq5": {"batched": 20}, "machines": earlier["machines"] | {"eq5": machine.describe()}}
    with pytest.raises(ValueError, match="medians of 2 rounds.*asked for 3"):
        run.main(keep=True, rounds=3, only=["eq5"])
    with pytest.raises(ValueError, match="no section trainings; there are training, many"):
        run.main(keep=True, rounds=2, only=["trainings"])
    assert json.loads(file.read_text()) == kept
