"""`kdlab lab --app`: a notebook without its code, for a projector."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from kdlab import cli, course

ROOT = Path(__file__).parent.parent
LIVE = ROOT / "notebooks" / cli.LIVE


def test_the_copy_leaves_out_what_is_set_aside_and_goes_nowhere_else(tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "of_another_day.ipynb").touch()
    copy = course.for_projector(LIVE, tmp_path / "app")
    kept, whole = (nbformat.read(path, as_version=4).cells for path in (copy, LIVE))
    assert [cell.id for cell in kept] == [cell.id for cell in whole if "aside" not in cell.metadata.get("tags", [])]
    assert {"alone", "pad"} < {cell.id for cell in kept} and "anneal" not in {cell.id for cell in kept}
    assert not any(".ipynb" in cell.source for cell in kept if cell.cell_type == "markdown")
    assert sorted(path.name for path in copy.parent.iterdir()) == [LIVE.name]


@pytest.mark.notebook
def test_the_copy_runs_by_itself(tmp_path):
    """What was left out is not missed by a cell that stayed."""
    copy = course.for_projector(LIVE, tmp_path / "app")
    assert course.execute(copy, tmp_path / "out.ipynb", {"n_train": 300, "n_test": 200, "steps": 60}) == ""


def test_two_apps_at_once_keep_their_files(monkeypatch):
    """The second does not sweep away what the first one serves."""
    monkeypatch.setenv("JUPYTER_PATH", "")  # put back afterwards
    first = Path(cli._app(LIVE)[3])
    monkeypatch.setattr(cli.os, "getpid", lambda: 1)
    second = Path(cli._app(LIVE)[3])
    assert first != second and first.exists() and second.exists()


def test_without_voila_it_says_what_brings_it(monkeypatch):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    result = CliRunner().invoke(cli.app, ["lab", "--app"])
    assert isinstance(result.exception, ValueError) and "pip install voila" in str(result.exception)


def test_an_unknown_notebook_is_named_before_anything_starts():
    result = CliRunner().invoke(cli.app, ["lab", "--app", "--notebook", "99"])
    assert isinstance(result.exception, ValueError) and "'99'" in str(result.exception)


def obeys_ctrl_c():
    """A shell that starts the tests in the background has them, and what they start, ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The app as a teacher starts it, without network; its page, and its process."""
    pytest.importorskip("playwright", reason="playwright is not installed: pip install 'kdlab[test]'")
    import jupyter

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = os.environ | {"PYTHONPATH": str(ROOT / "tests" / "offline")}
    log = tmp_path_factory.mktemp("app") / "log"
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "kdlab", "lab", "--app", "--no-browser", f"--port={port}"],
            stdout=out,
            stderr=out,
            env=environ,
            preexec_fn=obeys_ctrl_c if os.name == "posix" else None,
        )
    try:
        with jupyter.browser() as page:
            page.set_viewport_size({"width": 1920, "height": 1080})
            end = time.monotonic() + 300
            while time.monotonic() < end:
                assert server.poll() is None, log.read_text()
                with contextlib.suppress(Exception):
                    page.goto(f"http://127.0.0.1:{port}/")
                    break
                time.sleep(0.3)
            page.locator(".kd-panel").nth(1).wait_for(timeout=600_000)  # the last cell's
            yield page, server
    finally:
        server.terminate()
        server.wait(120)


def status(page):
    return page.locator(".kd-status").first.text_content()


def number(page):
    """The step that the status line speaks of."""
    return int(re.search(r"step ([\d,]+)", status(page))[1].replace(",", ""))


def taken_for(pad, net):
    """The class that a net gives most to, as the pad's bars show it."""
    import jupyter

    for picture in jupyter.shown(pad):
        for series in picture.get("series", []):
            if series["name"] == net and max(series["values"]) > 0:
                return series["values"].index(max(series["values"]))
    return None


@pytest.mark.browser
@pytest.mark.xdist_group("live")
def test_the_app_shows_panels_and_no_code_and_fetches_nothing(served):
    page, _ = served
    assert page.locator("h1").first.text_content().startswith("03")
    assert page.locator(".cm-editor, .CodeMirror, .highlight").count() == 0 and "import torch" not in page.content()
    assert page.locator("mjx-container, math").count() > 0  # formulas are set, not shown as dollars
    assert page.refused == []
    middle = page.locator(".kd-panel").first.bounding_box()
    assert middle["width"] > 1400 and abs(middle["x"] + middle["width"] / 2 - 960) < 60  # large, in the middle


@pytest.mark.browser
@pytest.mark.xdist_group("live")
def test_the_app_plays_and_obeys_a_mouse_and_a_pen(served):
    import jupyter

    page, _ = served
    panel = page.locator(".kd-panel").first
    panel.get_by_role("button", name=re.compile("Play")).click()
    jupyter.until(lambda: "playing" in status(page) and number(page) > 450)  # it opens after 400 steps
    target = panel.locator(".widget-inline-hbox").filter(has_text="temperature").locator(".noUi-target")
    target.scroll_into_view_if_needed()
    track = target.bounding_box()
    page.mouse.click(track["x"] + 0.75 * track["width"], track["y"] + track["height"] / 2)
    jupyter.until(lambda: "T = 0.3 " not in status(page))
    T = float(re.search(r"T = ([\d.]+)", status(page))[1])
    assert 8 < T < 40, "three quarters of the way from 0.1 to 100 is 17.8"
    panel.get_by_role("button", name=re.compile("Pause")).click()
    jupyter.until(lambda: "paused" in status(page))
    board = page.locator("canvas.kd-pad")
    board.scroll_into_view_if_needed()
    box = board.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 0.8 * box["height"], steps=10)
    page.mouse.up()
    jupyter.until(lambda: taken_for(page.locator(".kd-panel").nth(1), "teacher") == 1)
    ink = board.evaluate("""board => {
        const {data, width} = board.getContext("2d").getImageData(0, 0, board.width, board.height);
        let sum = 0, n = 0;
        for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 128) { sum += (i / 4) % width; n++; }
        return [n, sum / n / width];
    }""")
    assert ink[0] > 20 and abs(ink[1] - 0.5) < 0.05, "the line is where the pen was"


@pytest.mark.browser
@pytest.mark.xdist_group("live")
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ending_the_app_ends_its_kernel(served):
    import psutil

    _, server = served
    kernels = psutil.Process(server.pid).children(recursive=True)
    assert kernels
    server.send_signal(signal.SIGINT)
    server.wait(120)
    _, alive = psutil.wait_procs(kernels, timeout=120)
    assert not alive and not list((ROOT / "build" / "app" / str(server.pid)).glob("voila_*"))
