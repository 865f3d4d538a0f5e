"""The commands as a person types them: what they say, and how they fail."""

import json
import os
import re
import subprocess
import sys

import nbformat
import pytest
import torch
from conftest import ROOT, make_course
from typer.testing import CliRunner

from kdlab import cli, disk, store


def kdlab(*words: str, cwd=ROOT, **environ) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "kdlab.cli", *words]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | environ,
        timeout=240,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    "words, said",
    [
        (("run", "99"), "no notebook is called '99'; there are 00_start_here"),
        (("run", "00", "--profile", "tiny"), "no profile is called 'tiny'"),
        (("run", "00", "-p", "temperature=3"), "no parameter is called 'temperature'; there are"),
        (("run", "00", "-p", "T", "--profile", "smoke"), "such as -p T 8, got 'T'"),
        (("run", "00", "-p", "T"), "-p NAME VALUE, such as -p T 8, got 'T'"),
        (("data", "fashion_mnist"), "did you mean 'fashion-mnist'?"),
        (("lab", "--notebook", "nope.ipynb"), "no notebook is called 'nope.ipynb'"),
    ],
)
def test_a_slip_is_answered_in_a_line(words, said, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kdlab", *words])
    with pytest.raises(SystemExit, match=re.escape(said)) as ended:  # Python writes it to stderr, and exits with 1
        cli.main()
    assert str(ended.value).startswith("kdlab: ") and "Traceback" not in str(ended.value)


def test_what_the_command_says_of_a_slip_comes_on_stderr():
    answer = kdlab("run", "99")
    assert answer.returncode == 1 and answer.stderr.startswith("kdlab: no notebook is called '99'")


def test_data_that_cannot_be_had_says_where_to_put_it(tmp_path):
    offline = str(ROOT / "tests" / "offline")
    places = {"KDLAB_CACHE": str(tmp_path), "KDLAB_MIRROR": str(tmp_path / "nowhere")}
    answer = kdlab("data", "kmnist", **places, PYTHONPATH=offline)
    assert answer.returncode != 0
    assert f"put the file by hand at\n  {tmp_path}" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_data_lists_what_is_there():
    listing = kdlab("data").stdout
    assert "train-images-idx3-ubyte.gz" in listing
    assert "kmnist" in listing
    assert "digits-speech    (no file)                    made here" in listing


def test_run_says_which_cell_failed_and_exits_with_1(tmp_path):
    cells = [
        nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("print(x)\nraise ValueError('planted')"),
    ]
    a_course(tmp_path, _00_start_here=cells)
    answer = kdlab("run", "--no-html", cwd=tmp_path)
    assert answer.returncode == 1
    assert "which begins with 'print(x)': ValueError: planted" in answer.stdout
    assert (tmp_path / "build" / "own" / "00_start_here.ipynb").exists()


def a_course(folder, **notebooks):
    """A folder that kdlab takes for a course, with these notebooks."""
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    make_course(folder)
    for name, cells in notebooks.items():
        cells = [nbformat.v4.new_markdown_cell("of kdlab"), *cells]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=spec)
        nbformat.write(notebook, folder / "notebooks" / f"{name[1:]}.ipynb")


def course_of(folder, **sources):
    """A course whose notebooks have a parameter `n` and this code; returns what runs it."""
    a_course(
        folder,
        **{
            name: [
                nbformat.v4.new_code_cell("n = 1", metadata={"tags": ["parameters"]}),
                nbformat.v4.new_code_cell(source),
            ]
            for name, source in sources.items()
        },
    )
    return lambda *words, **environ: kdlab("run", *words, cwd=folder, **environ)


def test_a_parameter_given_by_hand_reaches_the_notebooks_that_declare_it(tmp_path):
    said = "open('said', 'a').write(str({}))"
    run = course_of(tmp_path, _00_start_here=said.format("n + 1"), _01_b=said.format("n"))
    assert run("-p", "n=7", "-j", "2").returncode == 0
    assert run("-p", "n", "3", "--no-html").returncode == 0
    assert sorted((tmp_path / "notebooks" / "said").read_text()) == ["3", "4", "7", "8"]
    assert (tmp_path / "build" / "html" / "01_b.html").exists()


def test_run_again_goes_on_where_it_stopped(tmp_path):
    """After a failure what ended well is passed over, until all ended well or the notebook changes."""
    ran = "open('said', 'a').write('{}')"
    run = course_of(tmp_path, _00_start_here=ran.format("a"), _01_b="raise ValueError('not yet')")
    assert run("--no-html").returncode == 1
    course_of(tmp_path, _01_b=ran.format("b"))
    again = run("--no-html")
    assert again.returncode == 0
    assert "in the run that was interrupted" in again.stdout
    assert (tmp_path / "notebooks" / "said").read_text() == "ab"
    assert run("--no-html").returncode == 0
    assert (tmp_path / "notebooks" / "said").read_text() == "abab"


def test_keeping_the_times_of_one_notebook_leaves_those_of_the_others(tmp_path):
    path = tmp_path / "notebooks.json"
    row = {"notebook": "01", "profile": "own", "seconds": 1.0, "machine": {}}
    path.write_text(json.dumps([row, {**row, "notebook": "00"}]))
    cli._keep([{**row, "seconds": 2.0}, {**row, "profile": "full", "seconds": 9.0}], path)
    seconds = {(r["notebook"], r["profile"]): r["seconds"] for r in json.loads(path.read_text())}
    assert seconds == {("00", "own"): 1.0, ("01", "own"): 2.0, ("01", "full"): 9.0}


KEEP = "from kdlab import store\nstore.result('twice', {'n': n, 'notebook': '00_start_here'}, lambda: 2 * n)"


def files_in(folder) -> dict:
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_relative_settings_mean_the_folder_where_they_were_typed_though_kernels_work_in_another(tmp_path):
    run = course_of(tmp_path, _00_start_here=KEEP + "\nimport os; print(os.environ['KDLAB_CACHE'])")
    answer = run("--no-html", KDLAB_STORE="results", KDLAB_CACHE="cache")
    assert answer.returncode == 0, answer.stderr
    assert [path.name.split(".")[0] for path in (tmp_path / "results").glob("*.safetensors")] == ["twice"]
    assert sorted(path.name for path in (tmp_path / "notebooks").iterdir()) == ["00_start_here.ipynb", "profiles.yaml"]
    assert str(tmp_path / "cache") in (tmp_path / "build" / "own" / "00_start_here.ipynb").read_text()


@pytest.mark.parametrize("words", [["lab"], ["lab", "--app"]])
def test_lab_hands_its_server_the_folders_where_they_were_typed(words, tmp_path, monkeypatch):
    typed = {"KDLAB_STORE": "results", "KDLAB_CACHE": "./cache", "KDLAB_MIRROR": "file:///a%20b", "JUPYTER_PATH": ""}
    for name, value in typed.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(disk, "BEGAN_IN", tmp_path)
    monkeypatch.setattr(cli.os, "name", "posix")
    started = []

    def become(program, command):
        started.append(dict(os.environ))
        raise SystemExit

    monkeypatch.setattr(cli.os, "execv", become)
    CliRunner().invoke(cli.app, [*words, "--no-browser"])
    assert [started[0][name] for name in ("KDLAB_STORE", "KDLAB_CACHE", "KDLAB_MIRROR")] == [
        str(tmp_path / "results"),
        str(tmp_path / "cache"),
        "/a b",
    ]


def test_the_course_is_found_from_any_folder_in_it_and_its_build_lies_beside_it(tmp_path):
    course_of(tmp_path, _00_start_here="n")
    (tmp_path / "notebooks" / "deep").mkdir()
    assert kdlab("run", cwd=tmp_path / "notebooks" / "deep").returncode == 0
    assert (tmp_path / "build" / "html" / "00_start_here.html").exists()
    assert not [*(tmp_path / "notebooks" / "deep").iterdir()]


def test_report_leaves_another_project_with_a_folder_of_notebooks_as_it_is(tmp_path):
    """Run in a checkout, it reports on the checkout's own course; from a wheel it refuses, see test_wheel.py."""
    another_project(tmp_path)
    before = files_in(tmp_path)
    assert kdlab("report", "--json", cwd=tmp_path).returncode == 0
    assert files_in(tmp_path) == before


def another_project(folder):
    for name in (
        "notebooks/00_start_here.ipynb",
        "notebooks/profiles.yaml",
        "README.md",
        "results/claims/teacher.json",
        "docs/claims.svg",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}", newline="\r\n")


def test_store_lists_what_is_kept_and_clears_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path / "store"))
    for n in range(3):
        store.result("twice", {"n": n, "notebook": "04_mnist"}, lambda: 0)
    store.tensors("logits", {"n": 1}, lambda: {"w": torch.ones(500_000)})
    store.checkpoint("logits", {"n": 2}).write_bytes(b"half of a training")
    theirs = [tmp_path / "store" / name for name in ("twice.txt", "twice.v1.final.safetensors", "claims/teacher.json")]
    for path in theirs:
        path.parent.mkdir(exist_ok=True)
        path.write_text("of another program")

    def answer(*words):
        return CliRunner().invoke(cli.app, ["store", *words])

    assert answer("where").stdout == f"{tmp_path / 'store'}\n"
    head, logits, twice, total, unfinished = answer("list").stdout.splitlines()
    assert head.split() == ["name", "notebook", "entries", "MB", "last", "made"]
    assert logits.split()[:4] == ["logits", "–", "1", "2.0"] and twice.split()[:4] == ["twice", "04_mnist", "3", "0.0"]
    assert twice.split()[4][:4].isdecimal() and total.startswith("4 entries, 2.0 MB") and "'logits'" in unfinished

    assert answer("clear", "twice").stdout == "deleted: 3 entries, 0.0 MB\n"
    assert "nothing is kept as 'twice'" in str(answer("clear", "twice").exception)
    refused = answer("clear")
    assert refused.exit_code != 0 and "--yes deletes it" in str(refused.exception)
    assert "1 entries, 2.0 MB, of logits" in refused.stdout and len(store.entries()) == 1
    assert answer("clear", "--yes").exit_code == 0
    assert store.entries() == [] and store.unfinished() == [] and all(path.exists() for path in theirs)


def test_python_m_kdlab_is_kdlab():
    answer = subprocess.run([sys.executable, "-m", "kdlab", "--help"], capture_output=True, text=True)
    assert answer.returncode == 0
    assert "Knowledge distillation, live" in answer.stdout
