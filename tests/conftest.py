"""What all tests share: an empty cache, no network but this machine, and a loud word on what did not run."""

import importlib.util
import os
from pathlib import Path

import chromium
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
OTHER_SEED = 7  # the notebooks' own is 0
BROWSER = chromium.find() is not None and importlib.util.find_spec("playwright") is not None


def make_course(folder: Path) -> Path:
    """Make `folder` what kdlab takes for a course; return its folder of notebooks."""
    notebooks = folder / "notebooks"
    notebooks.mkdir(exist_ok=True)
    (notebooks / "profiles.yaml").write_text("full: {all: {}}\n")
    if not (first := notebooks / "00_start_here.ipynb").exists():
        first.write_text('{"cells": [], "metadata": {"of": "kdlab"}, "nbformat": 4, "nbformat_minor": 5}')
    return notebooks


def with_sliders(path: Path) -> bool:
    """Whether test_browser.py runs this notebook and moves its sliders; the live panels have test_live_browser.py."""
    source = path.read_text(encoding="utf-8")
    return "widgets." in source and "widgets.Live" not in source


@pytest.fixture(scope="session", autouse=True)
def empty_cache(tmp_path_factory):
    """Nothing that an earlier run kept may help: cache and store begin empty and belong to this run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("KDLAB_STORE", "KDLAB_MIRROR", "KDLAB_DEVICE", "KDLAB_THREADS"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def offline(monkeypatch):
    """Child processes started in the test reach nothing but this machine."""
    path = os.pathsep.join(filter(None, [str(ROOT / "tests" / "offline"), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def pytest_collection_modifyitems(items):
    missing = pytest.mark.skip(reason="no Chromium, Chrome or Edge was found (KDLAB_CHROMIUM names one by hand)")
    for item in items:
        if item.get_closest_marker("browser") and chromium.find() is None:
            item.add_marker(missing)


def pytest_terminal_summary(terminalreporter):
    """A time per notebook, and every test that did not run, with its reason."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports if hasattr(report, "when")]
    times = [dict(r.user_properties) for r in reports if r.when == "call" and r.user_properties]
    times = sorted((row["notebook"], row["seconds"]) for row in times if "notebook" in row)
    if times:
        terminalreporter.section("seconds per notebook")
        for name, seconds in times:
            terminalreporter.write_line(f"{name:28} {seconds:6.1f}")
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("DID NOT RUN", sep="!", red=True, bold=True)
        for report in skipped:
            terminalreporter.write_line(f"{report.nodeid}: {report.longrepr[2]}", red=True)
