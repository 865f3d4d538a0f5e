"""The live panel without a browser: its buttons, what it counts and draws, its logs, and what it says of slips."""

import asyncio
import datetime
import json
import re
import threading
import time

import nbformat
import pytest
import torch

from kdlab import metrics, models, store, train, widgets
from kdlab.course import widget_errors
from kdlab.live import knobs
from kdlab.live.knobs import Knob, Knobs, Run
from kdlab.live.player import Player

NAMES = ["ant", "bee", "cow"]
HANGS = 120.0  # seconds that nothing here takes, on the busiest machine


@pytest.fixture(autouse=True)
def nobody_plays(monkeypatch):
    monkeypatch.setattr(Player, "playing_now", None)
    yield
    if Player.playing_now is not None:
        Player.playing_now.pause()
    deadline = time.monotonic() + HANGS
    while any(thread.name.startswith("kdlab-play") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "a worker outlived its panel"
        time.sleep(0.005)


def blobs(n=96, seed=0, shape=(6,)):
    """Three clusters that overlap, so that every student errs; `t` knows more than the labels say."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (n,), generator=rng)
    centers = torch.randn(3, *shape, generator=torch.Generator().manual_seed(99))
    x = centers[y] + 1.5 * torch.randn(n, *shape, generator=rng)
    return x, y, 4.0 * torch.eye(3)[y] + torch.randn(n, 3, generator=rng)


def net(n_in=6):
    return models.mlp((8,), n_in=n_in, n_classes=3, dropout=(0.0, 0.3))


def a_run(build=net, data=None, objective=None, turned=(), **settings):
    """32 steps."""
    values = {"T": 4.0, "alpha": 0.5, "lr": 0.01, "bias": [0.0, 0.0, 0.0]} | dict(turned)
    return Run(
        build,
        data or blobs(),
        objective or (lambda k: train.distilling(T=k.T, alpha=k.alpha)),
        Knobs(**values),
        **{"epochs": 4, "batch_size": 12} | settings,
    )


TEST = blobs(80, seed=1)


def panel(run=None, teacher=TEST[2], test=TEST[:2], **settings):
    return widgets.Live(run or a_run(), test, NAMES, teacher=teacher, **settings)


def test_two_test_cases_are_enough_and_a_number_that_none_has_is_refused():
    live = panel(test=(TEST[0][:2], TEST[1][:2]), teacher=TEST[2][:2])
    live.advance(3)
    assert live.shown == [0, 1] and live.case.max == 1
    with pytest.raises(ValueError, match="from 0 to 1, got"):
        panel(test=(TEST[0][:2], TEST[1][:2]), teacher=TEST[2][:2], shown=[0, 2])


def weights(run):
    return torch.cat([value.flatten() for value in run.student.state_dict().values()])


def same(a, b):
    return torch.equal(weights(a), weights(b))


def counted(logits, y=TEST[1]):
    """Errors, counted one case at a time."""
    return sum(
        max(range(3), key=row.__getitem__) != label for row, label in zip(logits.tolist(), y.tolist(), strict=True)
    )


def asked(run, x=TEST[0]):
    """The student's logits, of a copy in eval mode."""
    student = net(x[0].numel())
    student.load_state_dict(run.student.state_dict())
    with torch.no_grad():
        return student.eval()(x)


def rows(live):
    """Run → its cells in the table, as text."""
    cells = [re.findall(r"<td.*?>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", live.table.value)]
    return {row[0]: row[1:] for row in cells if row}


def last(curves, name):
    x, y = curves.lines()[name]
    return x[-1], y[-1]


def turns(run):
    return run.log()["turns"]


# ---- steps and what is counted


def test_advance_takes_the_runs_own_steps():
    live, alone = panel(), a_run()
    live.advance(10)
    list(alone.steps(10))
    assert live.runs["A"].number == 10 and same(live.runs["A"], alone)
    live.step()
    next(alone)
    assert live.runs["A"].number == 11 and same(live.runs["A"], alone)
    assert "<b>paused</b> · step 11 ·" in live.status.value


def test_errors_and_confusions_are_those_of_the_student_counted_by_hand():
    live = panel()
    seen = []
    for n in (0, 5, 20):
        live.advance(n)
        logits = asked(live.runs["A"])
        errors = counted(logits)
        assert rows(live)["A"][:2] == [str(live.runs["A"].number), f"{errors} of 80"]
        assert last(live.errors, "A: student") == (live.runs["A"].number, pytest.approx(100 * errors / 80))
        assert metrics.errors(logits, TEST[1]) == errors
        taken = [[0] * 3 for _ in range(3)]
        for label, chosen in zip(TEST[1].tolist(), logits.argmax(1).tolist(), strict=True):
            taken[label][chosen] += 1
        assert live.confusion.values == taken
        torch.testing.assert_close(torch.tensor(live.bars.inputs["student"]), logits[:4], rtol=1e-5, atol=1e-6)
        seen.append(errors)
    assert len(set(seen)) == 3, "the student should learn"


def test_the_teachers_line_is_its_own_count_and_its_bars_its_own_logits():
    live = panel(shown=[7, 3])
    live.advance(3)
    x, y = live.errors.lines()["teacher"]
    assert 0 < counted(TEST[2]) < 80 and set(y) == {100 * counted(TEST[2]) / 80} and x[-1] == 3
    torch.testing.assert_close(torch.tensor(live.bars.inputs["teacher"]), TEST[2][[7, 3]])
    assert live.bars.highlight == TEST[1][[7, 3]].tolist()
    torch.testing.assert_close(torch.tensor(live.bars.inputs["student"]), asked(live.runs["A"])[[7, 3]])


def test_the_loss_curves_hold_the_mean_of_the_terms_since_the_last():
    live, alone = panel(), a_run()
    for n in (4, 6):
        live.advance(n)
        terms = [step.terms for step in alone.steps(n)]
        for term in ("ce", "kd"):
            expected = sum(float(row[term]) for row in terms) / n
            assert last(live.losses, f"A: {term}") == (alone.number, pytest.approx(expected, rel=1e-5))


def test_a_panel_without_a_teacher_and_a_line_to_compare_with():
    live = panel(teacher=None, alone=[(0, 40), (10, 8)])
    live.advance(1)
    assert "teacher" not in live.errors.lines() and list(live.bars.inputs) == ["student"]
    x, y = live.errors.lines()["alone"]
    assert x.tolist() == [0, 10] and y.tolist() == [50.0, 10.0]


@pytest.mark.parametrize("shape", [(2,), (1, 4, 4)])
def test_two_numbers_a_case_or_an_image(shape):
    (x, y, t), (xt, yt, tt) = blobs(shape=shape), blobs(50, seed=1, shape=shape)
    x, xt = x.sigmoid(), xt.sigmoid()  # ink goes from 0 to 1
    n_in = x[0].numel()
    live = widgets.Live(a_run(lambda: net(n_in), (x, y, t)), (xt, yt), NAMES, teacher=tt)
    live.advance(20)
    assert rows(live)["A"][:2] == ["20", f"{counted(asked(live.runs['A'], xt), yt)} of 50"]
    assert (live.image is None) == (shape == (2,))
    if live.image is not None:
        assert live.image.shape == [4, 4, 4]


def test_it_ends_with_the_run():
    live = panel()
    live.advance(100)
    assert live.runs["A"].number == 32 and live.player.state == "ended" and "<b>ended</b>" in live.status.value


# ---- knobs


def test_the_bias_changes_what_is_counted_and_not_what_is_learned():
    live = panel()
    live.advance(12)
    plain = rows(live)["A"][1]
    live.classes.value = 2
    live.controls["bias"].value = 10.0
    assert live.runs["A"].knobs.wanted()["bias"] == [0.0, 0.0, 10.0]
    for i in (0, 1):
        live.classes.value = i
        assert live.controls["bias"].value == 0.0, "the slider shows the chosen class's own bias"
        live.controls["bias"].value = -10.0
    always_cow = int((TEST[1] != 2).sum())
    assert rows(live)["A"][1] == f"{always_cow} of 80" != plain
    assert all(row[:2] == [0, 0] for row in live.confusion.values)
    live.classes.value = 2
    assert live.controls["bias"].value == 10.0
    live.advance(3)
    assert turns(live.runs["A"]) == [{"step": 12, "bias": [-10.0, -10.0, 10.0]}]
    untouched = a_run()
    list(untouched.steps(15))
    assert same(live.runs["A"], untouched)
    by_hand = asked(live.runs["A"]) + torch.tensor([-10.0, -10.0, 10.0])
    torch.testing.assert_close(torch.tensor(live.bars.inputs["student"]), by_hand[:4], rtol=1e-5, atol=1e-5)


def test_sliders_turn_the_active_run_alone_and_show_where_its_knobs_stand():
    live = panel()
    live.controls["T"].value = 2.0
    live.advance(4)
    live.fork()
    assert live.active.value == "B" and live.controls["T"].value == 2.0
    live.controls["T"].value, live.controls["lr"].value = 20.0, 0.1
    live.advance(2)
    a, b = live.runs["A"], live.runs["B"]
    assert (a.knobs.T, a.knobs.lr) == (2.0, 0.01) and (b.knobs.T, b.knobs.lr) == (20.0, 0.1)
    live.active.value = "A"
    assert (live.controls["T"].value, live.controls["lr"].value, live.bars.T) == (2.0, 0.01, 2.0)
    live.controls["alpha"].value = 1.0
    live.active.value = "B"
    assert (live.controls["T"].value, live.controls["alpha"].value, live.bars.T) == (20.0, 0.5, 20.0)
    live.advance(1)
    assert turns(a) == [{"step": 0, "T": 2.0}, {"step": 6, "alpha": 1.0}]
    assert turns(b) == [{"step": 0, "T": 2.0}, {"step": 4, "T": 20.0, "lr": 0.1}], "to look at a run turns nothing"


def test_a_slider_at_its_end_stays_in_the_knobs_range():
    """10 ** log10(high) may be a bit outside; the lower end is the last whole step from where it began."""
    live = panel(a_run(turned={"T": Knob(4.0, 0.3, 70.0, log=True), "lr": 0.01}))
    for name, slider in live.controls.items():
        if name in ("T", "lr"):
            for end in (slider.max, slider.min):
                slider.value = slider.base**end
                knob = live.runs["A"].knobs.knobs[name]
                at = live.runs["A"].knobs.wanted()[name]
                assert at == pytest.approx(knob.high) if end == slider.max else knob.low <= at <= 1.13 * knob.low


def test_a_fork_goes_its_own_way_and_the_first_run_does_not_notice():
    live, alone = panel(), a_run()
    live.advance(6)
    live.fork()
    assert same(live.runs["A"], live.runs["B"])
    live.controls["lr"].value = 0.3
    live.advance(6)
    list(alone.steps(12))
    assert [run.number for run in live.runs.values()] == [12, 12]
    assert same(live.runs["A"], alone) and not same(live.runs["A"], live.runs["B"])
    for name, run in live.runs.items():
        assert rows(live)[name][:2] == ["12", f"{counted(asked(run))} of 80"]
        assert last(live.errors, f"{name}: student")[1] == pytest.approx(100 * counted(asked(run)) / 80)
    assert "B: ce" in live.losses.lines() and live.errors.lines()["B: student"][0][0] == 6


def test_only_the_active_run_goes_on_where_the_others_shall_not():
    live = panel()
    live.advance(4)
    live.fork()
    live.all_play.value = False
    live.advance(5)
    assert [run.number for run in live.runs.values()] == [4, 9]
    live.all_play.value = True
    live.advance(3)  # six steps, each of the run that has taken fewest
    assert [run.number for run in live.runs.values()] == [10, 9]


def test_reset_begins_the_active_run_again_and_leaves_the_others():
    live = panel()
    live.controls["T"].value = 2.0
    live.advance(4)
    live.fork()
    live.advance(4)
    before = weights(live.runs["B"]).clone()
    live.active.value = "A"
    live.reset()
    a = live.runs["A"]
    assert a.number == 0 and same(a, a_run()) and turns(a) == [] and a.knobs.wanted()["T"] == 4.0
    assert live.controls["T"].value == 4.0 and "A: ce" not in live.losses.lines()
    assert set(live.errors.lines()["A: student"][0]) == {0}
    assert live.runs["B"].number == 8 and torch.equal(weights(live.runs["B"]), before)
    assert {"B: ce", "teacher"} <= set(live.losses.lines()) | set(live.errors.lines())
    assert rows(live)["A"][:2] == ["0", f"{counted(asked(a))} of 80"]


def test_no_more_runs_than_one_can_tell_apart():
    live = panel()
    for _ in range(5):
        live.fork()
    assert list(live.runs) == list("ABCDEF")
    for add in (live.fork, lambda: live.load(live.runs["A"].log())):
        add()
        assert list(live.runs) == list("ABCDEF") and "6 runs are as many as one can tell apart" in live.status.value
    live.advance(1)
    assert [run.number for run in live.runs.values()] == [1] * 6


def test_a_panel_for_other_knobs():
    def objective(k):
        plain = train.distilling(T=k.T, alpha=k.alpha)
        return lambda *batch: {name: k.strength * term for name, term in plain(*batch).items()}

    run = Run(net, blobs(), objective, Knobs(T=4.0, alpha=0.5, lr=0.01, strength=Knob(1.0, 0.0, 2.0)), epochs=4)
    live = panel(run)
    live.controls["strength"].value = 0.5
    live.advance(1)
    assert turns(run) == [{"step": 0, "strength": 0.5}] and "bias" not in live.controls


def test_the_status_says_what_the_next_step_will_use():
    live = panel()
    live.controls["T"].value = 20.0
    assert "T = 20 · alpha = 0.5 · lr = 0.01" in live.status.value


# ---- logs


def upload(live, content):
    content = content if isinstance(content, bytes) else content.encode()
    live.upload.value = (
        {
            "name": "log.json",
            "type": "application/json",
            "size": len(content),
            "content": content,
            "last_modified": datetime.datetime.now(datetime.UTC),
        },
    )


def saved(live, tmp_path):
    live.file.value = str(tmp_path / "mine.json")
    live.save()
    return (tmp_path / "mine.json").read_bytes()


def test_a_saved_log_loaded_again_comes_to_the_same_weights_bit_by_bit(tmp_path):
    live = panel()
    live.advance(5)
    live.controls["T"].value = 20.0
    live.advance(4)
    text = saved(live, tmp_path)
    assert f"1 turns and 9 steps saved in {tmp_path / 'mine.json'}" in live.status.value
    state, record = store.load(tmp_path / "mine.safetensors")
    assert torch.equal(state["1.weight"], live.runs["A"].student[1].weight) and record["log"] == json.loads(text)

    other = panel(a_run(turned={"T": 9.0, "lr": 0.5}))
    upload(other, text)
    assert list(other.runs) == ["A", "B"] and "B: a log, to be followed from step 0" in other.status.value
    assert other.controls["lr"].value == 0.01, "the sliders stand where the log begins"
    other.advance(8)
    assert rows(other)["B"][0] == "8" and "weights" not in rows(other)["B"][2]
    other.advance(1)
    assert "<b>the same weights, bit by bit</b>" in rows(other)["B"][2]
    assert same(other.runs["B"], live.runs["A"]) and "weights" not in rows(other)["A"][2]
    other.advance(1)
    assert other.runs["B"].number == 9 and other.runs["A"].number > 9, "it ends where the log ends"


def test_beside_a_run_that_is_done_the_others_still_take_n_steps():
    live = panel()
    live.advance(2)
    live.load(live.runs["A"].log())
    live.advance(1)  # the two runs' two steps, both of B, which has taken fewest
    assert [run.number for run in live.runs.values()] == [2, 2] and live.runs["B"].until == 2
    live.advance(3)
    assert [run.number for run in live.runs.values()] == [5, 2]


@pytest.mark.parametrize(
    "change",
    [
        lambda log: log.update(weights="0" * 64),
        lambda log: log["turns"][0].update(step=4),
        lambda log: log["turns"][0].update(T=20.1),
        lambda log: log["start"].update(alpha=0.51),
        lambda log: log.update(steps=8),
        lambda log: log["turns"].clear(),
    ],
)
def test_a_log_that_was_tampered_with_comes_to_other_weights(change, tmp_path):
    live = panel()
    live.advance(5)
    live.controls["T"].value = 20.0
    live.advance(4)
    log = json.loads(saved(live, tmp_path))
    change(log)
    upload(live, json.dumps(log))
    live.advance(12)
    assert "<b>other weights than the log's" in rows(live)["B"][2] and "bit by bit" not in live.table.value


def test_a_hand_on_a_knob_of_a_followed_log_is_found_out(tmp_path):
    live = panel()
    live.advance(5)
    upload(live, saved(live, tmp_path))
    live.advance(1)
    live.controls["lr"].value = 0.02
    live.advance(5)
    assert "other weights than the log's" in rows(live)["B"][2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no json", "not loaded: Expecting value"),
        (b"\xff\xfe\xfa", "not loaded:"),
        ("null", "this is no log of a run"),
        ("[]", "this is no log of a run"),
        ('{"format": 1}', "this is no log of a run"),
        ("", "not loaded:"),
    ],
)
def test_rubbish_is_not_loaded_and_said_so(content, said):
    live = panel()
    upload(live, content)
    assert said in live.status.value and list(live.runs) == ["A"] and live.active.options == ("A",)
    live.advance(2)
    assert live.runs["A"].number == 2


@pytest.mark.parametrize(
    "change",
    [
        {"turns": [3]},
        {"start": {"T": "hot", "alpha": 0, "lr": 0.1, "bias": [0, 0, 0]}},
        {"settings": 3},
        {"steps": None},
    ],
)
def test_a_log_broken_inside_is_not_loaded_and_said_so(change):
    live = panel()
    try:
        upload(live, json.dumps(live.runs["A"].log() | change))
    except (TypeError, AttributeError) as error:
        pytest.fail(f"{type(error).__name__}: {error}")
    assert "not loaded:" in live.status.value and list(live.runs) == ["A"]


def test_another_runs_log_is_not_loaded_and_what_differs_is_said():
    live = panel()
    upload(live, json.dumps(a_run(seed=5).log()))
    assert "seed: 5 in the log, 0 here" in live.status.value and list(live.runs) == ["A"]


def test_a_folder_that_cannot_be_written_is_said_and_harms_nothing(tmp_path):
    live = panel()
    live.advance(3)
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "live.json", tmp_path / "none" / "live.json"):
        live.file.value = str(path)
        live.save()
        assert "nothing was saved: " in live.status.value and "name another file" in live.status.value
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    live.advance(3)
    assert live.runs["A"].number == 6 and not live.pulse.problem
    saved(live, tmp_path)
    assert "6 steps saved" in live.status.value


@pytest.mark.parametrize("name", ["", ".", "/", "\0"])
def test_a_name_that_is_none_is_said_too(name):
    live = panel()
    live.file.value = name
    live.save()
    assert "nothing was saved: " in live.status.value


def test_a_log_does_not_overwrite_its_own_weights(tmp_path):
    live = panel()
    live.file.value = str(tmp_path / "mine.safetensors")
    live.save()
    if "nothing was saved" not in live.status.value:
        state, _ = store.load(tmp_path / "mine.safetensors")
        assert torch.equal(state["1.weight"], live.runs["A"].student[1].weight)


# ---- what goes wrong


def breaking(at):
    """An objective that raises at step `at` of a run; emptied, it does no longer."""

    def objective(k):
        plain, taken = train.distilling(T=k.T, alpha=k.alpha), []

        def terms(*batch):
            if len(taken) in at:
                raise RuntimeError("the planted <error>")
            taken.append(1)
            return plain(*batch)

        return terms

    return objective


def played(live_of, fact, then=lambda live: None):
    """Make a panel on a loop, play until fact(panel), and wait until no worker is left."""

    async def scene():
        live = live_of()
        live.play()
        end = time.monotonic() + HANGS
        while not fact(live) or not (live.player._task and live.player._task.done()):
            assert time.monotonic() < end, "it did not come to that"
            await asyncio.sleep(0.005)
        then(live)
        return live

    return asyncio.run(scene())


def test_played_to_the_end_it_learns_what_steps_by_hand_learn():
    live, alone = played(panel, lambda live: live.player.state == "ended"), a_run()
    list(alone)
    assert same(live.runs["A"], alone) and live.player.error is None and live.pulse.problem == ""
    assert rows(live)["A"][:2] == ["32", f"{counted(asked(alone))} of 80"]


def test_buttons_pressed_in_another_thread_are_done_on_the_main_one():
    async def scene():
        live = panel(a_run(epochs=5000))
        drawn_in = set()
        live.status.observe(lambda change: drawn_in.add(threading.current_thread()), "value")
        for name, fact in (
            ("play", lambda: live.runs["A"].number > 3),
            ("fork", lambda: len(live.runs) == 2),
            ("reset", lambda: live.runs["B"].number < live.runs["A"].number),
            ("pause", lambda: live.player._task.done()),
        ):
            hand = threading.Thread(target=live.buttons[name].click)
            hand.start()
            hand.join()
            end = time.monotonic() + HANGS
            while not fact():
                assert time.monotonic() < end, name
                await asyncio.sleep(0.002)
        assert live.player.state == "paused" and drawn_in == {threading.main_thread()}
        return live

    live = asyncio.run(scene())
    assert same(live.runs["A"], knobs.replay(live.runs["A"].log(), live.runs["A"]))


def test_a_slider_pulled_while_it_plays_is_logged_and_the_log_replays():
    async def scene():
        live = panel(a_run(epochs=5000))
        live.play()

        def hand():
            for i in range(60):
                live.controls["T"].value = 1.0 + i
                live.controls["alpha"].value = (i % 10) / 10
                time.sleep(0.001)

        thread = threading.Thread(target=hand)
        thread.start()
        while thread.is_alive() or live.runs["A"].number < 20:
            await asyncio.sleep(0.002)
        at, end = live.runs["A"].number, time.monotonic() + HANGS
        while live.runs["A"].number < at + 5:
            assert time.monotonic() < end and not live.player.error
            await asyncio.sleep(0.002)
        live.pause()
        while not live.player._task.done():
            await asyncio.sleep(0.002)
        return live

    run = asyncio.run(scene()).runs["A"]
    assert turns(run) and (run.knobs.T, run.knobs.alpha) == (60.0, 0.9)
    assert same(run, knobs.replay(run.log(), run))


def test_an_objective_that_breaks_while_it_plays_is_shown_and_kept_for_the_run_of_the_notebook():
    live = played(lambda: panel(a_run(objective=breaking({5}))), lambda live: live.player.state == "error")
    assert live.runs["A"].number == 5
    assert live.pulse.problem.startswith("RuntimeError: the planted <error>\nline ")
    assert 'raise RuntimeError("the planted <error>")' in live.pulse.problem
    assert "<b>error</b>" in live.status.value and "the planted &lt;error&gt;" in live.status.value
    assert live.pulse.get_state()["problem"] == live.pulse.problem, "it goes into the saved notebook"


def test_an_objective_that_breaks_raises_from_advance_and_is_shown_by_step():
    live = panel(a_run(objective=breaking({5})))
    with pytest.raises(RuntimeError, match="planted"):
        live.advance(9)
    assert live.runs["A"].number == 5
    live.step()
    assert "the planted <error>" in live.pulse.problem and live.player.state == "error"


def test_play_after_the_objective_was_mended_goes_on_and_forgets_the_error():
    at = {5}

    async def scene():
        live = panel(a_run(objective=breaking(at)))
        for wanted in ("error", "ended"):
            live.play()
            end = time.monotonic() + HANGS
            while live.player.state != wanted or not live.player._task.done():
                assert time.monotonic() < end
                await asyncio.sleep(0.005)
            assert bool(live.pulse.problem) == (wanted == "error")
            at.clear()
        return live

    live, alone = asyncio.run(scene()), a_run()
    list(alone)
    assert same(live.runs["A"], alone)


@pytest.mark.parametrize("press", ["step", "reset"])
def test_step_and_reset_after_the_objective_was_mended_forget_the_error_too(press):
    at = {5}
    live = panel(a_run(objective=breaking(at)))
    for _ in range(6):
        live.step()
    assert live.pulse.problem
    at.clear()
    getattr(live, press)()
    assert live.runs["A"].number == (6 if press == "step" else 0)
    assert live.pulse.problem == "" and "<b>paused</b>" in live.status.value


def test_reset_after_an_error_draws_nothing_of_the_run_before():
    live = panel(a_run(objective=breaking({5})))
    with pytest.raises(RuntimeError):
        live.advance(9)
    live.reset()
    assert [line for line in live.losses.lines() if line.startswith("A")] == []


@pytest.mark.parametrize("press", ["reset", "fork"])
def test_a_run_that_broke_does_not_stop_what_one_does_with_another(press):
    live = panel()
    live.advance(2)
    live.fork()
    with torch.no_grad():
        live.runs["B"].student[-1].bias.fill_(torch.nan)  # as a rate that was too high leaves it
    live.active.value = "A"
    getattr(live, press)()
    live.all_play.value = False
    live.advance(2)
    assert live.runs["A" if press == "reset" else "C"].number == (2 if press == "reset" else 4)


def test_advance_while_it_plays_waits_for_the_worker():
    def slow(k):
        plain = train.distilling(T=k.T, alpha=k.alpha)
        return lambda *batch: time.sleep(0.003) or plain(*batch)

    async def scene():
        live = panel(a_run(objective=slow, epochs=5000))
        live.play()
        while live.runs["A"].number < 3:
            await asyncio.sleep(0.002)
        live.advance(20)
        live.pause()
        while not live.player._task.done():
            await asyncio.sleep(0.002)
        return live.runs["A"]

    run = asyncio.run(scene())
    assert run.number >= 23
    assert same(run, knobs.replay(run.log(), run))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: panel(test=(TEST[0], TEST[1][:-1])), r"are as many each, got \[80, 79, 80\]"),
        (lambda: panel(teacher=TEST[2][:-1]), r"got \[80, 80, 79\]"),
        (lambda: widgets.Live(a_run(), TEST[:2], NAMES[:2]), "2 names for 3 classes"),
        (lambda: panel(texts=["one", "two"]), "got 2 for 4"),
    ],
)
def test_slips_are_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_bias_may_start_as_a_tuple():
    live = panel(a_run(turned={"bias": (0.0, 0.0, 0.0)}))
    live.controls["bias"].value = 3.0
    assert live.runs["A"].knobs.wanted()["bias"] == [3.0, 0.0, 0.0]


# ---- what the run of a notebook finds


def notebook(**states):
    nb = nbformat.v4.new_notebook()
    models_ = {name: {"model_module": "anywidget", "model_name": "AnyModel", "state": s} for name, s in states.items()}
    nb.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": models_, "version_major": 2}}
    return nbformat.reads(nbformat.writes(nb), as_version=4)


def test_a_panels_problem_is_found_in_the_saved_notebook():
    live = panel(a_run(objective=breaking({0})))
    live.step()
    state = {key: value for key, value in live.pulse.get_state().items() if isinstance(value, str)}
    found = widget_errors(notebook(pulse=state, slider={"value": 3}))
    assert found == [live.pulse.problem] and "planted" in found[0]


def test_problems_and_errors_of_outputs_are_both_found_and_nothing_where_there_is_none():
    error = {"output_type": "error", "ename": "KeyError", "evalue": "'T'", "traceback": []}
    nb = notebook(a={"problem": ""}, b={"problem": "ValueError: x"}, c={"outputs": [error]}, d={"outputs": []})
    assert sorted(widget_errors(nb)) == ["KeyError: 'T'", "ValueError: x"]
    assert widget_errors(notebook(a={"problem": ""})) == []
    assert widget_errors(nbformat.v4.new_notebook()) == []


@pytest.mark.parametrize("T", [4.0, 1.0, 0.1, 100.0, 7.3])
def test_the_page_may_round_a_slider_to_its_steps_without_turning_the_knob(T):
    live = panel(a_run(turned={"T": T, "alpha": 0.333}))
    for name in ("T", "alpha"):
        slider = live.controls[name]
        before = live.runs["A"].knobs.wanted()[name]
        at = torch.tensor(before).log10().item() if name == "T" else before
        steps = (at - slider.min) / slider.step
        assert steps == pytest.approx(round(steps), abs=1e-4), "its value is one of the slider's own steps"
        slider.value = before * (1 - 1e-6)
        assert live.runs["A"].knobs.wanted()[name] == before
    live.controls["T"].value = T * 1.13 if T < 50 else T / 1.13  # one step
    assert live.runs["A"].knobs.wanted()["T"] != T


def test_cases_that_are_texts_are_picked_by_what_they_say():
    x = torch.randint(1, 20, (40, 5), generator=torch.Generator().manual_seed(0))
    y, t = x[:, 0] % 3, torch.randn(40, 3)
    run = a_run(lambda: models.bilstm(4, 4, n_words=20, n_classes=3), (x, y, t))
    live = widgets.Live(run, (x, y), NAMES, teacher=t, shown=[3, 5], texts=["a dog", "a dog"])
    live.advance(4)
    assert run.number == 4 and live.case.options == ("a dog", "a dog")
    shown = torch.tensor(live.bars.inputs["student"])
    torch.testing.assert_close(shown, metrics.logits(run.student, x)[[3, 5]], rtol=1e-5, atol=1e-6)
