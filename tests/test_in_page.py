"""A student that learns in the page: its program beside torch, and its panel in a Chromium without a network."""

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import chromium
import pytest
import torch
from conftest import ROOT
from playwright.sync_api import sync_playwright
from torch.nn import functional as F

from kdlab import data, live, metrics, models, train
from kdlab.widgets import in_page

NAMES = list("0123456789")
pytestmark = pytest.mark.xdist_group("page")  # what they share is made once


def node() -> str:
    """A node: the machine's, or the one that playwright brings."""
    import playwright

    return shutil.which("node") or str(Path(playwright.__file__).parent / "driver" / "node")


def test_the_parts_of_the_program_hold_by_themselves():
    ran = subprocess.run(
        [node(), "--test", str(ROOT / "tests" / "js")], capture_output=True, text=True, timeout=240, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert int(re.search(r"pass (\d+)", ran.stdout)[1]) >= 13 and "fail 0" in ran.stdout


# ---- the same steps as train.Training's


@pytest.fixture(scope="module")
def digits():
    return in_page.mnist()


@pytest.fixture(scope="module")
def packed(digits):
    return in_page.pack(digits["train"], digits["test"], NAMES)


def drawn(k: int) -> dict:
    """The k-th of the settings that are compared, drawn from its number."""
    rng = torch.Generator().manual_seed(k)

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=rng))

    def one_of(*choices):
        return choices[int(torch.randint(len(choices), (1,), generator=rng))]

    optimizer = one_of("adam", "adam", "sgd")
    knobs = {"T": 10 ** between(0, 1.5), "alpha": one_of(0.0, 1.0, between(0, 1)), "smoothing": one_of(0.0, 0.1)}
    rate = {"adam": (-3.0, -2.0), "sgd": (-2.5, -1.5)}[optimizer]
    return {
        "knobs": knobs | {"lr": 10 ** between(*rate)},
        "hidden": [one_of(10, 30, 50)] * one_of(1, 1, 2),
        "seed": one_of(0, 1, 7, 2**31 + 5),
        "n": one_of(200, 1000, 3000),
        "missing": one_of([], [], [3], [7, 8]),
        "batch_size": one_of(32, 64),
        "optimizer": optimizer,
        "steps": 1000,
    }


def by_torch(
    digits: dict, setting: dict, steps: int, dtype: torch.dtype = torch.float32
) -> tuple[list[float], torch.nn.Module, str]:
    """The losses of the same training in Python, the student, and the data's digest."""
    x, y, t = (part[: setting["n"]] for part in digits["train"])
    seen = torch.tensor([int(c) not in setting["missing"] for c in y])
    values = setting["knobs"]
    knobs = live.Knobs(**{name: live.Knob(values[name], *in_page.KNOBS[name]) for name in in_page.KNOBS})
    student = models.mlp(setting["hidden"], seed=setting["seed"]).to(dtype)
    cases = (x[seen].to(dtype), y[seen], t[seen])
    training = train.Training(
        student,
        cases,
        in_page.objective(knobs),
        steps=steps,
        lr=values["lr"],
        batch_size=setting["batch_size"],
        seed=setting["seed"],
        schedule=train.constant,
        optimizer=in_page.OPTIMIZERS[setting["optimizer"]],
    )
    return [float(sum(step.terms.values())) for step in training], student, training.settings()["data"]


def largest_gap(some: list[float], others: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(some, others, strict=True))


SETTINGS = [drawn(k) for k in range(8)]


@pytest.fixture(scope="module")
def in_javascript(packed, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "pack.gz"
    path.write_bytes(packed)
    ran = subprocess.run(
        [node(), str(ROOT / "tests" / "js" / "engine.js"), str(path)],
        input=json.dumps(SETTINGS),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout)


@pytest.mark.parametrize("k", range(len(SETTINGS)))
def test_it_takes_the_steps_that_torch_takes(k, digits, in_javascript, one_thread):
    """From the same start and order: for 300 steps the loss of a torch that rounds to doubles, as JavaScript does, to
    1e-9 of itself; that of float32 to 1e-5, or as near as float32's rounding lets torch come to itself. After 1,000
    steps as many test errors, to 3 of 1,000."""
    setting, other = SETTINGS[k], in_javascript[k]
    losses, student, digest = by_torch(digits, setting, setting["steps"])
    assert other["digest"] == digest, "other data, or in another order"
    begun = models.mlp(setting["hidden"], seed=setting["seed"])
    linear = [layer for layer in begun if isinstance(layer, torch.nn.Linear)]
    for layer, (weight, bias) in zip(linear, other["start"], strict=True):
        assert torch.equal(layer.weight.T.flatten(), torch.tensor(weight)) and layer.bias.tolist() == bias
    exact, *_ = by_torch(digits, setting, 300, torch.float64)
    ours = [sum(terms) for terms in other["losses"][:300]]
    assert largest_gap(ours, exact) < 1e-9, setting
    rounding = largest_gap(losses[:300], exact)
    assert largest_gap(ours, losses[:300]) < max(1e-5, 2 * rounding), f"{setting}: float32 itself is {rounding:.1e} off"
    x, y, _ = digits["test"]
    assert abs(metrics.errors(metrics.logits(student, x), y) - other["errors"]) <= 3


def test_the_drawn_settings_are_of_every_kind_and_float32_is_near_in_most(digits, in_javascript, one_thread):
    """The second bound above is for trainings that magnify rounding, few images seen very often; most are none."""
    assert {setting["optimizer"] for setting in SETTINGS} == {"adam", "sgd"}
    assert {len(setting["hidden"]) for setting in SETTINGS} == {1, 2}
    assert any(setting["missing"] for setting in SETTINGS) and any(not setting["missing"] for setting in SETTINGS)
    near = [
        largest_gap([sum(terms) for terms in other["losses"][:300]], by_torch(digits, setting, 300)[0]) < 1e-5
        for setting, other in zip(SETTINGS, in_javascript, strict=True)
    ]
    assert sum(near) >= 6


def test_a_slip_of_the_loss_would_be_seen(digits, in_javascript, one_thread):
    """Planted: alpha off by half a hundredth."""
    setting, other = SETTINGS[0], in_javascript[0]
    alpha = min(1.0, setting["knobs"]["alpha"] + 0.01) - 0.005
    losses, *_ = by_torch(digits, setting | {"knobs": setting["knobs"] | {"alpha": alpha}}, 300)
    assert largest_gap([sum(terms) for terms in other["losses"][:300]], losses) > 1e-3


def test_the_objective_of_the_page_is_the_two_terms_with_a_smoothed_label():
    s, t, y = torch.randn(6, 10), torch.randn(6, 10), torch.arange(6)
    knobs = live.Knobs(
        **{n: live.Knob(v, *in_page.KNOBS[n]) for n, v in zip(in_page.KNOBS, (3, 0.6, 0.1, 0.2), strict=True)}
    )
    terms = in_page.objective(knobs)(lambda x: x, s, y, t)
    target = torch.full((6, 10), 0.02) + 0.8 * F.one_hot(y, 10)
    p = F.softmax(t / 3, 1)
    by_hand = 9 * (p * (p.log() - F.log_softmax(s / 3, 1))).sum(1).mean()
    torch.testing.assert_close(terms["ce"], 0.4 * -(target * F.log_softmax(s, 1)).sum(1).mean())
    torch.testing.assert_close(terms["kd"], 0.6 * by_hand)


# ---- what a page keeps


def test_the_pack_says_what_is_in_it(packed, digits):
    raw = gzip.decompress(packed)
    length = int.from_bytes(raw[:4], "little")
    header = json.loads(raw[4 : 4 + length])
    assert header["n"] == 3000 and header["n_test"] == 1000 and header["names"] == NAMES and length % 4 == 0
    images = torch.frombuffer(bytearray(raw[4 + length : 4 + length + 784]), dtype=torch.uint8)
    assert torch.equal(images.float() / 255, digits["train"][0][0].flatten())
    assert torch.equal(torch.frombuffer(bytearray(raw[-40:]), dtype=torch.float32), digits["test"][2][-1])


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda x, y, t: (x / 2, y, t), "a byte a pixel"),
        (lambda x, y, t: (x.flatten(1), y, t), "square images of one channel"),
        (lambda x, y, t: (x, y, t[:, :9]), "logits"),
    ],
)
def test_what_a_page_cannot_keep_is_refused(change, said, digits):
    few = tuple(part[:20] for part in digits["train"])
    with pytest.raises(ValueError, match=said):
        in_page.pack(change(*few), change(*few), NAMES)


def test_more_classes_than_the_panel_shows_are_refused(digits):
    x, y, t = (part[:20] for part in digits["train"])
    many = (x, y, torch.cat([t, t[:, :1]], dim=1))
    with pytest.raises(ValueError, match="at most 10 classes"):
        in_page.pack(many, many, [*NAMES, "other"])


def test_a_live_panel_without_a_teachers_logits_has_no_student_in_the_page(digits):
    x, y, _ = (part[:50] for part in digits["train"])
    run = live.Run(lambda: models.mlp((5,)), (x, y), lambda knobs: train.labels(), live.Knobs(lr=0.01))
    with pytest.raises(ValueError, match="teacher=metrics.logits"):
        in_page.or_in_page(in_page.Live(run, (x, y), NAMES))


def test_a_log_of_elsewhere_is_no_pages_log(digits):
    with pytest.raises(ValueError, match="not saved by a page"):
        in_page.run({"settings": {}}, digits["train"])


# ---- the panel in a Chromium


@pytest.fixture(scope="module")
def address(packed, tmp_path_factory):
    path = in_page.write_page(tmp_path_factory.mktemp("site") / "student.html", packed)
    assert path.stat().st_size < 2e6
    return f"file://{path}"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        program = playwright.chromium.launch(executable_path=chromium.find(), args=chromium.ARGS)
        yield program
        program.close()


class Panel:
    """A page with the panel, without a network; what it asked for and what went wrong is kept."""

    def __init__(self, browser, address, width=1180, before="", **look):
        self.context = browser.new_context(
            offline=True, viewport={"width": width, "height": 900}, accept_downloads=True, **look
        )
        self.page, self.asked, self.errors = self.context.new_page(), [], []
        self.page.set_default_timeout(120_000)  # only what hangs takes so long
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        if before:
            self.page.add_init_script(before)
        self.page.goto(address)

    def ready(self):
        self.page.wait_for_selector("[data-ready]")
        return self

    def press(self, name):
        self.page.click(f"[data-act={name}]")

    def shown(self):
        return self.page.evaluate("JSON.parse(document.getElementById('panel').dataset.shown)")

    def until(self, condition):
        self.page.wait_for_function(
            f"() => {{ const shown = JSON.parse(document.getElementById('panel').dataset.shown); return {condition} }}",
            timeout=120_000,
        )
        return self.shown()

    def slide(self, name, value):
        self.page.evaluate(
            "([name, value]) => { const input = document.querySelector(`[name=${name}]`); input.value = value; "
            "input.dispatchEvent(new Event('input', { bubbles: true })) }",
            [name, value],
        )

    def status(self):
        return self.page.inner_text("[role=status]")

    def log(self):
        with self.page.expect_download() as download:
            self.press("save")
        return json.loads(Path(download.value.path()).read_text())


@pytest.fixture
def opened(browser, address):
    panels = []

    def open_page(hash="", **settings):
        panels.append(Panel(browser, f"{address}#{hash}", **settings))
        return panels[-1]

    yield open_page
    for panel in panels:
        assert not panel.errors
        assert not [url for url in panel.asked if not url.startswith(("file:", "blob:", "data:"))]
        panel.context.close()


@pytest.mark.browser
def test_both_students_learn_and_the_panel_says_how_well(opened):
    panel = opened().ready()
    panel.press("play")
    panel.until("shown.groups[1].number >= 400")
    panel.press("play")
    shown = panel.until("!shown.playing")
    alone, taught = shown["groups"]
    assert alone["number"] == taught["number"] >= 400
    assert taught["errors"][0] < alone["errors"][0] < 160  # of 1,000; a guess makes 900
    said = f"A {taught['number']:,} {taught['errors'][0]} "  # drawn a moment later
    panel.page.wait_for_function(
        "said => document.querySelector('.kd-runs tbody tr:nth-child(2)').innerText.split(/\\s+/).join(' ')"
        ".includes(said)",
        arg=said,
    )
    assert "images a second" in panel.status()


@pytest.mark.browser
def test_a_log_of_the_page_is_replayed_in_python_and_one_of_python_in_the_page(opened, digits, tmp_path):
    panel = opened("units=20&images=500&missing=3").ready()
    panel.press("play")
    panel.until("shown.groups[1].number >= 60")
    panel.slide("T", 0.3)
    panel.slide("smoothing", 0.1)
    number = panel.shown()["groups"][1]["number"]
    panel.until(f"shown.groups[1].number >= {number + 60}")
    panel.press("play")
    shown = panel.until("!shown.playing")
    log = panel.log()
    run = in_page.run(log, digits["train"])
    again = live.replay(log, run)
    x, y, _ = digits["test"]
    assert log["turns"] and again.knobs.turns == log["turns"] and again.number == log["steps"]
    assert abs(metrics.errors(metrics.logits(again.student, x), y) - shown["groups"][1]["errors"][0]) <= 3

    other = in_page.run(log, digits["train"])
    for _ in other.steps(40):
        pass
    other.knobs.turn(T=2.5)
    for _ in other.steps(60):
        pass
    path = tmp_path / "live.json"
    path.write_text(json.dumps(other.log()))
    panel.page.set_input_files("input[type=file]", path)
    panel.until("shown.groups.length === 3")
    panel.press("play")
    followed = panel.until("shown.groups[2].number === 100")["groups"][2]
    assert followed["used"]["T"] == 2.5 and followed["turns"] == 1
    assert abs(metrics.errors(metrics.logits(other.student, x), y) - followed["errors"][0]) <= 3
    path.write_text(json.dumps(other.log() | {"settings": other.log()["settings"] | {"seed": 9}}))
    panel.page.set_input_files("input[type=file]", path)
    panel.until("shown.problem && shown.problem.includes('seed: 9 in the log, 0 here')")


@pytest.mark.browser
def test_the_page_opens_with_the_idea_and_its_race_says_what_the_table_says(opened, digits):
    panel = opened().ready()
    _, y, t = digits["test"]
    image = panel.page.evaluate("document.querySelector('.kd-hero [role=img]').getAttribute('aria-label')")
    shown = panel.page.locator(".kd-hero [data-shown]").evaluate_all(
        "all => all.map(el => JSON.parse(el.dataset.shown))"
    )
    label, soft = (picture["series"][0]["values"] for picture in shown)
    digit = int(image[-1])
    assert max(label) == label[digit] > 0.999 and max(soft) == soft[digit] < 0.95
    rows = F.softmax(t / 4, dim=1)
    nearest = (rows - torch.tensor(soft)).abs().sum(dim=1).argmin()
    torch.testing.assert_close(rows[nearest], torch.tensor(soft), atol=1e-4, rtol=1e-4)
    assert y[nearest] == digit, "the teacher's own soft target of an image that it names right"
    assert panel.page.locator(".kd-over canvas").count() >= 1, "what it looks like, above the bars that rise"
    panel.press("step")
    shown = panel.until("shown.groups[1].number === 1")
    race = panel.page.inner_text(".kd-race")
    for group, name in zip(shown["groups"], ("student alone", "distilled"), strict=True):
        assert f"{name}: {group['errors'][0] / 10:.1f} % wrong" in race


@pytest.mark.browser
def test_a_fork_is_turned_by_itself(opened):
    panel = opened().ready()
    panel.press("step")
    panel.press("fork")
    panel.until("shown.groups.length === 3")
    panel.slide("alpha", 0.2)
    panel.press("step")
    shown = panel.until("shown.groups[2].number === 2")
    assert [group["used"]["alpha"] for group in shown["groups"]] == [0, 0.9, 0.2]
    panel.page.click("[data-run=A]")
    assert panel.page.inner_text("label:has([name=alpha]) output") == "0.9"


@pytest.mark.browser
def test_a_missing_digit_is_known_again_when_its_bias_is_raised(opened):
    panel = opened("missing=3&T=8&alpha=1").ready()
    panel.press("play")
    panel.until("shown.groups[1].number >= 500")
    panel.press("play")
    before = panel.until("!shown.playing")["groups"][1]["errors"][0]
    panel.slide("bias", 8)
    after = panel.until(f"shown.groups[1].errors[0] !== {before}")["groups"]
    assert after[1]["errors"][0] < before - 25  # about a hundred 3s, most of them missed before
    assert after[0]["errors"][0] > 90  # who learned from labels alone has never heard of a 3


@pytest.mark.browser
def test_the_address_holds_the_setting_and_sets_it(opened):
    panel = opened("T=8&units=50&seeds=2&missing=79").ready()
    shown = panel.shown()
    assert shown["groups"][1]["used"]["T"] == 8 and len(shown["groups"][1]["errors"]) == 2
    panel.slide("T", 1)
    assert "T=10" in panel.page.url and "units=50" in panel.page.url and "alpha" not in panel.page.url
    panel.page.evaluate("location.hash = 'T=3&layers=2'")  # as if it was typed
    panel.page.wait_for_function(
        "JSON.parse(document.getElementById('panel').dataset.shown ?? '{}').groups?.[1].used.T === 3", timeout=60_000
    )


@pytest.mark.browser
def test_a_digit_that_is_drawn_is_read(opened):
    panel = opened().ready()
    panel.press("play")
    panel.until("shown.groups[1].number >= 400")
    panel.press("play")
    panel.page.locator(".kd-pad").scroll_into_view_if_needed()
    pad = panel.page.locator(".kd-pad").bounding_box()
    panel.page.mouse.move(pad["x"] + pad["width"] * 0.5, pad["y"] + pad["height"] * 0.2)
    panel.page.mouse.down()
    panel.page.mouse.move(pad["x"] + pad["width"] * 0.5, pad["y"] + pad["height"] * 0.8, steps=12)
    panel.page.mouse.up()
    panel.page.wait_for_function("document.querySelector('.kd-room-pad').innerText.includes('A: 1')")


@pytest.mark.browser
def test_what_cannot_be_done_is_said_in_the_panel(opened):
    panel = opened("lr=10").ready()
    panel.press("play")
    panel.until("shown.groups[1].diverged")
    panel.page.wait_for_function("document.querySelector('[role=status]').innerText.includes('rate is too high')")
    panel.slide("lr", -2)
    panel.press("reset")
    panel.press("step")
    panel.until("shown.groups[1].number === 1 && !shown.groups[1].diverged && !shown.problem")
    for digit in range(10):
        panel.page.evaluate("d => document.querySelector(`[name='missing ${d}']`).click()", digit)
    panel.until("shown.problem && shown.problem.includes('no image is left')")


@pytest.mark.browser
def test_an_old_browser_is_told_what_it_lacks(opened):
    panel = opened(before="delete window.DecompressionStream")
    assert "too old to train a student" in panel.page.inner_text("[role=alert]")
    assert not panel.page.query_selector("[data-act=play]")


@pytest.mark.browser
def test_on_a_phone_nothing_is_cut_off(opened):
    panel = opened(width=390, has_touch=True, is_mobile=True, color_scheme="dark").ready()
    assert panel.page.evaluate("document.documentElement.scrollWidth <= 390")
    assert panel.page.evaluate("document.querySelector('[data-act=play]').getBoundingClientRect().height >= 36")
    panel.page.tap("[data-act=play]")
    panel.until("shown.groups[1].number > 20")


@pytest.mark.browser
def test_the_keyboard_alone_is_enough(opened):
    panel = opened().ready()
    panel.page.focus("[data-act=play]")
    panel.page.keyboard.press("Enter")
    panel.until("shown.groups[1].number > 20")
    panel.page.focus("[name=T]")
    before = panel.shown()["groups"][1]["used"]["T"]
    panel.page.keyboard.press("ArrowRight")
    panel.until(f"shown.groups[1].used.T > {before}")


def test_a_drawing_becomes_the_same_image_as_in_python(tmp_path):
    """js likeMnist beside data.like_mnist, on strokes of several places and sizes."""
    rng, side = torch.Generator().manual_seed(3), 140
    program = tmp_path / "like.js"
    program.write_text(
        f"{in_page.panel_script()}\nconst drawings = JSON.parse(require('fs').readFileSync(0, 'utf8'));\n"
        f"console.log(JSON.stringify(drawings.map((ink) => Array.from(likeMnist(Uint8Array.from(ink), {side})))));"
    )
    drawings = []
    for _ in range(6):
        ink = torch.zeros(side, side, dtype=torch.uint8)
        top, left, high, wide = (torch.rand(4, generator=rng) * torch.tensor([60, 60, 70, 40])).int().tolist()
        ink[top : top + high + 5, left : left + wide + 5] = torch.randint(0, 256, (high + 5, wide + 5), generator=rng)
        drawings.append(ink)
    given = json.dumps([ink.flatten().tolist() for ink in drawings])
    ran = subprocess.run([node(), str(program)], input=given, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-1500:]
    for ink, other in zip(drawings, json.loads(ran.stdout), strict=True):
        ours = (data.like_mnist(ink).flatten() * 255).round()
        assert (ours - torch.tensor(other)).abs().max() <= 1
