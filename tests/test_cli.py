"""The commands as a person types them: what they say, and how they fail."""

import json
import os
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT

from kdlab import cli


def kdlab(*words: str, cwd=ROOT, **environ) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "kdlab.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | environ, timeout=120)


@pytest.mark.parametrize("words, said", [
    (("run", "99"), "no notebook is called '99'; there are 00_start_here"),
    (("run", "00", "--profile", "tiny"), "no profile is called 'tiny'"),
    (("run", "00", "-p", "temperature=3"), "no parameter is called 'temperature'; there are"),
    (("run", "00", "-p", "T", "--profile", "smoke"), "such as -p T 8, got 'T'"),
    (("run", "00", "-p", "T"), "-p NAME VALUE, such as -p T 8, got 'T'"),
    (("data", "fashion_mnist"), "did you mean 'fashion-mnist'?"),
    (("lab", "--notebook", "nope.ipynb"), "no notebook is called 'nope.ipynb'"),
])  # fmt: skip
def test_a_slip_is_answered_in_a_line(words, said):
    answer = kdlab(*words)
    assert answer.returncode != 0
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


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
    cells = [nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("print(x)\nraise ValueError('planted')")]  # fmt: skip
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=spec), tmp_path / "notebooks" / "00_start_here.ipynb")
    code = "from kdlab import cli, course; from pathlib import Path; cli.notebooks_folder = lambda: Path('notebooks'); "
    answer = subprocess.run([sys.executable, "-c", code + "cli.main()", "run"], capture_output=True, text=True,
                            cwd=tmp_path)  # fmt: skip
    assert answer.returncode == 1
    assert "which begins with 'print(x)': ValueError: planted" in answer.stdout
    assert (tmp_path / "build" / "own" / "00_start_here.ipynb").exists()


def course_of(folder, **sources):
    """A course whose notebooks have a parameter `n` and this code; returns what runs it."""
    (folder / "notebooks").mkdir(exist_ok=True)
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for name, source in sources.items():
        cells = [nbformat.v4.new_code_cell("n = 1", metadata={"tags": ["parameters"]}),
                 nbformat.v4.new_code_cell(source)]  # fmt: skip
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=spec), folder / "notebooks" / f"{name[1:]}.ipynb")
    code = "from kdlab import cli; from pathlib import Path; cli.notebooks_folder = lambda: Path('notebooks').resolve()"
    (folder / "run.py").write_text(f"{code}\nif __name__ == '__main__':\n    cli.main()\n")
    return lambda *words: subprocess.run([sys.executable, "run.py", "run", *words], capture_output=True, text=True,
                                         cwd=folder, timeout=120)  # fmt: skip


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
    assert run().returncode == 1
    course_of(tmp_path, _01_b=ran.format("b"))
    again = run()
    assert again.returncode == 0
    assert "in the run that was interrupted" in again.stdout
    assert (tmp_path / "notebooks" / "said").read_text() == "ab"
    assert run().returncode == 0
    assert (tmp_path / "notebooks" / "said").read_text() == "abab"


def test_keeping_the_times_of_one_notebook_leaves_those_of_the_others(tmp_path):
    path = tmp_path / "notebooks.json"
    row = {"notebook": "01", "profile": "own", "seconds": 1.0, "machine": {}}
    path.write_text(json.dumps([row, {**row, "notebook": "00"}]))
    cli._keep([{**row, "seconds": 2.0}, {**row, "profile": "full", "seconds": 9.0}], path)
    seconds = {(r["notebook"], r["profile"]): r["seconds"] for r in json.loads(path.read_text())}
    assert seconds == {("00", "own"): 1.0, ("01", "own"): 2.0, ("01", "full"): 9.0}


def test_python_m_kdlab_is_kdlab():
    answer = subprocess.run([sys.executable, "-m", "kdlab", "--help"], capture_output=True, text=True)
    assert answer.returncode == 0
    assert "Knowledge distillation, live" in answer.stdout
