"""What the panels are made of and what they refuse; test_widget_numbers.py sees them draw."""

import io
import wave

import numpy as np
import pytest
import torch

from kdlab import metrics, widgets

NAMES = ["a", "b", "c"]
LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
IMAGES = torch.linspace(0, 1, 2 * 4 * 4).reshape(2, 4, 4)


def received(curves, monkeypatch):
    """What `curves` sends to the browser from now on: name → [(x, y), …]."""
    points = {}

    def send(content, buffers):
        xy = np.frombuffer(buffers[0], "<f4").reshape(-1, 2)
        for name, part in zip(content["names"], np.split(xy, np.cumsum(content["counts"])[:-1]), strict=True):
            points.setdefault(name, []).extend(map(tuple, part.tolist()))

    monkeypatch.setattr(curves, "send", send)
    return points


def kept(curves):
    """What a saved notebook holds: name → array (n, 2)."""
    xy = np.frombuffer(curves.history, "<f4").reshape(-1, 2)
    parts = np.split(xy, np.cumsum(curves.history_counts)[:-1])
    return dict(zip(curves.history_names, parts, strict=True))


@pytest.mark.parametrize(
    ("panel", "linked"),
    [
        (lambda: widgets.temperature(LOGITS[0], NAMES, image=IMAGES[0], label=0), {"bars.T", "digit.T", "bars.log_y"}),
        (lambda: widgets.temperature(LOGITS, NAMES), {"bars.T", "bars.index", "bars.log_y"}),
        (
            lambda: widgets.microscope(LOGITS, [0, 1], NAMES, images=IMAGES, classes=(1, 2)),
            {"digit.index", "bars.index", "paths.index", "bars.T", "paths.T", "digit.T", "bars.log_y", "paths.log_y"},
        ),
        (lambda: widgets.similarity(LOGITS, [0, 1], NAMES, images=IMAGES), {"matrix.T", "sheets.T"}),
        (lambda: widgets.two_terms(LOGITS[0], LOGITS[1], 1, NAMES), {"bars.T", "bars.alpha", "bars.t_squared"}),
        (lambda: widgets.gradient_size(LOGITS, LOGITS.flip(0)), {"curves.T"}),
        (lambda: widgets.hot_limit(LOGITS[0], LOGITS[1], NAMES), {"bars.T"}),
        (lambda: widgets.ensemble(LOGITS, NAMES), {"bars.T", "bars.log_y"}),
        (lambda: widgets.runs([1, 10, 100], {"test": LOGITS}, ["1 %", "3 %"], stop=[10, 1], start=1), {"curves.index"}),
        (
            lambda: widgets.grids([-1, 0, 1], {"rounded": LOGITS}, [8, 2], {"per tensor": [90, 5]}),
            {"histogram.index", "score.index"},
        ),
    ],
)
def test_every_control_drives_its_pieces_in_the_browser(panel, linked):
    panel = panel()
    names = {piece: name for name, piece in panel.pieces.items()}
    assert {f"{names[link.target[0]]}.{link.target[1]}" for link in panel.links} == linked
    assert all(link.source[0] in panel.controls.values() for link in panel.links)


def test_the_score_at_a_number_of_bits_stands_over_that_number_whichever_way_the_slider_goes():
    panel = widgets.grids([-1, 0, 1], {"rounded": LOGITS}, [8, 2], {"per tensor": [90, 5]})
    score, histogram = panel.pieces["score"], panel.pieces["histogram"]
    assert score.inputs == {"x": [2, 8], "per tensor": [[5, 90], [5, 90]], "stop": [8, 2]}
    assert histogram.inputs["rounded"][0] == [2, 1, 0.5] and histogram.log_y


def test_a_cell_of_the_similarity_shows_the_images_that_carry_most_of_the_other_class():
    logits = torch.tensor([[5.0, 1, 0], [5, 2, 0], [5, 0, 3]])
    panel = widgets.similarity(logits, [0, 0, 0], NAMES, images=torch.rand(3, 4, 4))
    panel.pieces["matrix"].selected = [0, 1]
    p = (torch.tensor([5.0, 2.0, 0.0]) / 4).softmax(0)[1]
    assert panel.pieces["sheets"].captions[0] == f"{100 * p:.1f} %"


def utterance(n=50, states=6):
    """Six states of three words: both nets' logits, the state of each frame, and what is heard."""
    rng = torch.Generator().manual_seed(0)
    energies, teacher, student = (torch.randn(n, k, generator=rng) for k in (40, states, states))
    heard = {"energies": energies, "sound": np.arange(n * 80, dtype=np.int16), "rate": 8_000}
    nets = {"student_logits": student, "teacher_logits": teacher}
    return {
        **nets,
        "labels": torch.arange(n) * states // n,
        "names": ["a", "b", "–"],
        "groups": [0, 0, 1, 1, 1, 2],
        **heard,
    }


def test_an_utterance_can_be_heard_and_followed():
    panel = widgets.listen(**utterance(), T=2.0)
    sound, bars = panel.pieces["sound"], panel.pieces["bars"]
    assert sound.shape == [50, 40] and len(sound.energies) == 2_000 and sound.inputs["truth"][:3] == [0, 0, 0]
    targets = {(piece, trait) for link in panel.links for piece, trait in [link.target]}
    assert targets == {(sound, "index"), (sound, "T"), (bars, "index"), (bars, "T"), (panel.controls["index"], "value")}
    with wave.open(io.BytesIO(panel.children[0].value)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (8_000, 1, 4_000)
        assert np.array_equal(np.frombuffer(file.readframes(4_000), "<i2"), np.arange(4_000))


@pytest.mark.parametrize(
    ("part", "wrong", "said"),
    [
        ("energies", torch.zeros(50), r"\(frames, bands\), got the shape \(50,\)"),
        ("sound", np.zeros(8), "int16, got .* float64"),
        ("teacher_logits", torch.zeros(49, 6), "50 frames want as many .* got 49"),
        ("labels", torch.zeros(9).long(), "got 50, 50 and 9"),
    ],
)
def test_parts_of_an_utterance_that_do_not_fit_are_named(part, wrong, said):
    given = utterance() | {part: wrong}
    with pytest.raises(ValueError, match=said):
        widgets.listen(**given)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: widgets.Bars(recipe="soft", inputs={}), "knows .*softened"),
        (lambda: widgets.Bars(recipe="softened", inputs={"student": LOGITS}), r"needs inputs \['logits'\]"),
        (lambda: widgets.Bars(recipe="softened", inputs={"logits": LOGITS[0]}), "two dimensions"),
        (lambda: widgets.Bars(recipe="softened", inputs={"logits": LOGITS * float("nan")}), "diverge"),
        (lambda: widgets.Bars(recipe="softened", inputs={"logits": LOGITS}, T=0.0), "T must be > 0, got 0"),
        (lambda: widgets.Bars(recipe="softened", inputs={"logits": LOGITS}, index=2), "from 0 to 1, got 2"),
        (lambda: widgets.Bars(recipe="softened", inputs={"logits": LOGITS}, labels=["a"]), "1 names for 3 classes"),
        (lambda: widgets.hot_limit(LOGITS, LOGITS[:1], NAMES), "different images"),
        (lambda: widgets.temperature(LOGITS, NAMES, T=-1), "T must be > 0, got -1"),
        (lambda: widgets.temperature(LOGITS, NAMES, label=[0]), "2 labels, got 1"),
        (lambda: widgets.temperature(LOGITS, NAMES, image=IMAGES[0]), "2 images, got 1"),
        (lambda: widgets.two_terms(LOGITS, LOGITS, [0, 3], NAMES), "from 0 to 2"),
        (lambda: widgets.two_terms(LOGITS, LOGITS, [0, 1], NAMES, alpha=2), "alpha"),
        (lambda: widgets.runs([1, 10], {"test": LOGITS}, ["a", "b"]), r"2 runs of 2 points are wanted, .*\(2, 3\)"),
        (lambda: widgets.grids([1, 2], {"a": LOGITS}, [8, 2], {}), r"2 numbers of bits in 2 bins .*\(2, 3\)"),
        (lambda: widgets.grids([1, 2, 3], {"a": LOGITS}, [8, 2], {"b": [1]}), "a score for each of 2 .*'b': 1"),
        (lambda: widgets.Digit(IMAGES * 3 - 1), "normalized"),
        (lambda: widgets.Digit(IMAGES, captions=["one"]), "2 captions, got 1"),
        (lambda: widgets.Matrix(), "needs values"),
        (lambda: widgets.Matrix([1, 2]), r"\(rows, columns\)"),
        (lambda: widgets.Curves({"a": ([1, 2], [1])}), "2 x but 1 y"),
    ],
)
def test_an_error_says_what_came_and_what_was_wanted(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()


@pytest.mark.parametrize("images", [IMAGES, IMAGES[:, None], IMAGES.flatten(1), (IMAGES * 255).round().to(torch.uint8)])
def test_images_of_every_usual_shape_become_the_same_bytes(images):
    digit = widgets.Digit(images)
    assert digit.shape == [2, 4, 4]
    assert digit.images == (IMAGES * 255).round().to(torch.uint8).numpy().tobytes()


def test_every_appended_point_reaches_the_page_or_the_history(monkeypatch):
    curves = widgets.Curves()
    sent = received(curves, monkeypatch)
    curves.interval = 0.0
    for step in range(700):
        curves.append(step, {"loss": step**0.5} | ({"fork": 2.0} if step >= 500 else {}))
    before_flush = kept(curves)["loss"]
    assert len(before_flush) == 511  # kept by itself after 1, 1 + 2, 1 + 2 + 4, … points
    assert {x for x, _ in sent["loss"]} | set(before_flush[:, 0]) == set(range(700))
    curves.flush()
    steps = torch.arange(700, dtype=torch.float64)
    np.testing.assert_array_equal(kept(curves)["loss"], torch.stack([steps, steps**0.5], 1).float().numpy())
    np.testing.assert_array_equal(kept(curves)["fork"][:, 0], np.arange(500, 700))


def test_points_travel_together_when_they_come_faster_than_the_eye(monkeypatch):
    curves = widgets.Curves()
    messages = []
    monkeypatch.setattr(curves, "send", lambda content, buffers: messages.append(content["counts"]))
    curves.interval, curves._next_keep = 3600.0, 10**9
    for step in range(100):
        curves.append(step, {"loss": 1.0})
    assert messages == [[1]]  # the first at once, the rest wait for flush
    curves.flush()
    assert len(kept(curves)["loss"]) == 100


def test_a_long_history_is_thinned_but_keeps_its_ends_and_its_spikes():
    y = np.zeros(50_000)
    y[0], y[31_415], y[-1] = 3, 99, 5
    curves = widgets.Curves({"loss": (np.arange(50_000), y)})
    xy = kept(curves)["loss"]
    assert len(xy) <= curves.KEPT
    assert (np.diff(xy[:, 0]) > 0).all()
    for point in ([0, 3], [31_415, 99], [49_999, 5]):
        assert point in xy.tolist()
    assert len(curves.lines()["loss"][0]) == 50_000


def test_clear_forgets_the_points():
    curves = widgets.Curves({"loss": ([1, 2], [3, 4])})
    curves.clear()
    assert curves.history == b"" and curves.history_names == [] and curves.lines() == {}


def test_the_microscope_shows_the_nearest_of_each_class_and_follows_its_sliders():
    z = torch.randn(60, 10, generator=torch.Generator().manual_seed(0))
    images, labels = torch.rand(60, 1, 28, 28), torch.arange(60) % 10
    panel = widgets.microscope(
        z[:9],
        labels[:9],
        [str(c) for c in range(10)],
        images=images[:9],
        classes=(3, 7),
        others=(z, labels, images),
        n_shown=2,
    )
    sheets = panel.pieces["near"]
    assert sheets.captions == ["a 3", "a 3", "a 7", "a 7"]
    before = sheets.images
    panel.pieces["bars"].index = 5
    assert sheets.images != before
    assert sheets.show == [0, 1, 2, 3]
    assert not any(link.target[0] is sheets for link in panel.links), "no slider may turn the sheets' own index"


def test_eq_5s_panel_wants_an_answer_of_every_specialist_to_every_image():
    z, clusters, names = torch.randn(4, 9), [[0, 1, 2], [2, 3, 4]], [str(c) for c in range(9)]
    panel = widgets.specialists(z, torch.randn(2, 4, 4), clusters, [0, 1, 2, 3], names, images=torch.rand(4, 1, 28, 28))
    assert list(panel.controls) == ["index", "step", "plain"]
    assert panel.pieces["digit"].captions == ["0", "1", "2", "3"]
    for wrong in ((2, 3, 4), (1, 4, 4), (2, 4, 5)):
        with pytest.raises(ValueError, match=r"answers \(specialists, images, classes \+ dustbin\)"):
            widgets.specialists(z, torch.randn(*wrong), clusters, [0, 1, 2, 3], names)


# ---- the stack


def asked(score=90.0):
    """A measure that remembers what it was asked, and what stacking costs and saves in a world of its own."""
    orders = []

    def measure(order):
        orders.append(order)
        if "bytes" in order[:-1]:
            raise ValueError("bytes must be the last")
        costs = {"bytes": 9e7 / 2 ** len(order), "ms_32": 100.0 / (1 + len(order)), "multiply_adds": 1.7e8}
        return metrics.Row("a stack", (score - 3.0 * len(order),), 100, **costs)

    return measure, orders


def test_ticking_adds_a_point_and_the_order_of_ticking_is_the_order_of_stacking():
    measure, orders = asked()
    panel = widgets.Stack({"layers": "3 of 6 layers", "heads": "half of the heads"}, measure)
    assert panel.points.labels == ["the whole net"] and orders == [()]
    panel.boxes["heads"].value = True
    panel.boxes["layers"].value = True
    assert panel.order == ("heads", "layers") and panel.points.now == "1 heads → 2 layers"
    assert panel.points.labels == ["the whole net", "1 heads", "1 heads → 2 layers"] and panel.points.current == 2
    assert panel.points.inputs["score"] == [90, 87, 84]
    assert panel.points.inputs["costs"][0] == [90, 45, 22.5] and len(panel.points.inputs["costs"]) == 3
    assert panel.points.title.startswith("1 heads → 2 layers: 84.0 % right, 22.5 on disk, MB (25%)")
    panel.boxes["heads"].value = False
    panel.boxes["heads"].value = True
    assert panel.order == ("layers", "heads"), "ticked again, it comes last"
    assert orders == [(), ("heads",), ("heads", "layers"), ("layers",), ("layers", "heads")]


def test_a_stack_that_was_measured_or_is_known_is_not_measured_again():
    measure, orders = asked()
    known = {order: measure(order) for order in ((), ("heads",))}
    orders.clear()
    panel = widgets.Stack({"layers": "", "heads": ""}, measure, known, seen=[("heads",)])
    assert panel.points.labels == ["1 heads", "the whole net"] and not orders
    for _ in range(2):
        panel.boxes["heads"].value = True
        panel.boxes["heads"].value = False
        panel.boxes["layers"].value = True
        panel.boxes["layers"].value = False
    assert orders == [("layers",)] and len(panel.points.labels) == 3


def test_a_stack_that_cannot_be_says_why_and_adds_no_point():
    measure, _ = asked()
    panel = widgets.Stack({"layers": "", "bytes": ""}, measure)
    panel.boxes["bytes"].value = True
    panel.boxes["layers"].value = True
    assert panel.points.title == "There is no 1 bytes → 2 layers: bytes must be the last"
    assert panel.points.current == -1 and len(panel.points.labels) == 2
    panel.boxes["bytes"].value = False
    assert panel.points.title.startswith("1 layers: 87.0 % right") and len(panel.points.labels) == 3


def test_an_error_of_another_kind_is_shown_with_its_name():
    panel = widgets.Stack({"layers": ""}, asked()[0])
    panel.measure = lambda order: 1 / 0
    panel.boxes["layers"].value = True
    assert panel.points.title == "There is no 1 layers: ZeroDivisionError: division by zero"


def test_while_a_stack_is_measured_the_panel_says_so():
    said = []
    panel = widgets.Stack({"layers": ""}, asked()[0])
    panel.measure = lambda order: said.append(panel.points.title) or panel.rows[()]
    panel.boxes["layers"].value = True
    assert said == ["1 layers: being built and measured …"]
