"""The live panel: play, pause, step, reset, fork and compare runs whose knobs a person turns while they train."""

import html
import json
import time
from pathlib import Path
from typing import Any

import ipywidgets as w
import torch
from torch import Tensor

from kdlab import disk, metrics, store
from kdlab.live import player
from kdlab.live.knobs import Knob, Run, fingerprint, follow

from . import live_view
from .controls import NEEDS_KERNEL, WIDE, knob_slider, put, was_moved

LETTERS = "ABCDEF"  # one a run; six lines are as many as one can tell apart
SPARE = 40  # the errors are measured so seldom that it takes a fortieth of the time
SAME = "the same weights, bit by bit"
OTHER = "other weights than the log's: another machine, other versions, or a hand on a knob"
FREE = {"overflow": "hidden", "width": "100%"}


class Live(w.VBox):
    """A panel over `run` (and what is forked from it): knobs, buttons, curves, soft targets, confusions, a log.

    test: (x, y), the cases on which students are measured while they train; a thousand or two are plenty.
    teacher: its logits of the test cases, (n, classes). alone: [(step, errors)] of a student to compare with, as
    `live.learning_curve` returns them. shown: numbers of the test cases whose soft targets are drawn, by
    default the first four. texts: what those say, one for each of `shown`, where the cases are texts.
    A knob called bias, one value a class, is added to the student's logits wherever they are looked at here.

    In a notebook's kernel the buttons act while it stays free for other cells. Elsewhere, `advance(n)` takes steps.
    """

    def __init__(
        self,
        run: Run,
        test: tuple[Tensor, Tensor],
        names: list[str],
        *,
        teacher: Tensor | None = None,
        alone: list[tuple[int, float]] = (),
        shown: list[int] | None = None,
        texts: list[str] = (),
    ):
        self.runs, self.texts = {"A": run}, list(texts)
        self.x, self.y, self.names, self.teacher = *test, list(names), teacher
        self.shown = [*range(min(4, len(self.x)))] if shown is None else list(shown)
        lengths = [len(part) for part in (self.x, self.y, teacher) if part is not None]
        if len(set(lengths)) > 1:
            raise ValueError(f"test cases, labels and teacher's logits of them are as many each, got {lengths}")
        if self.texts and len(self.texts) != len(self.shown):
            raise ValueError(f"texts are those of the cases in shown, got {len(self.texts)} for {len(self.shown)}")
        if not self.shown or min(self.shown) < 0 or max(self.shown) >= len(self.x):
            raise ValueError(f"shown: numbers of test cases, from 0 to {len(self.x) - 1}, got {self.shown}")
        self._terms: dict[str, list[dict[str, Tensor]]] = {}  # of the steps since the last note, by run
        self._measured_at, self._cost, self._looks = -1e9, 0.0, 0  # looks come often at first
        self._counts: dict[str, int] = {}  # each run's last errors
        self._verdicts: dict[Run, str] = {}  # of followed logs
        self._said, self._rate, self._drawn_at = "", 0.0, time.perf_counter()
        self.player = player.Player(self._step, self._draw, self._note)
        self._make_controls(run.knobs.knobs)
        self._make_pictures(alone)
        super().__init__(live_view.rows(self), layout=w.Layout(max_width="1120px", grid_gap="8px", **FREE))
        self.add_class("kd-panel").add_class(NEEDS_KERNEL)
        self._refresh()
        self.errors.flush()  # a page that opens sees what was sent before it only if it was kept

    # ---- what one sees

    def _make_controls(self, knobs: dict[str, Knob]) -> None:
        self.buttons = {
            name: w.Button(description=text, icon=icon, tooltip=tip, layout=w.Layout(width="auto"))
            for name, text, icon, tip in live_view.BUTTONS
        }
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: self._press(name))
        self.active = w.ToggleButtons(options=["A"], description="sliders turn", style=WIDE | {"button_width": "auto"})
        self.active.observe(lambda change: self.player.on_loop(self._set_sliders), "value")
        self.all_play = w.Checkbox(True, description="all runs play", indent=False, layout=w.Layout(width="auto"))
        self.controls = {
            name: knob_slider(name, knob) for name, knob in knobs.items() if not isinstance(knob.value, list)
        }
        for name, slider in self.controls.items():
            slider.observe(lambda change, name=name: self._turn(name, change["new"]), "value")
        of_class = [(name, i) for i, name in enumerate(self.names)]
        self.classes = w.Dropdown(options=of_class, description="bias of class", style=WIDE)
        if "bias" in knobs:
            self.controls["bias"] = knob_slider("bias", knobs["bias"]._replace(value=knobs["bias"].value[0]))
            self.controls["bias"].observe(lambda change: self._turn_bias(change["new"]), "value")
            self.classes.observe(lambda change: self.player.on_loop(self._set_sliders), "value")
        self.upload = w.FileUpload(accept=".json", description="Load log", layout=w.Layout(width="auto"))
        self.upload.observe(lambda change: self.player.on_loop(self._load), "value")
        self.file = w.Text("live.json", layout=w.Layout(width="180px"), tooltip="the file that Save log writes")
        self.status, self.table = w.HTML(layout=w.Layout(width="100%")), w.HTML(layout=w.Layout(width="100%"))
        self.pulse = live_view.Pulse()
        self.pulse.on_msg(self._heard)

    def _make_pictures(self, alone: list[tuple[int, float]]) -> None:
        shown = torch.as_tensor(self.shown)
        x, T = self.x[shown], self._T()
        asked = {"teacher": self.teacher[shown]} if self.teacher is not None else {}
        asked["student"] = metrics.logits(self.runs["A"].student, x)
        self.errors = live_view.curves("test errors, percent", "test error rate")
        self.losses = live_view.curves("loss term, nats", "the terms of the loss")
        for step, errors in alone:
            self.errors.append(step, {"alone": 100 * errors / len(self.y)})
        self.bars = live_view.soft_targets(asked, self.names, self.y[shown].tolist(), T)
        self.case = live_view.case_chooser(self.texts, len(self.shown))
        self.confusion = live_view.confusion(self.names)
        self.image = live_view.image(x)
        live_view.link(self.case, self.controls.get("T"), self.bars, self.image)

    # ---- what the hand does; each of these is done on the kernel's main loop

    def play(self) -> None:
        """Train in the background until `pause`."""
        self.player.play()
        self._say()

    def pause(self) -> None:
        """Stop after the step under way."""
        self.player.pause()

    def step(self) -> None:
        """Pause, and take one step."""
        self.player.pause()
        with self.player.between_steps():
            try:
                self.advance(1)
            except Exception as error:
                self.player.error, self.player.state = error, "error"
                self._say()

    def advance(self, n: int) -> None:
        """Take n steps (of each run, where all play) here and now; an error is raised."""
        left = [max(0, run.until - run.number) for run in self._playing().values()]
        self.player.run(sum(min(n, some) for some in left) + (max(left) < n))  # one more, to find that it ended

    def reset(self) -> None:
        """Begin the active run again, its knobs where they began."""
        with self.player.between_steps():
            name = self.active.value
            self.runs[name] = self.runs[name].restart()
            self._terms.pop(name, None)
            self.player.forget()
            for curves in (self.errors, self.losses):
                curves.drop(*[line for line in curves.lines() if line.split(":")[0] == name])
            self._refresh()

    def fork(self) -> None:
        """From here on there are two: the active run, and one that the sliders turn from now on."""
        with self.player.between_steps():
            self._add(self.runs[self.active.value].fork(), f"{self.active.value} forked at step")

    def save(self) -> None:
        """Write the active run's log as JSON to `file`, and its weights beside it."""
        with self.player.between_steps():
            run = self.runs[self.active.value]
            try:
                path = Path(self.file.value).expanduser()
                if path.suffix == ".safetensors":
                    raise ValueError(f"{path.name} would be the weights' own file")
                store.save(path.with_suffix(".safetensors"), run.student.state_dict(), {"log": run.log()})
                disk.write(path, (json.dumps(run.log(), indent=1) + "\n").encode())
            except (OSError, ValueError, RuntimeError) as error:  # no such folder, no such name, no such home
                said = f"nothing was saved: {error}; name another file beside Save log"
            else:
                said = f"{len(run.knobs.turns)} turns and {run.number:,} steps saved in {path.resolve()}"
        self._say(said)

    def load(self, log: dict[str, Any]) -> None:
        """Follow a log as another run; when its last step is taken the panel says whether the weights are the same."""
        with self.player.between_steps():
            self._add(follow(log, self.runs["A"]), "a log, to be followed from step")

    def _load(self) -> None:
        if not self.upload.value:
            return
        try:
            self.load(json.loads(bytes(self.upload.value[0]["content"])))
        except (ValueError, KeyError) as error:
            self._say(f"not loaded: {error}")

    def _add(self, run: Run, why: str) -> None:
        if len(self.runs) == len(LETTERS):
            self._say(f"{len(LETTERS)} runs are as many as one can tell apart: reset one instead")
            return
        name = LETTERS[len(self.runs)]
        self.runs[name] = run
        self.active.options = list(self.runs)
        self.active.value = name
        self._refresh()
        self._say(f"{name}: {why} {run.number:,}")

    def _press(self, name: str) -> None:  # in any thread
        act = getattr(self, name)
        if name == "pause":  # at once: the loop may be drawing
            act()
        self.player.on_loop(act)

    def _turn(self, name: str, value: float) -> None:  # in any thread
        run = self.runs[self.active.value]
        knob = run.knobs.knobs[name]
        if was_moved(self.controls[name], run.knobs.wanted()[name], value):
            run.knobs.turn(**{name: min(max(value, knob.low), knob.high)})
            self.player.on_loop(self._say)

    def _turn_bias(self, value: float) -> None:
        bias = self.runs[self.active.value].knobs.wanted()["bias"]
        if was_moved(self.controls["bias"], bias[self.classes.value], value):
            bias[self.classes.value] = value
            self.runs[self.active.value].knobs.turn(bias=bias)
            self.player.on_loop(self._look_again)

    def _look_again(self) -> None:
        if self.player.state != "playing":
            with self.player.between_steps():
                self._show(self._note(measure=True))

    def _heard(self, _, content: dict, __) -> None:  # in any thread
        gone = content.get("kind") == "gone"  # a page that is only reloaded says "here" again
        self.player.seen = time.monotonic() - (player.UNSEEN - 10 if gone else 0)

    # ---- the work, in the worker's thread

    def _playing(self) -> dict[str, Run]:
        return self.runs if self.all_play.value else {self.active.value: self.runs[self.active.value]}

    def _step(self) -> bool:
        """One step of the run that has taken fewest; False when none has one left."""
        going = {name: run for name, run in self._playing().items() if run.number < run.until}
        if not going:
            return False
        name = min(going, key=lambda name: going[name].number)
        self._terms.setdefault(name, []).append(next(going[name]).terms)
        return True

    def _note(self, measure: bool = False) -> dict[str, Any]:
        """What to draw: each run's mean terms since the last note, and now and then its errors."""
        taken, self._terms = self._terms, {}
        noted: dict[str, Any] = {"runs": dict(self.runs), "terms": {}, "measured": {}, "steps": 0}
        for name, rows in taken.items():
            means = {key: float(torch.stack([row[key] for row in rows]).mean()) for key in rows[0]}
            noted["terms"][name] = (self.runs[name].number, means)
            noted["steps"] += len(rows)
        now = time.perf_counter()
        due = now - self._measured_at > max(0.4, SPARE * self._cost) * min(1, self._looks / 5)
        if measure or due or self.player.state != "playing":
            again = [name for name in self.runs if measure or name in taken or name not in self._counts]
            noted["measured"] = {name: self._measure(self.runs[name]) for name in again}
            self._looks += 1
            self._measured_at, self._cost = time.perf_counter(), time.perf_counter() - now
        return noted

    def _measure(self, run: Run) -> dict[str, Any]:
        logits = metrics.logits(run.student, self.x)
        if "bias" in run.knobs.knobs:
            logits = logits + torch.tensor(run.knobs.wanted()["bias"], device=logits.device)
        if not logits.isfinite().all():  # a rate broke it, as its next step will say: it knows nothing any more
            logits = torch.zeros_like(logits)
        return {
            "step": run.number,
            "errors": metrics.errors(logits, self.y),
            "shown": logits[self.shown],
            "confusion": metrics.confusion(logits, self.y),
        }

    # ---- the drawing, on the main loop

    def _draw(self, noted: dict[str, Any] | None) -> None:
        if noted is not None:
            self._show(noted)
        if self.player.state != "playing":
            self.errors.flush()
            self.losses.flush()
        self._say()

    def _show(self, noted: dict[str, Any]) -> None:
        current = {name for name, run in noted["runs"].items() if self.runs.get(name) is run}  # not reset since
        for name, (step, means) in noted["terms"].items():
            if name in current:
                self.losses.append(step, {f"{name}: {term}": value for term, value in means.items()})
        for name in noted["measured"].keys() & current:
            seen = noted["measured"][name]
            self._counts[name] = seen["errors"]
            points = {f"{name}: student": 100 * seen["errors"] / len(self.y)}
            if self.teacher is not None:
                points["teacher"] = 100 * metrics.errors(self.teacher, self.y) / len(self.y)
            self.errors.append(seen["step"], points)
        if (seen := noted["measured"].get(self.active.value)) and self.active.value in current:
            self.bars.inputs = {**self.bars.inputs, "student": seen["shown"]}
            self.confusion.put(seen["confusion"])
        self._speed(noted["steps"])
        if noted["measured"]:
            self._list()

    def _refresh(self) -> None:
        """Another run, or another active one: sliders, table and pictures as it stands."""
        self._counts, self._looks = {}, 0
        self._show(self._note(measure=True))
        self._set_sliders()

    def _set_sliders(self) -> None:
        wanted = self.runs[self.active.value].knobs.wanted()
        for name, slider in self.controls.items():
            value = wanted["bias"][self.classes.value] if name == "bias" else wanted[name]
            with slider.hold_sync():
                put(slider, self.runs["A"].knobs.knobs[name], value)
        self.bars.T = wanted.get("T", 1.0)
        self._look_again()
        self._say()

    def _T(self) -> float:
        return self.runs["A"].knobs.wanted().get("T", 1.0)

    def _speed(self, steps: int) -> None:
        """Cases a second, a running mean over about ten chunks."""
        now = time.perf_counter()
        if steps and self.player.state == "playing":
            rate = steps * self.runs["A"].training.batch_size / (now - self._drawn_at)
            self._rate = 0.9 * self._rate + 0.1 * rate if self._rate else rate
        self._drawn_at = now

    def _say(self, note: str = "") -> None:
        """The line under the buttons: the state, what the next step will use, and what there is to say."""
        run, state = self.runs[self.active.value], self.player.state
        wanted = " · ".join(
            f"{name} = {value:.4g}" for name, value in run.knobs.wanted().items() if not isinstance(value, list)
        )
        speed = f" · {self._rate:,.0f} {'texts' if self.texts else 'images'}/s" if state == "playing" else ""
        self._said = note or ("" if state == "playing" else self._said)
        self.pulse.problem = player.describe_error(self.player.error) if self.player.error else ""
        words = f"<b>{html.escape(state)}</b> · step {run.number:,} · {wanted}{speed}"
        if self.pulse.problem:
            words += f"<pre style='color: #d55e00; white-space: pre-wrap'>{html.escape(self.pulse.problem)}</pre>"
        if self._said:
            words += f"<br>{html.escape(self._said)}"
        self.status.value = f"<div class='kd-status' style='font-size: 16px'>{words}</div>"

    def _list(self) -> None:
        """The table of runs; a followed log that has come to its end is compared with what it promised."""
        for run in self.runs.values():
            if run.promised and run.number >= run.until and run not in self._verdicts:
                self._verdicts[run] = SAME if fingerprint(run.student) == run.promised else OTHER
        self.table.value = live_view.table(self.runs, self._counts, self._verdicts, len(self.y))
