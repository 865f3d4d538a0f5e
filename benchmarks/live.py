"""How quickly the live panel of notebook 03 obeys while it trains, how fast it trains, and whether it tires.

python benchmarks/live.py                # a minute of a moved slider; prints, and writes build/live.json
python benchmarks/live.py --minutes 10 --keep    # the soak; writes results/live.json, which the README quotes
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import typer

from kdlab import machine

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks" / "03_live_distillation.ipynb"
sys.path.insert(0, str(ROOT / "tests"))
import jupyter  # noqa: E402

WATCH = """
import os, time, psutil
took = []  # when a step first used a turned knob
def watched(knobs, take):
    def both(step):
        n = len(knobs.turns)
        take(step)
        if len(knobs.turns) > n: took.append(time.time())
    return both
run = live.runs["A"]
run.knobs.take = watched(run.knobs, run.knobs.take)
"""
SPEED = """
import time
from kdlab import train
def fitted(seconds):
    start, steps, student = time.perf_counter(), 0, begin().student
    for _ in train.Training(student, (x, y, t), train.distilling(T=T, alpha=alpha),
                            epochs=1000, lr=lr, batch_size=64):
        steps += 1
        if time.perf_counter() - start > seconds: return steps / (time.perf_counter() - start)
"""
PRESSED = """panel => {
    window.pressed = []; window.echoed = [];
    const T = () => panel.querySelector('.kd-status').textContent.match(/T = ([0-9.]+)/)[1];
    panel.addEventListener('keydown', () => {
        const start = performance.now(), before = T();
        window.pressed.push(Date.now());
        const watch = new MutationObserver(() => {
            if (T() === before) return;
            window.echoed.push(performance.now() - start);
            watch.disconnect();
        });
        watch.observe(panel, {childList: true, subtree: true, characterData: true});
    }, true);
}"""


def main(minutes: float = 1.0, every: float = 1.0, keep: bool = False) -> None:
    """minutes: of play with the temperature turned each `every` seconds."""
    with jupyter.running(Path(tempfile.mkdtemp()), NOTEBOOK, {}) as (page, ask):
        result = measure(page, ask, minutes, every)
    out = ROOT / ("results" if keep else "build") / "live.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {out}")


def measure(page, ask, minutes: float, every: float, rounds: int = 3, seconds: float = 4.0) -> dict:
    """Measure both in a notebook that ran. rounds, seconds: how often and how long a speed is measured."""
    return {"machine": machine.describe(), **speed(page, ask, rounds, seconds), **hand(page, ask, minutes, every)}


def speed(page, ask, rounds: int, seconds: float) -> dict:
    """Steps a second with the panel open and playing, and of the bare loop in the same kernel, in turn."""
    bare, played = [], []
    ask(SPEED)
    for _ in range(rounds):
        bare.append(float(ask(f"print(fitted({seconds}))")))
        ask("live.reset(); live.play()")
        page.wait_for_timeout(1000)
        first, start = int(ask("print(live.runs['A'].number)")), time.perf_counter()
        page.wait_for_timeout(1000 * seconds)
        played.append((int(ask("print(live.runs['A'].number)")) - first) / (time.perf_counter() - start))
        ask("live.pause()")
    panel, loop = statistics.median(played), statistics.median(bare)
    print(f"steps a second: {panel:.0f} in the panel, {loop:.0f} bare: {panel / loop:.0%}")
    return {"panel_steps_a_second": round(panel), "bare_steps_a_second": round(loop), "share": round(panel / loop, 3)}


def hand(page, ask, minutes: float, every: float) -> dict:
    """Milliseconds from key press to the value in the status line, and to the first step that used it; per minute."""
    panel = page.locator(".kd-panel").first
    ask("live.reset()")
    ask(WATCH)
    ask("live.play()")
    page.wait_for_timeout(1000)
    handle = jupyter.slider(panel, "temperature")
    handle.scroll_into_view_if_needed()
    handle.focus()
    panel.evaluate(PRESSED)
    rows, presses, end = [], 0, time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        minute = min(end, time.monotonic() + 60)
        while time.monotonic() < minute:
            page.keyboard.press("ArrowLeft" if presses // 8 % 2 else "ArrowRight")
            presses += 1
            page.wait_for_timeout(1000 * every)
        rows.append(row(page, ask))
        print(rows[-1], flush=True)
    ask("live.pause()")
    return {"minutes": minutes, "presses": presses, "by_minute": rows}


def row(page, ask) -> dict:
    """What happened since the last row."""
    pressed, echoed = page.evaluate("[window.pressed.splice(0), window.echoed.splice(0)]")
    took = json.loads(ask("print(took); took.clear()"))
    obeyed = [1000 * after - before for before, after in zip(pressed, took, strict=False)]
    return {
        "presses": len(pressed),
        "turns": len(took),
        "echo_ms": spread(echoed),
        "obeyed_ms": spread(obeyed),
        "steps": int(ask("print(run.number)")),
        "kernel_mb": int(ask("print(psutil.Process().memory_info().rss // 2**20)")),
        "page_mb": int(page.evaluate("performance.memory.usedJSHeapSize / 2**20")),
    }


def spread(values: list[float]) -> dict:
    values = sorted(values)
    return {
        "median": round(statistics.median(values), 1),
        "p95": round(values[int(0.95 * (len(values) - 1))], 1),
        "most": round(values[-1], 1),
    }


if __name__ == "__main__":
    typer.run(main)
