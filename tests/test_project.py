"""The project keeps its own word: one list of dependencies, one ladder of modules, quick imports, two commands."""

import ast
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import NOTEBOOKS, ROOT

import kdlab
from kdlab import metrics
from kdlab.course import contents, header
from kdlab.course import readme as generated
from kdlab.widgets import in_page

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SH = shutil.which("sh")
# From the top rung down: a module imports only from rungs above its own.
LADDER = [
    "disk",
    "place",
    "machine",
    "randomness",
    "data",
    "models",
    "losses",
    "metrics",
    "text",
    "parallel",
    "train",
    "specialists",
    "compress",
    "values",
    "store",
    "course",
    "live",
    "teachers",
    "plots",
    "widgets",
    "cli",
]


def split(requirement: str) -> tuple[str, str]:
    return re.match(r"([A-Za-z0-9_.-]+)\s*(.*)", requirement.replace(" ", "")).groups()


def test_environment_yml_and_pyproject_ask_for_the_same_things():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = dict(split(line) for line in environment["dependencies"] if isinstance(line, str))
    wanted = dict(split(line) for line in PYPROJECT["project"]["dependencies"])
    wanted["pytorch"] = wanted.pop("torch")  # conda-forge's name for it
    assert conda.pop("python").startswith(PYPROJECT["project"]["requires-python"])
    conda.pop("pip")
    assert conda == wanted
    assert {"pip": ["-e .[text,speech,deploy]"]} in environment["dependencies"]


def test_what_is_under_the_gpl_is_installed_only_where_speech_is_asked_for():
    extras = PYPROJECT["project"]["optional-dependencies"]
    names = {key: [split(line)[0] for line in lines] for key, lines in extras.items()}
    assert names["speech"] == ["espeakng-loader"]
    assert [key for key, required in names.items() if "espeakng-loader" in required] == ["speech"]
    assert "espeakng-loader" not in [split(line)[0] for line in PYPROJECT["project"]["dependencies"]]
    assert "speech" in re.search(r"kdlab\[(.*?)\]", extras["test"][0])[1].split(",")


def test_the_version_is_typed_once_and_the_citation_and_the_changelog_follow_it():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == kdlab.__version__ and citation["cff-version"] == "1.2.0"
    releases = re.findall(r"^## (\S+)(?: - (\S+))?$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert releases[0] == ("Unreleased", "")
    assert releases[1] == (kdlab.__version__, str(citation["date-released"]))
    assert "version" in PYPROJECT["project"]["dynamic"] and "version" not in PYPROJECT["project"]
    assert kdlab.__version__ not in (ROOT / "README.md").read_text(encoding="utf-8")


def imports(path: Path) -> set[str]:
    """The kdlab modules that a file imports, by their rung."""
    here = path.relative_to(ROOT / "kdlab").parts[0].removesuffix(".py")
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and path.parent != ROOT / "kdlab":
            found.add(here)
        elif isinstance(node, ast.ImportFrom) and (node.module in (None, "kdlab") or node.level):
            found |= {alias.name for alias in node.names} if node.module in (None, "kdlab") else {node.module}
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("kdlab."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("kdlab.")}
    return found - {here}


@pytest.mark.parametrize("path", sorted((ROOT / "kdlab").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_from_rungs_above_it(path):
    here = path.relative_to(ROOT / "kdlab").parts[0].removesuffix(".py")
    if here in ("__init__", "__main__"):
        return
    assert here in LADDER, f"{here} has no rung on the ladder yet; CONTRIBUTING says how to give it one"
    below = [name for name in imports(path) if name in LADDER and LADDER.index(name) > LADDER.index(here)]
    assert not below, f"{here} imports {below} from below"


def test_modules_have_at_most_350_lines_and_functions_30_beside_their_docstrings():
    for path in (ROOT / "kdlab").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert len(source.splitlines()) <= 350, f"{path} has {len(source.splitlines())} lines"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                assert lines <= 30, f"{path}: {node.name} has {lines} lines"


def test_only_widgets_know_ipywidgets_and_only_plots_know_matplotlib():
    for library, allowed in (("ipywidgets", {"widgets"}), ("anywidget", {"widgets"}), ("matplotlib", {"plots"})):
        for path in (ROOT / "kdlab").rglob("*.py"):
            room = path.relative_to(ROOT / "kdlab").parts[0].removesuffix(".py")
            used = re.search(rf"^\s*(import|from) {library}\b", path.read_text(encoding="utf-8"), re.M)
            assert not used or room in allowed, f"{path} imports {library}"


def test_import_kdlab_brings_no_heavy_library():
    heavy = ["torchvision", "matplotlib", "ipywidgets", "anywidget", "transformers", "requests", "papermill", "IPython"]
    rooms = "data, losses, metrics, models, store, teachers, train"
    light = {f"from kdlab import {rooms}": heavy, "import kdlab.cli, kdlab.course": [*heavy, "torch"]}
    for command, names in light.items():
        code = f"import sys; {command}; print([name for name in {names} if name in sys.modules])"
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert answer.stdout.strip() == "[]", (command, answer.stderr)


def run_setup(tmp_path, *programs: tuple[str, str], **environ) -> subprocess.CompletedProcess:
    """scripts/setup.sh where PATH has nothing but these programs: (name, a shell script that plays it)."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, script in programs:
        (tools / name).write_text(f"#!{SH}\n{script}\n")
        (tools / name).chmod(0o755)
    environ = {"PATH": str(tools), "VENV": str(tmp_path / "venv"), **environ}
    return subprocess.run(
        [SH, str(ROOT / "scripts" / "setup.sh"), "."], capture_output=True, text=True, env=environ, cwd=tmp_path
    )


def without_venv(version: str) -> str:
    return f'case "$2" in *ensurepip*) exit 1;; *) [ "$1" = --version ] && echo Python {version}; exit 0;; esac'


OLD = ("python3", 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac')
unix = pytest.mark.skipif(os.name == "nt", reason="make and sh are not Windows' own; the README has plain lines for it")


@unix
def test_a_python_that_is_too_old_is_named_in_one_sentence(tmp_path):
    said = run_setup(tmp_path, OLD)
    assert said.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13 and found Python 3.9.2" in said.stderr
    assert len(said.stderr.strip().splitlines()) == 1


@unix
def test_no_python_and_no_venv_module_are_named_too(tmp_path):
    assert "found no python3" in run_setup(tmp_path).stderr
    (tmp_path / "other").mkdir()
    said = run_setup(tmp_path / "other", ("python3", without_venv("3.12.1")))
    assert "lacks: on Debian or Ubuntu, sudo apt install python3-venv" in said.stderr
    assert said.returncode != 0
    assert not (tmp_path / "other" / "venv").exists()


@unix
def test_a_suitable_python_behind_an_old_one_is_found(tmp_path):
    fits = ("python3.12", without_venv("3.12.9"))
    assert "this Python 3.12.9" in run_setup(tmp_path, OLD, fits).stderr


def recorded(tmp_path, *names: str, **environ) -> list[str]:
    """The commands that setup.sh gives to programs which only write them down, in a venv that is there already."""
    record = f'echo "${{0##*/}} $@" >> {tmp_path}/record'
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    python = tmp_path / "venv" / "bin" / "python"
    python.write_text(f'#!{SH}\n[ "$1" = -c ] || {record}\n')
    python.chmod(0o755)
    answer = run_setup(tmp_path, *[(name, record) for name in names], **environ)
    assert answer.returncode == 0, answer.stderr
    return (tmp_path / "record").read_text().replace(str(tmp_path), "HERE").splitlines()


CPU = "--upgrade --index-url https://download.pytorch.org/whl/cpu torch>=2.6 torchvision>=0.21"
PIP = "python -m pip install --quiet --disable-pip-version-check"
UV = "uv pip install --quiet --python HERE/venv/bin/python"


@unix
@pytest.mark.parametrize("tools, install", [((), PIP), (("uv",), UV)])
@pytest.mark.parametrize("torch", ["", "cpu"])
def test_setup_installs_by_uv_where_it_is_and_torch_without_cuda_where_that_is_asked_for(
    tmp_path, tools, install, torch
):
    first = [f"{install} {CPU}"] if torch else []
    assert recorded(tmp_path, *tools, TORCH=torch) == [*first, f"{install} -e ."]


@unix
def test_uv_makes_the_environment_where_python_lacks_its_venv_module(tmp_path):
    record = f'echo "$@" >> {tmp_path}/record'
    assert run_setup(tmp_path, ("python3.12", without_venv("3.12.9")), ("uv", record)).returncode == 0
    made, installed = (tmp_path / "record").read_text().replace(str(tmp_path), "HERE").splitlines()
    assert made == "venv --quiet --seed --python HERE/bin/python3.12 HERE/venv"
    assert installed == "pip install --quiet --python HERE/venv/bin/python -e ."


@unix
def test_another_torch_than_the_two_is_named(tmp_path):
    answer = run_setup(tmp_path, TORCH="gpu")
    assert answer.returncode != 0 and "TORCH is cpu, or not set, got 'gpu'" in answer.stderr


@unix
@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_hands_torch_on_and_an_environment_of_the_other_kind_is_not_taken_for_ready(tmp_path):
    true, script = shutil.which("true"), tmp_path / "sh"
    script.write_text(f'#!{SH}\necho "TORCH=$TORCH $@"\nmkdir -p "$VENV/bin"\nln -sf {true} "$VENV/bin/kdlab"\n')
    script.chmod(0o755)
    environ = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "VENV": str(tmp_path / "venv")}

    def make(*words: str) -> str:
        return subprocess.run(["make", "lab", *words], capture_output=True, text=True, env=environ, cwd=ROOT).stdout

    assert [make(), make()] == ["TORCH= scripts/setup.sh .[text,speech,deploy]\n", ""]
    assert [make("TORCH=cpu"), make("TORCH=cpu")] == ["TORCH=cpu scripts/setup.sh .[text,speech,deploy]\n", ""]


def test_setup_readme_and_pyproject_ask_for_the_same_torch():
    torch = [line for line in PYPROJECT["project"]["dependencies"] if line.startswith("torch")]
    assert " ".join(torch) == "torch>=2.6 torchvision>=0.21"
    for page in ("docs/install.md", "scripts/setup.sh"):
        text = (ROOT / page).read_text(encoding="utf-8").replace("$cpu_index", "https://download.pytorch.org/whl/cpu")
        assert CPU in text.replace('"', "") and "https://download.pytorch.org/whl/cpu" in text


def test_every_file_the_package_needs_is_in_the_wheel(tmp_path):
    declared = PYPROJECT["tool"]["setuptools"]["package-data"]
    packages = [".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "kdlab").rglob("__init__.py")]
    for path in (ROOT / "kdlab").rglob("*"):
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        package = next(
            p for p in sorted(packages, key=len, reverse=True) if (ROOT / p.replace(".", "/")) in path.parents
        )
        inside = path.relative_to(ROOT / package.replace(".", "/"))
        covered = path.suffix == ".py" and len(inside.parts) == 1
        assert covered or any(inside.match(pattern) for pattern in declared.get(package, [])), f"{path} is left behind"


@pytest.mark.parametrize("page", generated.PAGES)
def test_the_pages_say_what_results_say(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert generated.fill(text, ROOT / "results") == text, f"{page} and results part; `kdlab report` mends it"
    made = re.search(r"<!-- results: .*?\n(.*?\w) ", text, re.S)
    tampered = text[: made.start(1)] + "999.9" + text[made.end(1) :]
    assert generated.fill(tampered, ROOT / "results") == text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_notebook_says_how_long_it_takes_and_where_it_is_in_the_course(path):
    text = path.read_text(encoding="utf-8")
    assert header.fill(path, ROOT / "results") == text, "`kdlab report` fills the header"
    title = "".join(json.loads(text)["cells"][0]["source"])
    timed = {row["notebook"]: row["seconds"] for row in json.loads((ROOT / "results" / "notebooks.json").read_text())}
    assert f"{contents.duration(timed[path.stem])} to run on two cores, {contents.minutes_to_read(path)} min" in title
    assert f"**{path.stem[:2]}**" in title and title.count(".ipynb)") >= len(NOTEBOOKS) - 1


def test_the_readme_is_a_front_door():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120, f"the README has {len(lines)} lines; docs/ and results/ have room"


def test_the_page_in_docs_is_of_this_program():
    """The data in it are kept: teacher's logits differ in their last digits from machine to machine."""
    page = ROOT / "docs" / "student.html"
    packed = base64.b64decode(re.search(r'id="pack" type="text/plain">([^<]+)<', page.read_text(encoding="utf-8"))[1])
    again = in_page.write_page(Path(tempfile.mkdtemp()) / "student.html", packed)
    assert again.read_bytes() == page.read_bytes(), "`python scripts/screenshot.py` makes it anew"
    assert page.stat().st_size < 2e6 and (ROOT / "docs" / "student.gif").stat().st_size < 2e6


def test_every_speed_of_the_readme_names_its_machine():
    record = json.loads((ROOT / "results" / "bench.json").read_text())
    measured = {key for key, value in record.items() if isinstance(value, dict | list)} - {"machines"}
    assert record["machines"].keys() == measured
    record["machines"]["in_page"] |= {"torch": "9.9"}
    said = generated._in_words(record)
    before, last = said.split("In the page ")
    assert last.endswith("torch 9.9.)") and "torch 9.9" not in before
    assert "Eq. 5" in before and before.rstrip().endswith(".)"), "the sentences before name their own machine"


def test_an_empty_block_is_filled_and_what_follows_it_stays():
    empty = "<!-- results: teacher -->\n<!-- end -->\n## Next\n<!-- results: sliders -->\n<!-- end -->\n"
    filled = generated.fill(empty, ROOT / "results")
    assert "The packaged teacher" in filled.split("## Next")[0] and "key press" in filled.split("## Next")[1]


def test_the_readmes_figure_shows_what_results_say():
    shown = (ROOT / "docs" / "claims.svg").read_text(encoding="utf-8")
    assert generated.figure(ROOT / "results") == shown, "figure and results part; `kdlab report` mends it"
    values = json.loads((ROOT / "results" / "claims" / "student-distilled.json").read_text())["values"]
    assert f">{sum(values) / len(values):.1f}<" in shown and shown.count("<circle") > 20


def test_the_readmes_table_lists_every_notebook_and_links_lead_somewhere():
    assert [f"{entry.file}.ipynb" for entry in contents.COURSE] == [path.name for path in NOTEBOOKS]
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md")]
    for page in [*pages, *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), (
                f"{page} links to {link}, which is not there"
            )
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        for link in re.findall(r"\]\(([^)#]+?)\)", prose):
            assert link.startswith("http") or (path.parent / link).exists(), f"{path.name} links to {link}"


def test_the_python_of_readme_and_docs_runs(capsys, monkeypatch):
    monkeypatch.setitem(metrics.measure.__kwdefaults__, "repeats", 2)
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/own_models.md")]
    distillation, panel, bert = re.findall(r"```python\n(.*?)```", "".join(texts), re.S)
    exec(bert.replace("n_test=1_000", "n_test=20"), {})
    head, whole, small = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "parameters," and whole.startswith("BERT") and small.startswith("rank 96")
    made = {}
    exec(panel.replace("widgets.Live(", "live = widgets.Live("), made)
    live = made["live"]
    live.controls["smoothing"].value = 0.2
    live.advance(200)
    assert live.runs["A"].knobs.turns == [{"step": 0, "smoothing": 0.2}]
    assert metrics.errors(metrics.logits(live.runs["A"].student, live.x), live.y) < 300  # a guess makes 500
    exec(distillation.replace("epochs=3", "steps=150"), {})
    assert float(capsys.readouterr().out.split()[0]) > 85  # percent
