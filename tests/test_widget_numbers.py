"""The numbers that the browser computes and draws, against torch in float64."""

import base64
import contextlib
import json
import math

import chromium
import pytest
import torch
import torch.nn.functional as F

from kdlab import metrics, specialists, widgets
from kdlab.metrics import class_bias
from kdlab.specialists import equation5
from kdlab.widgets.pieces import JS, RECIPES

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium.find() is None, reason="no Chromium found: set KDLAB_CHROMIUM to its path"),
]
N = 10
NAMES = [str(c) for c in range(N)]


@pytest.fixture(scope="module")
def page():
    """A page that knows math.js; any error in it fails the test that caused it."""
    from playwright.sync_api import sync_playwright

    with (
        sync_playwright() as playwright,
        contextlib.closing(playwright.chromium.launch(executable_path=chromium.find(), args=chromium.ARGS)) as browser,
    ):
        page = browser.new_page()
        page.add_script_tag(content=(JS / "math.js").read_text(encoding="utf-8"))
        yield page


@pytest.fixture(params=["usual", "confident", "extreme", "tied"])
def logits(request):
    """(3, N) logits in float64: a student, a teacher, a third."""
    x = torch.randn(3, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return {"usual": x, "confident": 12 * x, "extreme": 1e4 * x / x.abs().max(), "tied": x * 0 + 7.0}[request.param]


temperatures = pytest.mark.parametrize("T", [0.01, 1.0, 4.0, 100.0])


def recipe(page, name, inputs, **knobs):
    inputs = {key: torch.as_tensor(x).tolist() for key, x in inputs.items()}
    knobs = {"index": 0, "T": 1.0, "alpha": 0.5, "t_squared": True, "labels": NAMES} | knobs
    return page.evaluate("([name, d, k]) => recipes[name](d, k)", [name, inputs, knobs])


def series(drawn):
    return torch.tensor([s["values"] for s in drawn["series"]], dtype=torch.float64)


def numbers(drawn):
    return torch.tensor([n["value"] for n in drawn["numbers"]], dtype=torch.float64)


def close(a, b, scale=1.0):
    """Equal to nine digits; what is left of a difference of big numbers, to nine digits of those (`scale`)."""
    torch.testing.assert_close(
        torch.as_tensor(a, dtype=torch.float64),
        torch.as_tensor(b, dtype=torch.float64),
        rtol=1e-9,
        atol=1e-12 * max(1.0, float(scale)),
    )


def test_python_knows_the_recipes_of_the_page(page):
    assert {name for known in RECIPES.values() for name in known if name} == set(page.evaluate("Object.keys(recipes)"))


@temperatures
def test_softened(page, logits, T):
    drawn = recipe(page, "softened", {"logits": logits, "labels": [3, 3, 3]}, T=T, index=1)
    p = torch.distributions.Categorical(logits=logits[1] / T).probs
    close(series(drawn)[0], p)
    others = p[torch.arange(N) != 3].sum()
    close(numbers(drawn), [-(torch.special.xlogy(p, p).sum()) / math.log(2), 100 * others], scale=1e3)


@temperatures
@pytest.mark.parametrize("t_squared", [True, False])
def test_two_terms_and_their_gradients(page, logits, T, t_squared):
    student, teacher, alpha = logits[0].clone().requires_grad_(), logits[1], 0.3
    soft = F.kl_div(F.log_softmax(student / T, 0), F.log_softmax(teacher / T, 0), log_target=True, reduction="sum")
    soft = alpha * soft * (T**2 if t_squared else 1)
    hard = (1 - alpha) * F.cross_entropy(student[None], torch.tensor([2]))
    by_soft, by_hard = (torch.autograd.grad(term, student)[0] for term in (soft, hard))
    inputs = {"student": logits[:1], "teacher": logits[1:2], "labels": [2]}
    drawn = recipe(page, "two_terms", inputs, T=T, alpha=alpha, t_squared=t_squared)
    close(series(drawn), torch.stack([by_soft, by_hard, by_soft + by_hard]), scale=max(T, 1 / T))
    close(numbers(drawn), torch.stack([soft, hard, soft + hard]).detach(), scale=T**2)


@temperatures
def test_hot_limit_shows_N_times_the_gradient_and_where_it_goes(page, logits, T):
    student = logits[0].clone().requires_grad_()
    loss = T**2 * F.kl_div(F.log_softmax(student / T, 0), F.softmax(logits[1] / T, 0), reduction="sum")
    gradient = N * torch.autograd.grad(loss, student)[0]
    limit = (logits[0] - logits[0].mean()) - (logits[1] - logits[1].mean())
    drawn = recipe(page, "hot_limit", {"student": logits[:1], "teacher": logits[1:2]}, T=T)
    close(series(drawn), torch.stack([gradient, limit]), scale=max(1e3, logits.abs().max()))
    close(numbers(drawn)[0], (gradient - limit).abs().max(), scale=max(1e3, logits.abs().max()))


def test_hot_limit_is_reached(page):
    s, t = torch.randn(2, 1, N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gaps = [numbers(recipe(page, "hot_limit", {"student": s, "teacher": t}, T=T))[0] for T in (1.0, 1e2, 1e5)]
    assert gaps[0] > 0.1 > gaps[1] > 1e-4 > gaps[2]


@temperatures
def test_gradient_size(page, logits, T):
    student, teacher = logits[:2].clone().requires_grad_(), logits[1:]

    def size(T):
        loss = F.kl_div(F.log_softmax(student / T, 1), F.log_softmax(teacher / T, 1), log_target=True, reduction="sum")
        return torch.autograd.grad(loss, student)[0].norm(dim=1).mean()

    drawn = recipe(page, "gradient_size", {"student": logits[:2], "teacher": teacher}, T=T)
    bare = torch.stack([size(x) for x in drawn["x"]])
    close(series(drawn), torch.stack([bare * torch.tensor(drawn["x"], dtype=torch.float64) ** 2, bare]), scale=10)
    close([s["at"] for s in drawn["series"]], [size(T) * T**2, size(T)], scale=max(T, 1 / T))


@temperatures
def test_ensemble(page, logits, T):
    drawn = recipe(page, "ensemble", {"members": logits}, T=T)
    p = (logits / T).softmax(1)
    arithmetic = p.mean(0)
    log_geometric = (logits / T).log_softmax(1).mean(0).log_softmax(0)  # the mean of log p, normalized
    close(series(drawn), torch.stack([arithmetic, log_geometric.exp()]), scale=1e3)
    kl = (torch.special.xlogy(arithmetic, arithmetic) - arithmetic * log_geometric).sum()
    close(numbers(drawn), [50 * (arithmetic - log_geometric.exp()).abs().sum(), kl], scale=1e5)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("step", [0, 1, 7, 60])
def test_eq_5_step_by_step(page, step, plain):
    """Images whose top class wakes none, one and two specialists; q, eq. 5 and its gradient at each step."""
    rng = torch.Generator().manual_seed(step)
    generalist = 2 * torch.randn(3, N, dtype=torch.float64, generator=rng)
    for i, top in enumerate((9, 0, 4)):
        generalist[i, top] = 6.0
    clusters, said = [[0, 1, 4], [4, 5, 6]], 2 * torch.randn(2, 3, 4, dtype=torch.float64, generator=rng)
    awake = specialists.awake(generalist, clusters)
    assert awake.sum(dim=1).tolist() == [0, 1, 2]
    rate = equation5.SAFE if plain else None
    log_q = equation5.path(generalist, said, clusters, awake, n_steps=step, rate=rate)[-1]
    cost = equation5.objective(log_q, generalist, said, clusters, awake)
    doubt = metrics.entropy(generalist.softmax(dim=1))
    for i in range(3):
        inputs = {"logits": generalist, "specialists": said, "clusters": clusters, "labels": [9, 1, 2]}
        drawn = recipe(page, "eq5", inputs, index=i, step=step, plain=plain)
        shown = [int(c) for c in drawn["labels"][:-1]]
        for values, p in zip(series(drawn), (generalist[i].softmax(0), log_q[i].exp()), strict=False):
            close(values, [*p[shown], 1 - p[shown].sum()], scale=1e3)
        assert len(drawn["series"]) == 2 + int(awake[i].sum())
        for values, m in zip(series(drawn)[2:], awake[i].nonzero().flatten().tolist(), strict=True):
            own = dict(zip(clusters[m], said[m, i].softmax(0).tolist(), strict=False))
            close(values[:-1], [own.get(c, 0.0) for c in shown], scale=1e3)
        close(numbers(drawn)[::2], 100 * torch.stack([generalist[i].softmax(0).max(), log_q[i].exp().max()]), scale=1e3)
        close(numbers(drawn)[1:2], doubt[i : i + 1], scale=1e5)
        close(numbers(drawn)[3:], cost[i : i + 1], scale=1e3)
        assert shown[drawn["mark"]] == [9, 1, 2][i], "the true class is shown whoever holds it likely"


@temperatures
def test_nets_side_by_side(page, logits, T):
    drawn = recipe(page, "nets", {"big": logits, "small": logits.flip(0)}, T=T, index=2)
    p = (logits[[2, 0]] / T).softmax(1)
    close(series(drawn), p)
    close(numbers(drawn), 100 * p.amax(1), scale=100)
    best = p.round(decimals=12).argmax(1).tolist()  # the first of those that tie
    assert [n["label"] for n in drawn["numbers"]] == [f"big: {best[0]}", f"small: {best[1]}"]


def test_nets_that_were_not_asked_have_no_bars_and_no_number(page):
    drawn = recipe(page, "nets", {"big": [], "small": []})
    assert [s["name"] for s in drawn["series"]] == ["big", "small"] and not series(drawn).any()
    assert series(drawn).shape == (2, N) and drawn["numbers"] == []


@temperatures
def test_paths(page, logits, T):
    drawn = recipe(page, "paths", {"logits": logits, "classes": [3, 7]}, T=T, index=2)
    x = torch.tensor(drawn["x"], dtype=torch.float64)
    close(x[[0, 60, 120]], [0.1, 10**0.5, 100])
    close(series(drawn), (logits[2] / x[:, None]).softmax(1)[:, [3, 7]].T)
    close(numbers(drawn), (logits[2] / T).softmax(0)[[3, 7]])


def test_runs_are_picked_by_row_and_read_at_their_end(page, logits):
    drawn = recipe(page, "runs", {"x": list(range(1, N + 1)), "hard": logits, "soft": 2 * logits}, index=2)
    assert [s["name"] for s in drawn["series"]] == ["hard", "soft"] and drawn["x"] == list(range(1, N + 1))
    close(series(drawn), torch.stack([logits[2], 2 * logits[2]]))
    close(numbers(drawn), [logits[2, -1], 2 * logits[2, -1]])


@temperatures
def test_similarity_is_the_mean_soft_target_of_each_class_in_per_cent(page, logits, T):
    drawn = recipe(page, "similarity", {"logits": logits, "labels": [4, 0, 4]}, T=T)
    wanted = torch.zeros(N, N, dtype=torch.float64)
    p = (logits / T).softmax(1)
    wanted[4], wanted[0] = (p[0] + p[2]) / 2, p[1]
    close(drawn["matrix"], 100 * wanted, scale=100)


@temperatures
def test_words_are_sums_over_their_states(page, logits, T):
    groups = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    teacher, student = logits, logits.flip(0)
    p = [
        torch.stack([(z / T).softmax(1)[:, torch.tensor(groups) == g].sum(1) for g in range(3)], 1)
        for z in (teacher, student)
    ]
    nets = {"teacher": teacher, "student": student, "groups": groups}
    close(series(recipe(page, "words", nets, T=T, index=2)), torch.stack([p[0][2], p[1][2]]))
    truth = [0, 1, 2]
    heard = recipe(page, "heard", nets | {"truth": truth}, T=T)
    for lane, each in zip(heard["lanes"], p, strict=True):
        close(lane["p"], each.amax(1))
        close(each.gather(1, torch.tensor(lane["word"])[:, None])[:, 0], each.amax(1))
    right = [[w == t for w, t in zip(lane["word"], truth, strict=True)] for lane in heard["lanes"]]
    close(numbers(heard), [100 * sum(each) / 3 for each in right])


@pytest.mark.parametrize("bias", [-4.0, 0.0, 2.5])
def test_confusion_counts_what_is_called_what_with_the_bias_moved(page, logits, bias):
    labels = [4, 0, 4]
    inputs = {"logits": logits, "labels": labels, "classes": [3, 4]}
    drawn = recipe(page, "confusion", inputs, bias=bias, labels=list("0123456789"))
    called = class_bias.shifted(logits, [3, 4], bias).argmax(1)
    wanted = torch.zeros(N, N, dtype=torch.float64)
    for label, call in zip(labels, called.tolist(), strict=True):
        wanted[label, call] += 1
    close(drawn["matrix"], wanted)
    close(numbers(drawn), [3 - wanted.trace(), 0.0, 100 * wanted[4, 4] / 2])


MOUNT = """async ({ esm, css, state }) => {
  const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  for (const [name, value] of Object.entries(state)) if (value?.bytes !== undefined) state[name] = bytes(value.bytes);
  const module = await import(URL.createObjectURL(new Blob([esm], { type: "text/javascript" })));
  const piece = typeof module.default === "function" ? await module.default() : module.default;
  const heard = {}, fire = (event, ...told) => (heard[event] ?? []).forEach((f) => f(...told));
  const model = { get: (name) => state[name], save_changes() {}, off() {},
    on: (event, f) => { (heard[event] ??= []).push(f); },
    set: (name, value) => { state[name] = value; fire(`change:${name}`); fire("change"); } };
  document.body.replaceChildren();
  const el = document.body.appendChild(document.createElement("div"));
  document.head.appendChild(document.createElement("style")).textContent = css;
  await piece.initialize?.({ model });
  await piece.render({ model, el });
  Object.assign(window, { model, el, hear: (told, data) => fire("msg:custom", told, [bytes(data)]) });
}"""


def mount(page, piece):
    """Draw `piece` with its real script and state and without a kernel; returns what the picture shows."""
    state = {name: piece.get_state()[name] for name in piece.keys if name[0] != "_" and name != "layout"}
    state = {
        k: {"bytes": base64.b64encode(v).decode()} if isinstance(v, bytes | memoryview) else v for k, v in state.items()
    }
    page.evaluate(MOUNT, {"esm": piece._esm, "css": piece._css, "state": state})
    return shown(page)


def shown(page):
    return json.loads(page.evaluate("el.dataset.shown"))


def turn(page, name, value):
    """Set a trait as a linked slider does; returns what the picture shows before the browser does anything else."""
    return json.loads(page.evaluate("([name, v]) => { model.set(name, v); return el.dataset.shown }", [name, value]))


def test_bars_follow_T_and_keep_their_nodes(page):
    x = torch.randn(2, N, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    panel = widgets.temperature(x, NAMES, label=[1, 2])
    mount(page, panel.pieces["bars"])
    page.evaluate("window.nodes = [...el.querySelectorAll('*')]")
    torch.testing.assert_close(series(turn(page, "T", 2.0))[0], (x[0] / 2).softmax(0), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(series(turn(page, "index", 1))[0], (x[1] / 2).softmax(0), rtol=1e-5, atol=1e-7)
    assert page.evaluate("nodes.every((node) => el.contains(node))"), "a redraw replaced nodes: the picture flickers"
    tallest = page.evaluate("[...el.querySelectorAll('.kd-bars rect')].map((r) => +r.getAttribute('height'))")
    assert tallest.index(max(tallest)) == int(x[1].argmax())
    said = page.get_by_role("img").get_attribute("aria-label")
    assert "T = 2.00" in said and "entropy" in said


def test_gradients_of_both_signs_hang_from_the_zero_line(page):
    x = torch.randn(2, N, generator=torch.Generator().manual_seed(3))
    values = mount(page, widgets.two_terms(x[0], x[1], 3, NAMES).pieces["bars"])["series"][2]["values"]
    zero = float(page.locator(".kd-axis").get_attribute("y1"))
    tops = page.evaluate("[...el.querySelectorAll('.kd-bars rect')].slice(-10).map((r) => +r.getAttribute('y'))")
    assert all((top < zero - 0.01) == (v > 0) for top, v in zip(tops, values, strict=True) if abs(v) > 0.01)
    assert turn(page, "alpha", 0.0)["numbers"][0]["value"] == 0


def test_curves_follow_T_and_the_picture_changes(page):
    x = torch.randn(2, N, generator=torch.Generator().manual_seed(4))
    mount(page, widgets.microscope(x, [0, 1], NAMES, images=torch.rand(2, 8, 8)).pieces["paths"])
    before = page.evaluate("el.querySelector('canvas').toDataURL()")
    close([s["at"] for s in turn(page, "T", 20.0)["series"]], [n["value"] for n in turn(page, "T", 20.0)["numbers"]])
    assert page.evaluate("el.querySelector('canvas').toDataURL()") != before


def test_runs_follow_their_slider_and_the_line_stands_where_each_is_to_stop(page):
    curves = {
        "hard, test": [[1.0, 3, 2], [4, 5, 6]],
        "hard, own": [[1.0, 2, 3]] * 2,
        "soft, test": [[2.0, 3, 3], [6, 6, 7]],
    }
    panel = widgets.runs([1, 10, 100], curves, ["1 %", "3 %"], stop=[10, 100])
    assert mount(page, panel.pieces["curves"])["cursor"] == 10
    before = page.evaluate("el.querySelector('canvas').toDataURL()")
    now = turn(page, "index", 1)
    assert now["cursor"] == 100 and [n["value"] for n in now["numbers"]] == [6, 7]
    assert [(s["name"], s["first"], s["last"]) for s in now["series"]] == [
        ("hard, test", 4, 6),
        ("hard, own", 1, 3),
        ("soft, test", 6, 7),
    ]
    assert page.evaluate("el.querySelector('canvas').toDataURL()") != before


def test_where_x_is_no_time_nothing_is_said_of_an_end(page):
    curves = {"kept": [[1.0, 3, 2], [4, 5, 6]]}
    panel = widgets.runs([1, 10, 100], curves, ["a", "b"], stop=[10, 100], x_name="rank")
    now = mount(page, panel.pieces["curves"])
    assert now["numbers"] == [] and now["cursor"] == 10
    assert [(s["first"], s["last"]) for s in turn(page, "index", 1)["series"]] == [(4, 6)]


def test_the_front_is_that_of_the_figure_and_every_point_is_drawn(page):
    rng = torch.Generator().manual_seed(0)
    costs, score = 1 + 99 * torch.rand(3, 16, generator=rng), 50 + 50 * torch.rand(16, generator=rng)
    names, kinds = [f"net {i}" for i in range(16)], ["MB", "ms", "millions"]
    mount(page, widgets.Points(inputs={"costs": costs, "score": score}, labels=names, costs=kinds, current=3, now="me"))
    for index in range(3):
        found = turn(page, "index", index)
        assert found["front"] == metrics.front(
            {name: (float(c), float(s)) for name, c, s in zip(names, costs[index], score, strict=True)}
        )
        assert page.locator(".kd-dots circle").count() == 16
        assert page.locator(".kd-dots .kd-latest").count() == 1
        drawn = page.evaluate("""[...el.querySelectorAll('.kd-dots circle')].map((c) =>
            [+c.getAttribute('cx'), +c.getAttribute('cy'), +c.textContent.match(/net (\\d+)/)[1]])""")
        x, y, by_name = torch.tensor(drawn, dtype=torch.float64).T
        by_name = by_name.long()
        assert torch.corrcoef(torch.stack([x, costs[index, by_name].double().log()]))[0, 1] > 0.9999
        assert torch.corrcoef(torch.stack([y, -score[by_name].double()]))[0, 1] > 0.9999
    page.evaluate("model.set('inputs', { costs: [[], [], []], score: [] })")
    assert shown(page)["n"] == 0 and page.locator(".kd-dots circle").count() == 0


def test_the_log_axis_has_room_for_every_curve(page):
    """p(3) underflows at T = 0.1, and the linear axis of this panel begins at 0."""
    x = 20 * torch.randn(2, N, generator=torch.Generator().manual_seed(4))
    mount(page, widgets.microscope(x, [0, 1], NAMES, images=torch.rand(2, 8, 8)).pieces["paths"])
    inked = (
        "[...el.querySelector('canvas').getContext('2d').getImageData(70, 40, 800, 150).data].filter((v) => v).length"
    )
    page.evaluate("model.set('cursor', false)")
    page.evaluate("model.set('log_y', true)")
    assert page.evaluate(inked) > 5_000  # curves and grid; nothing is drawn where a scale is not finite


def test_curves_grow_by_messages_and_come_back_from_the_history(page):
    curves = widgets.Curves({"loss": ([0, 1, 2], [3.0, 2.0, 1.0])})
    assert mount(page, curves)["series"] == [{"name": "loss", "n": 3, "first": 3, "last": 1}]
    new = base64.b64encode(torch.tensor([[3.0, 0.5], [3.0, 9.0]]).numpy().tobytes()).decode()
    page.evaluate("(data) => hear({ kind: 'append', names: ['loss', 'fork'], counts: [1, 1] }, data)", new)
    page.wait_for_function("JSON.parse(el.dataset.shown).series.length === 2")
    assert [(s["name"], s["n"], s["last"]) for s in shown(page)["series"]] == [("loss", 4, 0.5), ("fork", 1, 9)]


def test_matrix_follows_T_and_its_cell_follows_mouse_and_keys(page):
    x = torch.randn(50, N, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    mount(page, widgets.similarity(x, [0] * 50, NAMES).pieces["matrix"])
    torch.testing.assert_close(
        torch.tensor(turn(page, "T", 3.0)["matrix"][0], dtype=torch.float64),
        100 * (x / 3).softmax(1).mean(0),
        rtol=1e-5,
        atol=1e-7,
    )
    page.locator(".kd-cells rect").nth(2 * N + 3).click(force=True)
    assert shown(page)["selected"] == [2, 3]
    page.get_by_role("img").focus()
    for key in ("ArrowDown", "ArrowLeft", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    assert shown(page)["selected"] == [0, 2]


def test_digit_shows_dark_ink_where_the_image_is_bright(page):
    images = torch.zeros(2, 4, 4)
    images[1, 0, 1] = 1.0
    mount(page, widgets.Digit(images, captions=["empty", "dot"]))
    assert turn(page, "index", 1)["captions"] == ["dot"]
    reds = page.evaluate("[...el.querySelector('canvas').getContext('2d').getImageData(0, 0, 4, 4).data]")[::4]
    assert reds.index(min(reds)) == 1 and min(reds) < 40 < 240 < sorted(reds)[1]


def test_a_stroke_on_the_pad_becomes_ink_and_is_taken_back(page):
    """A level line over half the paper: 70 × 12.6 pixels of 140 × 140, and two half discs at its ends."""
    mount(page, widgets.Pad())
    ink = lambda: torch.tensor(page.evaluate("[...new Uint8Array(model.get('ink').buffer)]")).reshape(-1, 140)  # noqa: E731
    box = page.locator(".kd-pad").bounding_box()
    x, y, side = box["x"], box["y"] + box["height"] / 2, box["width"]
    page.mouse.move(x + side / 4, y)
    page.mouse.down()
    page.mouse.move(x + side / 2, y, steps=9)
    page.wait_for_function("model.get('ink').byteLength > 0")  # while the pen is down
    assert page.evaluate("[...new Uint8Array(model.get('ink').buffer)].some((v) => v)")
    page.mouse.move(x + side * 3 / 4, y, steps=9)
    page.mouse.up()
    first, thick = ink(), 0.09 * 140
    assert (first / 255).sum().item() == pytest.approx(70 * thick + math.pi * (thick / 2) ** 2, rel=0.02)
    assert first[70, 36:104].min() == 255 and not first[:60].any() and not first[80:].any()
    page.mouse.click(x + side / 2, y - side / 4)  # a dot
    assert shown(page)["strokes"] == 2 and ink()[35, 70] == 255
    page.get_by_role("button", name="Undo").click()
    assert torch.equal(ink(), first)
    page.keyboard.press("Delete")
    assert not ink().any() and shown(page) == {"ink": 0, "strokes": 0}


def test_an_image_put_on_the_pad_lies_under_the_strokes(page):
    pad = widgets.Pad()
    pad.put(torch.eye(28))
    mount(page, pad)
    page.mouse.click(*(page.locator(".kd-pad").bounding_box()[side] + 200 for side in ("x", "y")))
    ink = torch.tensor(page.evaluate("[...new Uint8Array(model.get('ink').buffer)]")).reshape(140, 140)
    assert torch.equal(ink[:80, :80], 255 * torch.eye(16).kron(torch.ones(5, 5)).long())
    page.keyboard.press("Backspace")
    assert page.evaluate("[...new Uint8Array(model.get('ink').buffer)].filter((v) => v).length") == 28 * 25
    page.evaluate("model.set('ink', new DataView(new ArrayBuffer(0)))")  # as Pad.clear does it
    assert shown(page) == {"ink": 0, "strokes": 0}
