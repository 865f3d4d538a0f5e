"""Panels in a real Chromium: every kind in a real JupyterLab, every notebook's as a page; slider by slider, by hand."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
import smoke
import torch
from conftest import NOTEBOOKS, ROOT

pytest.importorskip("playwright", reason="playwright is not installed: pip install 'kdlab[test]'")
import gallery
import jupyter

from kdlab import course, data, losses, metrics, teachers, widgets

sys.path.insert(0, str(ROOT / "benchmarks"))
import sliders

FIRST = ROOT / "notebooks" / "00_start_here.ipynb"
SPEC = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
pytestmark = pytest.mark.browser
in_the_lab = pytest.mark.xdist_group("lab")


IN_PAGE = """from kdlab import live, widgets
from kdlab.widgets import in_page
digits = in_page.mnist(n=400, n_test=200)
panel = widgets.InPage(digits, images=400, units=20)
panel"""


class Lab(NamedTuple):
    """A JupyterLab that runs."""

    address: str
    folder: Path


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab with the first notebook and the gallery: a notebook with one panel of each kind."""
    folder = tmp_path_factory.mktemp("lab")
    cells = [
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); from gallery import PANELS",
        *(f"PANELS[{name!r}]()" for name in gallery.PANELS),
    ]
    panels = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)), metadata=SPEC)
    nbformat.write(panels, folder / "gallery.ipynb")
    in_page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(IN_PAGE)], metadata=SPEC)
    nbformat.write(in_page, folder / "in_page.ipynb")
    notebooks = {FIRST: smoke.parameters(FIRST), folder / "gallery.ipynb": {}, folder / "in_page.ipynb": {}}
    with jupyter.lab(folder, notebooks) as address:
        yield Lab(address, folder)


@pytest.fixture
def page():
    """A browser for one test: what a crashed page or a kernel full of nets leaves does not reach the next."""
    with jupyter.browser() as page:
        yield page
        jupyter.end_kernel(page)


def errors(page) -> list[str]:
    return page.locator('[data-mime-type="application/vnd.jupyter.stderr"], .jp-mod-errored').all_inner_texts()


def changed(page, read, panel, before, seconds=30) -> bool:
    """Whether what is read from a panel becomes another, on a busy machine a little later."""
    end = time.monotonic() + seconds
    while read(panel) == before and time.monotonic() < end:
        page.wait_for_timeout(100)
    return read(panel) != before


def move_every_slider(page, panel) -> int:
    """Move each slider of a panel, see the picture change, and return how many there are."""
    assert jupyter.shown(panel), "a panel without a picture"
    handles = panel.locator(".noUi-handle").all()
    for handle in handles:
        before = jupyter.settled(panel)
        handle.scroll_into_view_if_needed()
        handle.focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        if not changed(page, jupyter.shown, panel, before, seconds=2):  # a bias that is far off
            page.keyboard.press("Home")
        assert changed(page, jupyter.shown, panel, before), "the slider moved and the picture did not"
    return len(handles)


def tick_every_box(page, panel) -> None:
    """Tick each box of a panel and see the picture change."""
    for box in panel.locator("input[type=checkbox]").all():
        before = jupyter.drawn(panel)
        box.click()
        assert changed(page, jupyter.drawn, panel, before), "the box was ticked and the picture stayed"


@in_the_lab
def test_every_kind_of_panel_obeys_its_sliders_and_boxes_in_jupyterlab(page, lab):
    jupyter.run_all(page, lab.address, "gallery.ipynb")
    moved = {}
    for name, panel in zip(gallery.PANELS, jupyter.panels(page, len(gallery.PANELS)), strict=True):
        moved[name] = move_every_slider(page, panel)
        tick_every_box(page, panel)
    assert [name for name, n in moved.items() if n == 0] == ["Stack"]
    assert errors(page) == page.refused == []


def test_the_gallery_has_every_panel_there_is():
    assert set(gallery.PANELS) == {name for name in widgets.__all__ if name.islower()} - {"or_in_page"} | {"Stack"}


def panels_of(path: Path) -> int:
    """How many panels the notebook's cells make."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    made = r"^(?:\w+ = )?widgets\.(?!Curves|InPage|or_in_page)\w+\("
    return sum(len(re.findall(made, "".join(cell["source"]), re.M)) for cell in cells)


# How many of a notebook's pictures need a kernel on its page: images that Python chooses, a pad, a stack to tick.
KERNEL = {"01": 2, "05": 2, "16": 1}


@pytest.mark.parametrize("path", list(filter(jupyter.has_sliders, NOTEBOOKS)), ids=lambda path: path.stem)
def test_every_slider_of_a_notebook_moves_its_picture_on_its_page(path, page, tmp_path, tmp_path_factory):
    """The notebook as it is handed out, without kernel and network: what needs a kernel, a Stack, is only looked at."""
    notebook, problem, _ = smoke.ran(path, tmp_path_factory)
    assert not problem
    page.goto(course.to_html(notebook, tmp_path).as_uri())
    for panel in jupyter.panels(page, panels_of(path)):
        if move_every_slider(page, panel):
            tick_every_box(page, panel)
    needy = page.locator(".kd-needs-kernel:visible")
    said = "el => getComputedStyle(el, '::before').content.includes('running notebook')"
    assert all(each.evaluate(said) for each in needy.all()), "what stands still without a kernel says so"
    assert needy.count() == KERNEL.get(path.stem[:2], 0)
    assert not [text for text in errors(page) if "Error" in text]
    assert page.refused == [], "the page asked for something from outside"


@in_the_lab
def test_the_first_notebooks_slider_dragged_by_mouse_shows_what_torch_computes_and_is_measured(page, lab):
    """In JupyterLab: the bars are torch's softmax of the same logits at the T that the slider says."""
    jupyter.run_all(page, lab.address, "00_start_here.ipynb")
    panel = jupyter.panels(page)[0]
    handle = jupyter.slider(panel, "temperature")
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 5, steps=8)
    page.mouse.up()
    bars = next(numbers for numbers in jupyter.settled(panel) if "series" in numbers)
    T = float(panel.locator(".widget-readout").first.inner_text())
    assert T > 5, "dragged to the right from 4"
    mnist = data.load("mnist")
    logits = metrics.logits(teachers.mnist(), mnist.x_test)
    sure = torch.softmax(logits, dim=1)[:, 2].where(mnist.y_test == 2, 0)
    expected = losses.softened(logits[int((sure - 0.98).abs().argmin())], T)
    curves = page.locator("[data-shown*='alone, seed']")
    assert curves.count() == 1, "the picture of the students while they learn"
    torch.testing.assert_close(torch.tensor(bars["series"][0]["values"]), expected, rtol=0.02, atol=2e-3)
    (row,) = sliders.panels(page, FIRST.stem, presses=4)
    assert (row["slider"], row["presses"], row["seen"]) == ("temperature T", 4, 4) and row["median_ms"] > 0


def test_an_exported_page_moves_without_kernel_and_network(page, tmp_path):
    """Opened as a file, with everything else refused: the slider still moves the bars, and they are torch's."""
    source = """import torch
from kdlab import widgets
widgets.temperature(torch.tensor([4.0, 2.0, -1.0]), ["a", "b", "c"], T=4.0)"""
    formula = "$$\\frac{1}{T^2}$$ and `$not this$`"
    cells = [nbformat.v4.new_markdown_cell(formula), nbformat.v4.new_code_cell(source)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=SPEC), tmp_path / "small.ipynb")
    assert not course.execute(tmp_path / "small.ipynb", tmp_path / "done.ipynb", {})
    page.goto(course.to_html(tmp_path / "done.ipynb", tmp_path / "html").as_uri())
    page.locator("[data-shown]").first.wait_for()
    assert page.locator("math mfrac").count() == 1
    assert "$not this$" in page.locator("code").all_inner_texts()
    panel = page.locator(".kd-panel")
    handle = jupyter.slider(panel, "temperature")
    handle.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    values = next(numbers for numbers in jupyter.settled(panel) if "series" in numbers)["series"][0]["values"]
    expected = torch.softmax(torch.tensor([4.0, 2.0, -1.0]) / (4 * 10**0.3), dim=0)
    torch.testing.assert_close(torch.tensor(values), expected, rtol=1e-3, atol=1e-4)
    assert page.refused == [], "the page asked for something from outside"


def test_kdlab_lab_serves_the_first_notebook(tmp_path):
    """`kdlab lab` as `make lab` calls it on a machine without a screen: says its address, stays, serves, ends."""
    environ = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    process = subprocess.Popen(
        [sys.executable, "-m", "kdlab.cli", "lab", "--port", "18763"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environ,
        cwd=ROOT,
    )
    try:
        said, end = "", time.monotonic() + 300
        while "token=" not in said and time.monotonic() < end:
            said += process.stdout.readline()
        address = re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/lab\S*token=\w+", said).group()
        assert "00_start_here.ipynb" in address
        while time.monotonic() < end:  # it says its address a moment before it listens
            with contextlib.suppress(urllib.error.URLError):
                assert urllib.request.urlopen(address, timeout=120).status == 200
                break
            time.sleep(0.2)
        else:
            pytest.fail("the address it said does not answer")
        assert process.poll() is None, "it stays"
    finally:
        process.terminate()
        process.wait(20)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=5)  # and leaves no server behind


@in_the_lab
def test_the_student_in_the_page_learns_in_jupyterlab_and_its_log_comes_to_python(page, lab):
    jupyter.run_all(page, lab.address, "in_page.ipynb")
    panel = page.locator(".kd-page")
    page.locator(".jp-CodeCell").last.scroll_into_view_if_needed()  # it begins when it is first seen
    page.wait_for_selector("[data-ready]")
    for _ in range(3):
        panel.locator("[data-act=step]").click()
    page.wait_for_function("JSON.parse(document.querySelector('.kd-page').dataset.shown).groups[1].number === 3")
    panel.locator("[data-act=save]").click()
    with jupyter.kernel(page, lab.folder) as ask:
        jupyter.until(lambda: ask("print(panel.log is not None)") == "True")
        replayed = "run = in_page.run(panel.log, digits['train']); print(live.replay(panel.log, run).number)"
        assert ask(replayed) == "3"


def test_a_page_without_a_kernel_shows_the_student_in_the_page_instead_of_the_live_panel(
    page, tmp_path, tmp_path_factory
):
    """Notebook 03 as it is handed out: opened as a file, with everything else refused."""
    path = next(path for path in NOTEBOOKS if path.name.startswith("03"))
    notebook, problem, _ = smoke.ran(path, tmp_path_factory)
    assert not problem
    page.goto(course.to_html(notebook, tmp_path).as_uri())
    page.wait_for_function("document.querySelectorAll('.kd-with-kernel').length === 1")
    assert not page.locator(".kd-with-kernel").is_visible()
    page.locator(".kd-without-kernel").scroll_into_view_if_needed()
    panel = page.locator(".kd-page")
    page.wait_for_selector("[data-ready]")
    state = "JSON.parse(document.querySelector('.kd-page').dataset.shown)"
    page.wait_for_function(f"{state}.groups.length === 3 && {state}.groups[2].number === 200")
    alone, a, b = page.evaluate(f"{state}.groups")
    assert [group["number"] for group in (alone, a, b)] == [200] * 3, "it opens in the middle of two runs"
    assert (a["used"]["T"], a["used"]["alpha"], a["used"]["lr"]) == (4, 0.9, 0.01), "where the live panel begins"
    assert b["used"]["T"] == 0.3 and panel.locator("input[name=T]").evaluate("el => 10 ** el.value") < 0.31
    panel.locator("[data-act=step]").click()
    page.wait_for_function(f"{state}.groups[1].number === 201")
    assert page.refused == [], "the page asked for something from outside"
