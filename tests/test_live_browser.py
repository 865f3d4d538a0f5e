"""Notebook 03 in a real JupyterLab: play, turn, fork, pause, draw, save, replay, interrupt, close."""

import json
import re
import sys
import time

import pytest
import torch
from conftest import ROOT

pytest.importorskip("playwright", reason="playwright is not installed: pip install 'kdlab[test]'")
import jupyter

from kdlab import course

sys.path.insert(0, str(ROOT / "benchmarks"))
import live as live_benchmark

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("live")]
WORKERS = "import threading; print(sum(t.name.startswith('kdlab-play') for t in threading.enumerate()))"


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """The page with the notebook that ran, without the cells that need no panel, and its kernel."""
    folder = tmp_path_factory.mktemp("live")
    copy = course.for_projector(live_benchmark.NOTEBOOK, folder / "copy")
    with jupyter.running(folder, copy, course.profile(live_benchmark.NOTEBOOK, "smoke")) as (page, ask):
        yield page, ask


@pytest.fixture
def live(opened):
    """The panel with one run, not begun, and the kernel; afterwards nothing plays."""
    page, ask = opened
    ask("live.pause()")
    page.evaluate("""() => {
        const notebook = window.jupyterapp.shell.currentWidget.content;
        const source = (cell) => cell.model.sharedModel.getSource();
        notebook.activeCellIndex = notebook.widgets.findIndex((cell) => source(cell).includes("widgets.Live("));
        return window.jupyterapp.commands.execute("notebook:run-cell");
    }""")
    panel = page.locator(".kd-panel").first
    jupyter.until(lambda: ask("print(live.player.seen is not None)") == "True")  # the new panel is on the page
    yield page, panel, ask
    ask("live.pause()")
    jupyter.until(lambda: ask(WORKERS) == "0")


def status(panel):
    return panel.locator(".kd-status").inner_text()


def press(panel, name):
    panel.get_by_role("button", name=re.compile(rf"\b{name}")).click()


def press_keys(page, panel, slider, key, times):
    handle = jupyter.slider(panel, slider)
    handle.scroll_into_view_if_needed()
    handle.focus()
    for _ in range(times):
        page.keyboard.press(key)
        page.wait_for_timeout(60)


def number(ask, run="A"):
    return int(ask(f"print(live.runs['{run}'].number)"))


def lines(panel):
    return {series["name"] for picture in jupyter.shown(panel) for series in picture.get("series", [])}


def test_a_hand_on_the_slider_while_it_trains_is_logged_with_its_step_and_cells_run_meanwhile(live):
    page, panel, ask = live
    press(panel, "Play")
    jupyter.until(lambda: number(ask) > 50)  # each question is a cell that runs while it trains
    before = number(ask)
    press_keys(page, panel, "temperature", "ArrowRight", 6)
    jupyter.until(lambda: "T = 7.981" in status(panel))  # 4 × 10^(6 × 0.05)
    press_keys(page, panel, "weight alpha", "ArrowLeft", 3)
    jupyter.until(lambda: "alpha = 0.87" in status(panel))
    press(panel, "Pause")
    jupyter.until(lambda: ask(WORKERS) == "0")
    at = number(ask)
    log = json.loads(ask("import json; print(json.dumps(live.runs['A'].log()))"))
    assert before <= log["turns"][0]["step"] <= log["turns"][-1]["step"] <= at
    hotter = [turn["T"] for turn in log["turns"] if "T" in turn]
    assert hotter == sorted(hotter) and hotter[-1] == pytest.approx(4 * 10**0.3, rel=1e-6)
    assert [turn["alpha"] for turn in log["turns"] if "alpha" in turn][-1] == pytest.approx(0.87)
    time.sleep(0.3)
    assert number(ask) == at and "paused" in status(panel)
    same = ask("print(knobs.fingerprint(knobs.replay(live.runs['A'].log(), begin()).student))")
    assert same == log["weights"]


def test_single_steps_and_reset(live):
    _, panel, ask = live
    for i in range(1, 4):
        press(panel, "Step")
        jupyter.until(lambda i=i: f"step {i}" in status(panel))
    assert number(ask) == 3
    press(panel, "Reset")
    jupyter.until(lambda: "step 0" in status(panel))
    assert ask("print(knobs.fingerprint(live.runs['A'].student) == knobs.fingerprint(begin().student))") == "True"


def test_a_fork_goes_its_own_way_beside_its_parent_and_its_curve_is_drawn(live):
    page, panel, ask = live
    press(panel, "Play")
    jupyter.until(lambda: number(ask) > 50)
    press(panel, "Fork")
    jupyter.until(lambda: panel.locator(".widget-toggle-button").count() == 2)
    press_keys(page, panel, "temperature", "ArrowLeft", 20)
    forked = number(ask, "B")
    jupyter.until(lambda: number(ask, "B") > forked + 100 and number(ask, "A") > forked + 100)
    press(panel, "Pause")
    jupyter.until(lambda: ask(WORKERS) == "0")
    assert {"A: student", "B: student", "teacher", "alone"} <= lines(panel)
    jupyter.until(lambda: {"A: kd", "B: kd"} <= lines(panel))
    assert float(ask("print(live.runs['B'].knobs.wanted()['T'])")) == pytest.approx(0.398, abs=0.002)
    assert float(ask("print(live.runs['A'].knobs.wanted()['T'])")) == 4.0
    assert abs(number(ask, "A") - number(ask, "B")) <= 1, "they keep step"


def test_a_saved_log_that_is_loaded_and_played_comes_to_the_same_weights(live, tmp_path):
    page, panel, ask = live
    press(panel, "Play")
    jupyter.until(lambda: number(ask) > 30)
    press_keys(page, panel, "learning rate", "ArrowRight", 4)
    jupyter.until(lambda: number(ask) > 200)
    press(panel, "Pause")
    box = panel.locator("input[type=text]").last
    box.fill(str(tmp_path / "mine.json"))
    box.press("Enter")
    press(panel, "Save log")
    jupyter.until(lambda: "steps saved in" in status(panel))
    assert {path.name for path in tmp_path.iterdir()} == {"mine.json", "mine.safetensors"}
    with page.expect_file_chooser() as chooser:
        press(panel, "Load log")
    chooser.value.set_files(tmp_path / "mine.json")
    jupyter.until(lambda: panel.locator(".widget-toggle-button").count() == 2)
    panel.locator("input[type=checkbox]").first.click()  # A stays where it is
    press(panel, "Play")
    jupyter.until(lambda: "the same weights, bit by bit" in panel.inner_text())
    assert number(ask, "B") == json.loads((tmp_path / "mine.json").read_text())["steps"] == number(ask, "A")


def test_a_one_that_is_drawn_is_read_by_the_teacher_as_it_is_by_torch(live):
    page, *_ = live
    pad = page.locator(".kd-panel").last
    paper = pad.locator("canvas.kd-pad")
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    page.mouse.move(box["x"] + 0.52 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.48 * box["width"], box["y"] + 0.8 * box["height"], steps=12)
    page.mouse.up()
    page.wait_for_timeout(500)
    bars = next(picture for picture in jupyter.shown(pad) if len(picture.get("series", [])) == 2)
    seen = torch.tensor(bars["series"][0]["values"])
    assert int(seen.argmax()) == 1 and float(seen.sum()) == pytest.approx(1, abs=0.01)


def test_an_error_in_the_objective_shows_in_the_panel_with_its_own_line(live):
    _, panel, ask = live
    ask("live.runs['A'].training.objective = lambda model, x, y, t: {'ce': x.sum() / nothing}")
    press(panel, "Play")
    jupyter.until(lambda: "NameError: name 'nothing' is not defined" in status(panel))
    assert ask("print(live.player.state, 'nothing' in live.pulse.problem)") == "error True"
    jupyter.until(lambda: ask(WORKERS) == "0")


def test_the_interrupt_button_pauses_and_a_cell_that_runs_again_leaves_no_worker(live):
    page, panel, ask = live
    press(panel, "Play")
    jupyter.until(lambda: number(ask) > 20)
    page.evaluate("void window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
    jupyter.until(lambda: "paused" in status(panel))
    jupyter.until(lambda: ask(WORKERS) == "0")
    press(panel, "Play")
    jupyter.until(lambda: ask(WORKERS) == "1")
    ask("live = widgets.Live(begin(), (x_test, y_test), names, alone=alone)")
    jupyter.until(lambda: ask(WORKERS) == "0")


def test_the_panel_is_measured_while_it_plays(live):
    page, _, ask = live
    result = live_benchmark.measure(page, ask, minutes=0.05, every=0.2, rounds=1, seconds=0.5)
    (minute,) = result["by_minute"]
    assert result["panel_steps_a_second"] > 0 and result["bare_steps_a_second"] > 0
    assert 0 < minute["turns"] <= minute["presses"] == result["presses"] and minute["steps"] > 0
    assert minute["echo_ms"]["median"] > 0 and minute["obeyed_ms"]["median"] > 0


def test_a_closed_page_ends_the_training_soon(live):
    page, panel, ask = live
    press(panel, "Play")
    jupyter.until(lambda: number(ask) > 20)
    page.goto("about:blank")
    jupyter.until(lambda: ask(WORKERS) == "0")  # after ten seconds' grace, in case it was only loaded anew
    assert "no page shows this" in ask("print(live.player.state)")
