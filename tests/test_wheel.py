"""A built wheel carries the course: installed elsewhere, `kdlab lab` puts the notebooks where one stands."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import BytesParser

import pytest
from conftest import NOTEBOOKS, ROOT
from test_cli import another_project, files_in

JUPYTERLAB = """
import json, os, sys
print("started " + json.dumps([sys.argv[1:], sorted(os.listdir())]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built of a copy of this checkout, without a network."""
    source, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for name in ("kdlab", "notebooks", "results", "LICENSES"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out), str(source))
    return next(out.glob("kdlab-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Where the wheel is installed, beside a JupyterLab that only says how it was started."""
    place = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-index", "--target", str(place), str(wheel))
    (place / "jupyterlab").mkdir()
    (place / "jupyterlab" / "__main__.py").write_text(JUPYTERLAB)
    (place / "jupyterlab" / "__init__.py").write_text("")
    return place


def pip(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "--quiet", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def kdlab(installed, tmp_path):
    """The installed command, run in an empty folder outside any checkout."""

    def run(*words: str) -> subprocess.CompletedProcess:
        environ = os.environ | {"PYTHONPATH": str(installed)}
        return subprocess.run(
            [sys.executable, "-m", "kdlab", *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environ,
            stdin=subprocess.DEVNULL,
            timeout=240,
        )

    return run


def test_the_wheel_holds_every_file_of_the_package_and_the_course(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    of_package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "kdlab").rglob("*")
        if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & {*path.parts}
    }
    of_course = {f"kdlab/notebooks/{path.name}" for path in (*NOTEBOOKS, ROOT / "notebooks" / "profiles.yaml")}
    of_results = {f"kdlab/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "results" / "claims").glob("*.json")}
    assert of_package | of_course | of_results <= inside and len(of_results) > 50
    assert {name for name in inside if name.startswith("kdlab/notebooks/")} == of_course


def test_the_wheel_carries_every_license_and_declares_them(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        metadata = BytesParser().parsebytes(archive.read(f"{info}/METADATA"))
        listed = metadata.get_all("License-File")
        for name in listed:
            assert archive.read(f"{info}/licenses/{name}") == (ROOT / name).read_bytes()
    texts = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "LICENSES").iterdir())
    assert sorted(listed) == sorted(["LICENSE", *texts])
    assert metadata["License-Expression"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]


def test_the_license_expression_is_the_sum_of_the_table_and_each_file_has_a_row():
    expression = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "LICENSES" / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith("| file")
    ]
    assert {name for row in rows for name in row[2].split(" AND ")} == set(expression.split(" AND "))
    named = {text for row in rows for text in re.findall(r"`(.*?)`", row[4])}
    there = {path.name for path in (ROOT / "LICENSES").iterdir()} - {"README.md"}
    assert named - {"../LICENSE"} == there
    for pattern in ("data/mnist/*.gz", "data/glosses/*.xz", "widgets/page/*.js", "teachers/*.safetensors"):
        for path in (ROOT / "kdlab").glob(pattern):
            assert any(path.match(p) for row in rows for p in re.findall(r"`(kdlab/.*?)`", row[0])), path


def test_lab_in_an_empty_folder_puts_the_notebooks_there_opens_the_first_and_keeps_what_was_edited(kdlab, tmp_path):
    first = kdlab("lab", "--no-browser")
    assert first.returncode == 0, first.stderr
    course = tmp_path / "kdlab-course" / "notebooks"
    assert {path.name: path.read_bytes() for path in course.iterdir()} == {
        path.name: path.read_bytes() for path in (ROOT / "notebooks").iterdir() if path.is_file()
    }
    assert f"The course is in {course}. {len(NOTEBOOKS) + 1} files were put there." in first.stdout
    words, there = json.loads(first.stdout.split("started ")[1])
    assert f"--ServerApp.root_dir={course}" in words and "--LabApp.default_url=/lab/tree/00_start_here.ipynb" in words
    assert there == ["kdlab-course"]

    edited, gone = course / NOTEBOOKS[1].name, course / NOTEBOOKS[2].name
    edited.write_text("mine")
    gone.unlink()
    again = kdlab("lab", "--no-browser", "--notebook", "01")
    assert "1 files were put there" in again.stdout and f"differ: {edited.name}." in again.stdout
    assert edited.read_text() == "mine" and gone.exists()
    assert kdlab("run", "99").stderr.startswith("kdlab: no notebook is called '99'; there are 00_start_here")


@pytest.mark.parametrize("words", [("run", "00", "--profile", "smoke"), ("report",)])
def test_without_a_course_a_command_says_so_in_a_line_and_writes_nothing(kdlab, tmp_path, words):
    """In another project, which has a folder of notebooks, too."""
    another_project(tmp_path)
    before = files_in(tmp_path)
    answer = kdlab(*words)
    assert answer.returncode != 0 and answer.stdout == ""
    said = f"there is no course in {tmp_path} or above it; `kdlab lab` puts one into kdlab-course/ here"
    assert answer.stderr.splitlines() == [f"kdlab: {said}"]
    assert files_in(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_named(kdlab, tmp_path):
    (tmp_path / "kdlab-course").write_text("in the way")
    answer = kdlab("lab", "--no-browser")
    assert answer.returncode != 0 and "the course cannot be put into" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1 and "started" not in answer.stdout
