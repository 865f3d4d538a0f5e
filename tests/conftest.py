"""What all tests share: an empty cache, no network but this machine, and a loud word on what did not run."""

import os
from collections import Counter
from pathlib import Path

import chromium
import pytest

# Before torch is imported, here and in what the tests start: on a busy machine two threads spend most of their time
# waiting for each other (seen: 124 s for what takes 29 s on one).
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
OTHER_SEED = 7  # the notebooks' own is 0


def make_course(folder: Path) -> Path:
    """Make `folder` what kdlab takes for a course; return its folder of notebooks."""
    notebooks = folder / "notebooks"
    notebooks.mkdir(exist_ok=True)
    (notebooks / "profiles.yaml").write_text("full: {}\n")
    if not (first := notebooks / "00_start_here.ipynb").exists():
        first.write_text('{"cells": [], "metadata": {"of": "kdlab"}, "nbformat": 4, "nbformat_minor": 5}')
    return notebooks


@pytest.fixture(scope="session", autouse=True)
def empty_cache(tmp_path_factory):
    """Nothing that an earlier run kept may help: cache and store begin empty and belong to this run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in (
            "KDLAB_STORE",
            "KDLAB_MIRROR",
            "KDLAB_THREADS",
            "KDLAB_WORKERS",
            "KDLAB_BACKEND",
            "KDLAB_SCHEDULER",
        ):
            patch.delenv(name, raising=False)
        patch.setenv("KDLAB_DEVICE", "cpu")  # also where there is a graphics processor: what is tested is the same
        yield


@pytest.fixture(scope="module")
def one_thread():
    """Many small models: one thread is faster than two."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def offline(monkeypatch):
    """Child processes started in the test reach nothing but this machine."""
    cut_off(monkeypatch)


def cut_off(patch: pytest.MonkeyPatch) -> None:
    """Let child processes reach nothing but this machine, until the patch is undone."""
    path = os.pathsep.join(filter(None, [str(ROOT / "tests" / "offline"), os.environ.get("PYTHONPATH")]))
    patch.setenv("PYTHONPATH", path)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        patch.delenv(name, raising=False)


def pytest_collection_modifyitems(items):
    missing = pytest.mark.skip(reason="no Chromium, Chrome or Edge was found (KDLAB_CHROMIUM names one by hand)")
    for item in items:
        if item.get_closest_marker("browser") and chromium.find() is None:
            item.add_marker(missing)


def pytest_terminal_summary(terminalreporter):
    """A time per notebook, the ten slowest tests, and every test that did not run, with its reason."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports if hasattr(report, "when")]
    _say_slowest(terminalreporter, reports)
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


def _say_slowest(terminalreporter, reports, n=10):
    """The n tests that took longest, fixtures included; a fixture's time counts for the test that had it made."""
    seconds = Counter()
    for report in reports:
        seconds[report.nodeid] += getattr(report, "duration", 0)  # a file that cannot be collected has none
    if seconds:
        terminalreporter.section(f"the {n} slowest tests, of {sum(seconds.values()):.0f} s in all")
        for name, duration in seconds.most_common(n):
            terminalreporter.write_line(f"{duration:7.1f} s  {name}")
