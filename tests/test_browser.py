"""Each notebook with a widget in a real JupyterLab: run all, move every slider by hand, see the pictures change."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import pytest
import torch
from conftest import NOTEBOOKS, OTHER_SEED, ROOT, with_sliders

pytest.importorskip("playwright", reason="playwright is not installed: pip install 'kdlab[test]'")
import jupyter

from kdlab import course, data, losses, metrics, teachers

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with jupyter.lab(tmp_path_factory.mktemp("lab"), "smoke", seed=OTHER_SEED) as address:
        yield address


@pytest.fixture
def page():
    """A browser for one test: what a crashed page or a kernel full of nets leaves does not reach the next."""
    with jupyter.browser() as page:
        yield page
        jupyter.end_kernel(page)


def errors(page) -> list[str]:
    return page.locator('[data-mime-type="application/vnd.jupyter.stderr"], .jp-mod-errored').all_inner_texts()


def changed(page, read, panel, before, seconds=10) -> bool:
    """Whether what is read from a panel becomes another, on a busy machine a little later."""
    end = time.monotonic() + seconds
    while read(panel) == before and time.monotonic() < end:
        page.wait_for_timeout(100)
    return read(panel) != before


@pytest.mark.parametrize("path", list(filter(with_sliders, NOTEBOOKS)), ids=lambda path: path.stem)
def test_every_slider_moves_its_picture(path, page, lab):
    jupyter.run_all(page, lab, path.name)
    assert not [text for text in errors(page) if "Error" in text]
    panels = jupyter.panels(page)
    wanted = sum(len(re.findall(r"^(?:\w+ = )?widgets\.(?!Curves)\w+\(", "".join(cell["source"]), re.M))
                 for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code")  # fmt: skip
    assert len(panels) == wanted
    for panel in panels:
        assert jupyter.shown(panel), "a panel without a picture"
        for handle in panel.locator(".noUi-handle").all():
            page.wait_for_timeout(300)  # until what the last slider moved has settled
            before = jupyter.shown(panel)
            handle.scroll_into_view_if_needed()
            handle.focus()
            for _ in range(3):
                page.keyboard.press("ArrowRight")
            if not changed(page, jupyter.shown, panel, before, seconds=2):  # a bias that is far off
                page.keyboard.press("Home")
            assert changed(page, jupyter.shown, panel, before), "the slider moved and the picture did not"
        for box in panel.locator("input[type=checkbox]").all():
            before = jupyter.drawn(panel)
            box.click()
            assert changed(page, jupyter.drawn, panel, before), "the box was ticked and the picture stayed"
    assert page.refused == [], "the page asked for something from outside"


def test_the_temperature_slider_dragged_by_mouse_shows_what_torch_computes(page, lab):
    """The first notebook's slider: the bars are torch's softmax of the same logits at the T the slider says."""
    jupyter.run_all(page, lab, "00_start_here.ipynb")
    panel = jupyter.panels(page)[0]
    handle = jupyter.slider(panel, "temperature")
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 5, steps=8)
    page.mouse.up()
    page.wait_for_timeout(400)
    T = float(panel.locator(".widget-readout").first.inner_text())
    assert T > 5, "dragged to the right from 4"
    bars = next(numbers for numbers in jupyter.shown(panel) if "series" in numbers)
    mnist = data.load("mnist")
    logits = metrics.logits(teachers.mnist()[0], mnist.x_test)
    sure = torch.softmax(logits, dim=1)[:, 2].where(mnist.y_test == 2, 0)
    expected = losses.softened(logits[int((sure - 0.98).abs().argmin())], T)
    curves = page.locator("[data-shown*='alone, seed']")
    assert curves.count() == 1, "the picture of the students while they learn"
    torch.testing.assert_close(torch.tensor(bars["series"][0]["values"]), expected, rtol=0.02, atol=2e-3)


def test_an_exported_page_moves_without_kernel_and_network(page, tmp_path):
    """Opened as a file, with everything else refused: the slider still moves the bars, and they are torch's."""
    source = """import torch
from kdlab import widgets
widgets.temperature(torch.tensor([4.0, 2.0, -1.0]), ["a", "b", "c"], T=4.0)"""
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    formula = "$$\\frac{1}{T^2}$$ and `$not this$`"
    cells = [nbformat.v4.new_markdown_cell(formula), nbformat.v4.new_code_cell(source)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=spec), tmp_path / "small.ipynb")
    assert not course.execute(tmp_path / "small.ipynb", tmp_path / "done.ipynb", {})
    page.goto(course.to_html(tmp_path / "done.ipynb", tmp_path / "html").as_uri())
    page.locator("[data-shown]").first.wait_for(timeout=30_000)
    assert page.locator("math mfrac").count() == 1
    assert "$not this$" in page.locator("code").all_inner_texts()
    panel = page.locator(".kd-panel")
    handle = jupyter.slider(panel, "temperature")
    handle.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    values = next(numbers for numbers in jupyter.shown(panel) if "series" in numbers)["series"][0]["values"]
    expected = torch.softmax(torch.tensor([4.0, 2.0, -1.0]) / (4 * 10**0.3), dim=0)
    torch.testing.assert_close(torch.tensor(values), expected, rtol=1e-3, atol=1e-4)
    assert page.refused == [], "the page asked for something from outside"


def test_kdlab_lab_serves_the_first_notebook(tmp_path):
    """`kdlab lab` as `make lab` calls it on a machine without a screen: says its address, stays, serves, ends."""
    environ = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    process = subprocess.Popen([sys.executable, "-m", "kdlab.cli", "lab", "--port", "18763"], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, env=environ, cwd=ROOT)  # fmt: skip
    try:
        said, end = "", time.monotonic() + 60
        while "token=" not in said and time.monotonic() < end:
            said += process.stdout.readline()
        address = re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/lab\S*token=\w+", said).group()
        assert "00_start_here.ipynb" in address
        while time.monotonic() < end:  # it says its address a moment before it listens
            with contextlib.suppress(urllib.error.URLError):
                assert urllib.request.urlopen(address, timeout=20).status == 200
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
