"""Every notebook runs from top to bottom, from an empty cache, with the network off; and is fit to be committed."""

import json
import re
import shutil
import statistics
import sys
import time

import nbformat
import papermill
import pytest
import smoke
import yaml
from conftest import NOTEBOOKS, ROOT

from kdlab import compress, course, text
from kdlab.course import parameters

sys.path.insert(0, str(ROOT / "scripts"))
import check_notebooks

PROFILES = yaml.safe_load((ROOT / "notebooks" / "profiles.yaml").read_text())
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.mark.notebook
@each_notebook
def test_notebook_runs_small_and_from_another_seed(path, tmp_path_factory, record_property):
    ran = smoke.ran(path, tmp_path_factory)
    record_property("notebook", path.stem)
    record_property("seconds", ran.seconds)
    assert not ran.problem


def with_cell(path, folder, place, source):
    """A copy of a notebook in `folder`, and of the profiles, with one more code cell; place: -1 for the last."""
    notebook = nbformat.read(path, 4)
    notebook.cells.insert(len(notebook.cells) if place == -1 else place, nbformat.v4.new_code_cell(source))
    nbformat.write(notebook, folder / path.name)
    for profiles in path.parent.glob("profiles.yaml"):
        shutil.copy(profiles, folder)
    return folder / path.name


@pytest.mark.course
@each_notebook
def test_notebook_shows_its_effects_at_its_own_values(path, tmp_path, offline, monkeypatch, record_property):
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path / "store"))  # nothing that another notebook kept may help
    monkeypatch.setenv("KDLAB_WORKERS", "1")  # two tests run side by side
    effects = ROOT / "tests" / "effects" / f"{path.stem[:2]}.py"
    checked = with_cell(path, tmp_path, -1, effects.read_text(encoding="utf-8")) if effects.exists() else path
    start = time.perf_counter()
    problem = course.execute(checked, tmp_path / "out" / path.name, {}, smoke.SECONDS_A_CELL)
    record_property("notebook", path.stem)
    record_property("seconds", time.perf_counter() - start)
    assert not problem


@pytest.mark.course
def test_notebook_22_takes_ones_own_model_and_texts_by_their_folders(tmp_path, offline):
    """A DistilBERT of three classes and two CSVs, named by parameters; no cell is changed."""
    import transformers

    names, tokenizer = ["bad", "fair", "good"], text.tokenizer()
    sizes = {"vocab_size": len(tokenizer), "dim": 64, "hidden_dim": 128, "n_layers": 3, "n_heads": 4}
    classes = {"label2id": {name: i for i, name in enumerate(names)}, "id2label": dict(enumerate(names))}
    config = transformers.DistilBertConfig(**sizes, **classes, num_labels=3, pad_token_id=tokenizer.pad_token_id)
    for part in (transformers.DistilBertForSequenceClassification(config), tokenizer):
        part.save_pretrained(tmp_path / "model")
    for name in ("train", "test"):
        lines = [f"a {label} film that is {'very ' * (i % 5)}long,{label}" for i in range(20) for label in names]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *lines]))
    path = next(path for path in NOTEBOOKS if path.name.startswith("22"))
    own = {"model_folder": str(tmp_path / "model"), "texts_folder": str(tmp_path), "output": str(tmp_path / "out")}
    values = course.profile(path, "smoke") | own | {"layers": "*transformer*"}
    assert not course.execute(path, tmp_path / "done.ipynb", values, smoke.SECONDS_A_CELL)
    kept = compress.load(tmp_path / "out" / "int8")
    assert type(kept).__name__ == "DistilBertForSequenceClassification" and kept.config.num_labels == 3


CACHED = [path for path in NOTEBOOKS if "@run.cached" in path.read_text(encoding="utf-8")]
AGAIN = f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); import computed_again"


def entries_of_two_seeds(path, values, tmp_path, monkeypatch) -> tuple[str, list[set[str]]]:
    """Run a notebook with seed 0, then with seed 1 in the same store, where each old entry that answers is computed
    again; return what went wrong, and the names of the entries after each run."""
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("KDLAB_WORKERS", "1")
    (tmp_path / "asking").mkdir()
    first = next(i for i, cell in enumerate(nbformat.read(path, 4).cells) if cell.cell_type == "code")
    asking, entries = with_cell(path, tmp_path / "asking", first, AGAIN), []
    for source, seed in ((path, 0), (asking, 1)):
        problem = course.execute(source, tmp_path / "out.ipynb", values | {"seed": seed}, smoke.SECONDS_A_CELL)
        if problem:
            return problem, entries
        entries.append({entry.name for entry in (tmp_path / "store").glob("*.value.safetensors")})
    return "", entries


@pytest.mark.course
@pytest.mark.parametrize("path", CACHED, ids=lambda path: path.stem)
def test_a_second_seed_in_the_same_store_gets_what_an_empty_store_gives(path, tmp_path, offline, monkeypatch):
    """A key that leaves something out would answer the second seed with a value of the first."""
    problem, entries = entries_of_two_seeds(path, course.profile(path, "smoke"), tmp_path, monkeypatch)
    assert not problem
    assert entries[0] < entries[1], "another seed should be kept under other names"


def test_a_key_that_leaves_something_out_is_seen(tmp_path, offline, monkeypatch):
    """Planted: a cached function that reads the seed where its key does not look, between two that are right."""
    source = """import os
from kdlab import course
run = course.Experiment("made_up")
os.environ["HIDDEN"] = str(seed)
@run.cached
def right(seed): return seed
@run.cached
def same(n): return [n, n]
@run.cached
def wrong(): return int(os.environ["HIDDEN"])
right(seed); same(2); print("so far"); wrong()"""
    made = notebook(source)
    made.cells.insert(0, nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]}))
    nbformat.write(made, tmp_path / "made_up.ipynb")
    (tmp_path / "runs").mkdir()
    problem, entries = entries_of_two_seeds(tmp_path / "made_up.ipynb", {}, tmp_path / "runs", monkeypatch)
    assert "wrong: another run kept 0, computed anew: 1" in problem
    assert len(entries) == 1 and len(entries[0]) == 3
    assert "so far" in (tmp_path / "runs" / "out.ipynb").read_text()


def notebook(*sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=spec)


@pytest.mark.parametrize(
    "source, problem",
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)", "network is off"),
        ("import urllib.request; urllib.request.urlopen('http://example.org')", "network is off"),
        ("import ipywidgets as w; w.interact(lambda x: 1 / 0, x=(0, 3));", "ZeroDivisionError"),
        ("import time; time.sleep(60)", "timed out|Timeout"),
        ("import os; os._exit(3)", "died|Dead"),
    ],
)
def test_what_is_wrong_with_a_notebook_is_seen(source, problem, tmp_path, offline):
    """Planted: an error, two ways out to the network, an error inside a widget, a cell without end, a dead kernel."""
    nbformat.write(notebook(source), tmp_path / "bad.ipynb")
    said = course.execute(tmp_path / "bad.ipynb", tmp_path / "out.ipynb", {}, seconds_a_cell=8)
    assert re.search(problem, said), said


def test_outputs_and_lost_or_doubled_ids_are_found(tmp_path):
    """Planted: one output, one cell without an id, one id twice."""
    code = {"cell_type": "code", "outputs": [], "execution_count": None, "source": [], "metadata": {}}
    cells = [code | {"id": "a", "outputs": ["1"]}, code, code | {"id": "b"}, code | {"id": "b"}]
    (tmp_path / "bad.ipynb").write_text(json.dumps({"cells": cells}))
    first, second, third = check_notebooks.problems(tmp_path / "bad.ipynb")
    assert "cell 1 has outputs" in first and "cell 2 has no id" in second and "2 cells have the id 'b'" in third


@each_notebook
def test_notebook_is_committed_without_outputs_and_with_its_parts(path):
    raw = json.loads(path.read_text(encoding="utf-8"))
    cells = raw["cells"]
    assert check_notebooks.problems(path) == []
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in cells) == 1
    assert raw["metadata"]["kernelspec"]["name"] == "python3"
    text = "".join("".join(cell["source"]) for cell in cells)
    for part in ("**Question:**", "does not show", "## Exercises", "arXiv:1503.02531", "<!-- header -->"):
        assert part in text, f"{path.name} lacks its {part!r}"
    exercises = next("".join(c["source"]) for c in cells if "".join(c["source"]).startswith("## Exercises"))
    assert re.findall(r"^(\d)\. ", exercises.split("<details>")[0], re.M) == ["1", "2", "3"]


@each_notebook
def test_parameters_are_plain_values_and_profiles_name_no_others(path):
    cell = next(c for c in nbformat.read(path, 4).cells if "parameters" in c.metadata.get("tags", []))
    for line in filter(None, map(str.strip, cell.source.splitlines())):
        assert re.fullmatch(r"\w+ = (-?[\d_.e-]+|\"[^\"]*\"|True|False)(  # .+)?", line), f"not a plain value: {line}"
        assert line.split()[0] in papermill.inspect_notebook(str(path)), f"papermill does not see it: {line}"
    for name in PROFILES:
        course.profile(path, name)  # raises for a name in the notebook's section that its cell does not declare


def test_a_profile_section_of_a_notebook_is_no_other_ones():
    numbers = {path.stem[:2] for path in NOTEBOOKS}
    for name, sections in PROFILES.items():
        assert set(sections) <= numbers, f"profile {name} has a section for no notebook"


def test_a_name_that_the_notebook_lacks_is_refused_in_its_section(tmp_path):
    nbformat.write(notebook("lr = 1"), tmp_path / "07_made_up.ipynb")
    (tmp_path / "profiles.yaml").write_text('smoke: {"07": {epochs: 2}}')
    with pytest.raises(ValueError, match=r"profile smoke sets 'epochs'.*07_made_up.ipynb"):
        course.profile(tmp_path / "07_made_up.ipynb", "smoke")


def test_a_profile_is_known_by_its_values(tmp_path):
    cell = nbformat.v4.new_code_cell("lr = 1\nseed = 0", metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path := tmp_path / "07_made_up.ipynb")
    assert parameters.profile_of(path, {"lr": 3}) == "own", "no profiles.yaml: it has no other values"
    (tmp_path / "profiles.yaml").write_text('smoke: {"07": {lr: 2}}\nfull: {"07": {lr: 3}}')
    found = {lr: parameters.profile_of(path, {"lr": lr, "seed": 5}) for lr in (1, 2, 3, 4)}
    assert found == {1: "own", 2: "smoke", 3: "full", 4: "other"}
    assert parameters.profile_of(None, {}) == "own"


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem[:2] <= "08"], ids=lambda path: path.stem)
def test_a_cell_is_its_idea_and_machinery_is_elsewhere(path):
    """At most 25 lines a cell, half of them of 8 or fewer, 200 in all; no record, profile or settings in sight."""
    code = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    lines = [sum(bool(line.strip()) for line in source.splitlines()) for source in code]
    assert max(lines) <= 25 and statistics.median(lines) <= 8 and sum(lines) <= 200, lines
    kitchen = re.findall(r"profile|run\.claim|fmt: skip|store\.|parallel\.map|course\.rows", "\n".join(code))
    assert not kitchen, f"{kitchen} belongs into the package"


def test_a_profile_or_notebook_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="'tiny'.*smoke"):
        course.profile(NOTEBOOKS[0], "tiny")
    with pytest.raises(ValueError, match=r"'99'.*00_start_here"):
        course.find(ROOT / "notebooks", ["99"])


def test_formulas_become_mathml_and_code_stays():
    made = course.with_mathml(
        "$\\arg\\max_c s$, $-\\log \\mathrm{softmax}(s)$, $\\log(x)$, $T^2$, `$T^2$` and $$\\frac{1}{T^2}$$"
    )
    arg, minus_log, log_of_x, power = made.split(", ", 3)
    assert "<mi>arg</mi><mspace" in arg and "\\arg" not in made
    assert "log</mi><mspace" in minus_log and "log</mi><mspace" not in log_of_x
    assert power.startswith("<i>T</i>², `$T^2$` and <math") and "<mfrac>" in power


def test_links_between_pages_lead_somewhere_and_the_index_lists_the_pages_that_are_there(tmp_path):
    cell = nbformat.v4.new_markdown_cell("[01](01_soft_targets.ipynb), [paper](https://a.b/c), [docs](../docs/x.md)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "00_start_here.ipynb")
    page = course.to_html(tmp_path / "00_start_here.ipynb", tmp_path / "html").read_text()
    assert 'href="01_soft_targets.html"' in page and 'href="https://a.b/c"' in page and "../docs" not in page
    index = course.write_index(tmp_path / "html", course.contents.COURSE).read_text()
    assert "<a href='00_start_here.html'>00 Start here</a>" in index and "01_soft_targets" not in index
