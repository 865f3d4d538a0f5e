"""How fast a student learns in the page, beside kdlab's loop and the tutorials', and how soon it obeys a slider."""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import loops

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import chromium  # noqa: E402

from kdlab import data  # noqa: E402

UNITS, STEPS = 30, 1_000
PLAYED = "#units=30&layers=1&images=3000"  # what the page opens with, and plays


def in_page(rounds: int, steps: int = STEPS, images: int = 60_000, presses: int = 40, seconds: float = 5.0) -> dict:
    """Return images a second of 2 x 30 units in the page and in both loops, in turn; and what a hand notices.

    images: of an epoch of the loops. presses: of the temperature's slider while it plays. seconds: of play.
    """
    if chromium.find() is None:
        print("in_page: NOT MEASURED, no Chromium was found")
        return {}
    from playwright.sync_api import sync_playwright

    from kdlab.widgets import in_page

    files, path = loops.torchvision_files(), in_page.write_page(Path(tempfile.mkdtemp()) / "student.html")
    x, y, *_ = data.load("mnist", "cpu")
    with sync_playwright() as playwright:
        program = playwright.chromium.launch(executable_path=chromium.find(), args=chromium.ARGS)
        page = program.new_context(offline=True, viewport={"width": 1180, "height": 900}).new_page()
        ready = _ready(page, path)
        ways = {
            "page": lambda: _steps(page, [UNITS, UNITS], loops.BATCH, steps),
            "page_1_x_30": lambda: _steps(page, [UNITS], 64, steps),
            "kdlab": lambda: loops.kdlab_loop(UNITS, x[:images], y[:images]),
            "tutorial": lambda: loops.tutorial_loop(UNITS, images, files, n_threads=1),
        }
        _steps(page, [UNITS], 64, steps // 4)  # warm
        rates = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                rates[name].append(way())
        row = {"units": UNITS, **{name: round(statistics.median(measured)) for name, measured in rates.items()}}
        row |= {"bytes": path.stat().st_size, "ready_s": ready, **_played(page, presses, seconds)}
        program.close()
    print(row)
    return row


def _ready(page, path: Path) -> float:
    """Seconds until the page can train; the median of three openings."""
    measured = []
    for _ in range(3):
        page.goto("about:blank")  # the same address with its # would not be opened again
        start = time.perf_counter()
        page.goto(path.as_uri() + PLAYED)
        page.wait_for_selector("[data-ready]")
        measured.append(time.perf_counter() - start)
    return round(statistics.median(measured), 2)


def _steps(page, hidden: list[int], batch_size: int, steps: int) -> float:
    """Images a second of so many steps, nothing drawn."""
    knobs = {"T": 4, "alpha": 0.9, "lr": 0.01, "smoothing": 0}
    what = {"steps": steps, "hidden": hidden, "seed": 0, "batch_size": batch_size, "knobs": knobs, "missing": []}
    seconds = page.evaluate(
        "what => new Promise((done) => {"
        " window.kdlab.listen((data) => { if (data.kind === 'bench') done(data.seconds) });"
        " window.kdlab.worker.postMessage({ bench: what }) })",
        what,
    )
    return batch_size * steps / seconds


def _played(page, presses: int, seconds: float) -> dict:
    """Images a second while it is drawn; milliseconds from a press on the slider to the step that used it."""
    page.click("[data-act=play]")
    page.wait_for_function("JSON.parse(document.getElementById('panel').dataset.shown).groups[1].number > 100")
    page.focus("[name=T]")
    page.evaluate(
        """() => { window.lags = []; let pressed = null, from = 0;
        const slider = document.querySelector('[name=T]');
        slider.addEventListener('input', () => { from = performance.now(); pressed = true; });
        let last = null;
        window.kdlab.listen((data) => { const T = data.groups?.[1].used.T;
          if (pressed && last !== null && T !== last) { window.lags.push(performance.now() - from); pressed = null; }
          last = T ?? last; }); }"""
    )
    for k in range(presses):
        page.keyboard.press("ArrowRight" if k % 2 else "ArrowLeft")
        page.wait_for_timeout(60)
    lags = sorted(page.evaluate("window.lags"))
    count = "() => [performance.now(), JSON.parse(document.getElementById('panel').dataset.shown).groups]"
    (t0, before), _, (t1, after) = page.evaluate(count), page.wait_for_timeout(1000 * seconds), page.evaluate(count)
    taken = sum(b["number"] - a["number"] for a, b in zip(before, after, strict=True))
    page.click("[data-act=play]")
    return {
        "played": round(64 * taken / (t1 - t0) * 1000),
        "turns_seen": len(lags),
        "turn_median_ms": round(statistics.median(lags), 1),
        "turn_p95_ms": round(lags[int(0.95 * (len(lags) - 1))], 1),
    }
