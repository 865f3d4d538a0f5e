"""The live panel: play, pause, step, reset, fork and compare runs whose knobs a person turns while they train."""

import html
import json
import math
import time
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as w
import torch
import traitlets as t
from torch import Tensor

from kdlab import disk, metrics, store
from kdlab.live import player
from kdlab.live.knobs import Knob, Run, fingerprint, follow

from .panels import WIDE
from .pieces import JS, Bars, Curves, Digit, Matrix

LETTERS = "ABCDEF"  # one a run; six lines are as many as one can tell apart
SPARE = 40  # the errors are measured so seldom that it takes a fortieth of the time
FREE = {"overflow": "hidden", "width": "100%"}


class Pulse(anywidget.AnyWidget):
    """Tells whether a page shows the panel; keeps what went wrong, so that a run of the notebook notices."""

    _esm = JS / "pulse.js"
    problem = t.Unicode().tag(sync=True)


class Live(w.VBox):
    """A panel over `run` (and what is forked from it): knobs, buttons, curves, soft targets, confusions, a log.

    test: (x, y), the cases on which students are measured while they train; a thousand or two are plenty.
    teacher: its logits of the test cases, (n, classes). alone: [(step, errors)] of a student to compare with, as
    `live.learning_curve` returns them. shown: numbers of the test cases whose soft targets are drawn.
    texts: what those say, one for each of `shown`, where the cases are texts.
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
        shown: list[int] = (0, 1, 2, 3),
        texts: list[str] = (),
    ):
        self.runs, self.texts = {"A": run}, list(texts)
        self.x, self.y, self.names, self.teacher, self.shown = *test, list(names), teacher, list(shown)
        lengths = [len(part) for part in (self.x, self.y, teacher) if part is not None]
        if len(set(lengths)) > 1:
            raise ValueError(f"test cases, labels and teacher's logits of them are as many each, got {lengths}")
        if self.texts and len(self.texts) != len(self.shown):
            raise ValueError(f"texts are those of the cases in shown, got {len(self.texts)} for {len(self.shown)}")
        self._terms: dict[str, list[dict[str, Tensor]]] = {}  # of the steps since the last note, by run
        self._measured_at, self._cost, self._looks = -1e9, 0.0, 0  # looks come often at first
        self._counts: dict[str, int] = {}  # each run's last errors
        self._verdicts: dict[Run, str] = {}  # of followed logs
        self._said, self._rate, self._drawn_at = "", 0.0, time.perf_counter()
        self.player = player.Player(self._step, self._draw, self._note)
        self._make_controls(run.knobs.knobs)
        self._make_pictures(alone)
        super().__init__(self._rows(), layout=w.Layout(max_width="1120px", grid_gap="8px", **FREE))
        self.add_class("kd-panel")
        self._refresh()
        self.errors.flush()  # a page that opens sees what was sent before it only if it was kept

    # ---- what one sees

    def _make_controls(self, knobs: dict[str, Knob]) -> None:
        self.buttons = {
            name: w.Button(description=text, icon=icon, tooltip=tip, layout=w.Layout(width="auto"))
            for name, text, icon, tip in BUTTONS
        }
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: self._press(name))
        self.active = w.ToggleButtons(options=["A"], description="sliders turn", style=WIDE | {"button_width": "auto"})
        self.active.observe(lambda change: self.player.on_loop(self._set_sliders), "value")
        self.all_play = w.Checkbox(True, description="all runs play", indent=False, layout=w.Layout(width="auto"))
        self.controls = {name: _slider(name, knob) for name, knob in knobs.items() if not isinstance(knob.value, list)}
        for name, slider in self.controls.items():
            slider.observe(lambda change, name=name: self._turn(name, change["new"]), "value")
        self.classes = w.Dropdown(
            options=[(name, i) for i, name in enumerate(self.names)], description="bias of class", style=WIDE
        )
        if "bias" in knobs:
            self.controls["bias"] = _slider("bias", knobs["bias"]._replace(value=knobs["bias"].value[0]))
            self.controls["bias"].observe(lambda change: self._turn_bias(change["new"]), "value")
            self.classes.observe(lambda change: self.player.on_loop(self._set_sliders), "value")
        self.upload = w.FileUpload(accept=".json", description="Load log", layout=w.Layout(width="auto"))
        self.upload.observe(lambda change: self.player.on_loop(self._load), "value")
        self.file = w.Text("live.json", layout=w.Layout(width="180px"), tooltip="the file that Save log writes")
        self.status, self.table = w.HTML(layout=w.Layout(width="100%")), w.HTML(layout=w.Layout(width="100%"))
        self.pulse = Pulse()
        self.pulse.on_msg(self._heard)

    def _make_pictures(self, alone: list[tuple[int, float]]) -> None:
        rows = torch.as_tensor(self.shown)
        first = metrics.logits(self.runs["A"].student, self.x[rows])
        asked = {"teacher": self.teacher[rows]} if self.teacher is not None else {}
        half = {"flex": "1 1 0", "min_width": "0", "width": "auto"}
        self.errors = Curves(
            x_label="step",
            y_label="test errors, per cent",
            log_y=True,
            title="who errs how often",
            height=320,
            layout=w.Layout(**half),
        )
        self.losses = Curves(
            x_label="step",
            y_label="loss term, nats",
            log_y=True,
            title="the terms of the loss",
            height=320,
            layout=w.Layout(**half),
        )
        for step, errors in alone:
            self.errors.append(step, {"alone": 100 * errors / len(self.y)})
        self.bars = Bars(
            recipe="nets",
            inputs={**asked, "student": first},
            labels=self.names,
            T=self._T(),
            y_max=1.0,
            highlight=self.y[rows].tolist(),
            y_label="probability at T",
            title="soft targets",
            layout=w.Layout(**half),
        )
        look = {"description": "test case", "style": WIDE, "layout": w.Layout(width="100%")}
        self.case = (
            w.Dropdown(options=self.texts, **look) if self.texts else w.IntSlider(0, 0, len(self.shown) - 1, **look)
        )
        self.confusion = Matrix(
            torch.zeros(2, 2).int(),
            labels=self.names,
            hide_diagonal=True,
            title="taken for",
            y_label="class of the case",
            x_label="what the student says",
            layout=w.Layout(flex="0 0 470px"),
        )
        self.image = None
        if self.x.dim() == 4 and self.x.shape[1] == 1:
            self.image = Digit(self.x[rows], size=130, layout=w.Layout(flex="0 0 auto"))
        case, T = (self.case, "index" if self.texts else "value"), (self.controls.get("T"), "value")
        for (source, of), target, name in [
            (case, self.bars, "index"),
            (case, self.image, "index"),
            (T, self.bars, "T"),
        ]:
            if source is not None and target is not None:
                w.jslink((source, of), (target, name))

    def _rows(self) -> list[w.Widget]:
        line = {"align_items": "center", "flex_flow": "row wrap", "grid_gap": "6px 10px"}
        keep = [self.buttons["save"], self.file, self.upload]
        bias = [w.HBox([self.classes, self.controls["bias"]])] if "bias" in self.controls else []
        sliders = [slider for name, slider in self.controls.items() if name != "bias"]
        pictures = [piece for piece in (self.image, self.bars) if piece is not None]
        seen = w.VBox(
            [self.case, w.HBox(pictures, layout=w.Layout(grid_gap="16px"))],
            layout=w.Layout(flex="1 1 0", min_width="0"),
        )
        few = [self.confusion] if len(self.names) <= 30 else []  # more cells than one can read, or a browser draw
        buttons = [self.buttons[name] for name in ("play", "pause", "step", "reset", "fork")]
        return [
            w.HBox([*buttons, self.all_play, self.active], layout=w.Layout(**line)),
            self.status,
            *sliders,
            *bias,
            w.HBox([self.errors, self.losses], layout=w.Layout(grid_gap="16px")),
            self.table,
            w.HBox([seen, *few], layout=w.Layout(grid_gap="16px", align_items="flex-start")),
            w.HBox([*keep, self.pulse], layout=w.Layout(**line)),
        ]

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
        if _moved(self.controls[name], run.knobs.wanted()[name], value):
            run.knobs.turn(**{name: min(max(value, knob.low), knob.high)})
            self.player.on_loop(self._say)

    def _turn_bias(self, value: float) -> None:
        bias = self.runs[self.active.value].knobs.wanted()["bias"]
        if _moved(self.controls["bias"], bias[self.classes.value], value):
            bias[self.classes.value] = value
            self.runs[self.active.value].knobs.turn(bias=bias)
            self.player.on_loop(self._look_again)

    def _look_again(self) -> None:
        if self.player.state != "playing":
            with self.player.between_steps():
                self._show(self._note(measure=True))

    def _heard(self, _, content: dict, __) -> None:  # in any thread
        if content.get("kind") == "gone":
            self.player.seen = time.monotonic() - player.UNSEEN + 10  # a page that is only reloaded says "here" again
        else:
            self.player.seen = time.monotonic()

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
            noted["measured"] = {
                name: self._measure(run)
                for name, run in self.runs.items()
                if measure or name in taken or name not in self._counts
            }
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
                _stand(slider, self.runs["A"].knobs.knobs[name], value)
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
                same = fingerprint(run.student) == run.promised
                self._verdicts[run] = (
                    "the same weights, bit by bit"
                    if same
                    else "other weights than the log's: another machine, other versions, or a hand on a knob"
                )
        self.table.value = _table(self.runs, self._counts, self._verdicts, len(self.y))


BUTTONS = [
    ("play", "Play", "play", "train, in the background"),
    ("pause", "Pause", "pause", "stop after this step"),
    ("step", "Step", "step-forward", "take one step"),
    ("reset", "Reset", "undo", "begin the active run again"),
    ("fork", "Fork", "code-fork", "from here on two runs: compare them"),
    ("save", "Save log", "save", "write the log and the weights"),
]


def _slider(name: str, knob: Knob) -> w.Widget:
    said = {"T": "temperature T", "lr": "learning rate", "alpha": "weight alpha"}.get(name, name)
    common = {"description": said, "style": WIDE, "layout": w.Layout(width="100%")}
    if knob.log:
        slider = w.FloatLogSlider(
            base=10,
            min=math.log10(knob.low),
            max=math.log10(knob.high),
            step=0.05,
            value=knob.value,
            readout_format=".3g",
            **common,
        )
    else:
        slider = w.FloatSlider(
            knob.value, min=knob.low, max=knob.high, step=(knob.high - knob.low) / 100, readout_format=".3g", **common
        )
    _stand(slider, knob, knob.value)
    return slider


def _stand(slider: w.Widget, knob: Knob, value: float) -> None:
    """Put the slider to value, and its steps so that value is one of them: a page moves it to the nearest step, and
    that would turn the knob."""
    place = math.log10 if knob.log else float
    low, high, at = place(knob.low), place(knob.high), place(value)
    slider.min, slider.max = low, high
    slider.value = value
    slider.min = at - slider.step * math.floor((at - low) / slider.step + 1e-9)


def _moved(slider: w.Widget, before: float, after: float) -> bool:
    """Whether a hand moved it; what is less than a hundredth of a step is the page's rounding."""
    place = math.log10 if isinstance(slider, w.FloatLogSlider) else float
    return abs(place(after) - place(before)) > 0.01 * slider.step


def _table(runs: dict[str, Run], errors: dict[str, int], verdicts: dict[Run, str], n: int) -> str:
    """The runs side by side: steps, errors, and where their knobs stood from which step on."""
    rows = [
        f"<tr><td>{name}</td><td>{run.number:,}</td><td>{f'{errors[name]:,} of {n:,}' if name in errors else ''}</td>"
        f"<td style='text-align: left'>{_turned(run)} <b>{verdicts.get(run, '')}</b></td></tr>"
        for name, run in runs.items()
    ]
    head = "<tr><th>run</th><th>steps</th><th>errors</th><th style='text-align: left'>knobs, from step</th></tr>"
    return f"<table style='font-size: 14px; border-spacing: 14px 1px'>{head}{''.join(rows)}</table>"


def _turned(run: Run, most: int = 3) -> str:
    turns = [{"step": 0, **run.knobs.start}, *run.knobs.turns]
    told = [
        f"{turn['step']:,}: " + ", ".join(f"{key} {_short(value)}" for key, value in turn.items() if key != "step")
        for turn in turns
    ]
    return "; ".join(told if len(told) <= most + 1 else [told[0], f"… {len(told) - 1 - most} turns …", *told[-most:]])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "[" + " ".join(f"{v:g}" for v in value) + "]"
