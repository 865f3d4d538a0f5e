"""A drawing becomes an image like MNIST's, and nets answer it; test_widget_numbers.py draws on the pad."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdlab import data, metrics, models, teachers, widgets
from kdlab.data import like_mnist

NAMES = list("0123456789")


@pytest.fixture(scope="module")
def digits():
    """(500, 1, 28, 28) test images and their labels."""
    mnist = data.load("mnist", "cpu")
    return mnist.x_test[:500], mnist.y_test[:500]


def line(thick: float, length: float = 100.0, side: int = 140) -> torch.Tensor:
    """An upright line with round ends, antialiased, as a pad holds it."""
    y, x = torch.meshgrid(*[torch.arange(side) + 0.5 - side / 2] * 2, indexing="ij")
    beyond = (y.abs() - (length - thick) / 2).clamp(min=0)
    return (thick / 2 + 0.5 - (x**2 + beyond**2).sqrt()).clamp(0, 1)


def test_mnists_own_images_come_back_as_they_are(digits):
    x, _ = digits
    back = torch.stack([like_mnist(image[0]) for image in x])
    assert (back - x).abs().mean() < 1e-3
    assert sum(torch.equal(a, b) for a, b in zip(back, x, strict=True)) > 480  # the others have an edge of faint pixels


@pytest.mark.parametrize(("side", "mode"), [(140, "nearest"), (140, "bilinear"), (97, "bicubic"), (280, "bicubic")])
def test_digits_larger_and_off_centre_come_back_and_the_teacher_knows_them(digits, side, mode):
    x, y = digits
    smooth = {} if mode == "nearest" else {"align_corners": False}
    large = F.interpolate(x, size=(side, side), mode=mode, **smooth).clamp(0, 1)
    large = F.pad(large, (50, 7, 3, 44))[:, 0]  # no longer square, either
    back = torch.stack([like_mnist(image) for image in large])
    assert (back - x).abs().mean() < 0.04  # a digit shifted by one pixel is 0.1 away from itself
    assert metrics.errors(metrics.logits(teachers.mnist("cpu"), back), y) <= 25


def test_twenty_pixels_long_centred_by_mass_and_as_thick_as_in_proportion():
    back = like_mnist(torch.roll(line(thick=12.5), (15, -40), (0, 1)))[0]
    rows, columns = back.sum(1), back.sum(0)
    assert int((rows > 0).sum()) == 20
    middle = [(v * torch.arange(28)).sum() / v.sum() for v in (rows, columns)]
    assert all(13.499 <= m <= 14.501 for m in middle)
    assert rows[10:18].mean() == pytest.approx(12.5 * 20 / 100, rel=0.1)


def test_a_lopsided_drawing_is_centred_by_its_ink_and_not_by_its_box():
    ink = torch.zeros(100, 100)
    ink[10:90, 10:20], ink[70:90, 10:90] = 1, 1  # an L with a heavy foot
    rows = like_mnist(ink)[0].sum(1)
    assert 13.5 <= (rows * torch.arange(28)).sum() / rows.sum() <= 14.5
    assert rows.nonzero().flatten().tolist() == list(range(20))  # by its box it would be 4 to 23


def test_bytes_and_floats_are_the_same_ink_and_empty_paper_stays_empty():
    ink = line(10.0)
    ink[24:40, 70:100] = 1  # a flag, so that its middle is on no pixel's edge
    torch.testing.assert_close(like_mnist((255 * ink).round().byte()), like_mnist(ink), atol=0.005, rtol=0)
    for empty in (torch.zeros(140, 140), torch.zeros(5, 9, dtype=torch.uint8), torch.zeros(0, 0)):
        assert like_mnist(empty).shape == (1, 28, 28) and not like_mnist(empty).any()


def test_thin_and_tiny_drawings_stay_inside_the_frame():
    for rows, columns in (([0], slice(140)), (slice(3, 130), [7]), ([139], [139])):
        ink = torch.zeros(140, 140)
        ink[rows, columns] = 1
        back = like_mnist(ink)
        assert back.shape == (1, 28, 28) and back.max() == 1


@pytest.mark.parametrize(
    ("ink", "said"),
    [
        (torch.zeros(1, 28, 28), r"\(height, width\), got \(1, 28, 28\)"),
        (torch.full((28, 28), torch.nan), "0 .paper. to 1, got nan"),
        (torch.full((28, 28), 2.0), "got 2 to 2"),
        (torch.full((28, 28), -0.4), "normalized"),
    ],
)
def test_what_is_no_drawing_is_refused(ink, said):
    with pytest.raises(ValueError, match=said):
        like_mnist(ink)


@pytest.fixture
def nets():
    return {"teacher": models.mlp((20,), dropout=(0.2, 0.5), seed=1).eval(), "student": models.convnet((4,), seed=2)}


def test_ink_moves_bars_and_picture(nets, digits):
    panel = widgets.pad(nets, NAMES, T=2.5)
    paper, seen, bars = (panel.pieces[name] for name in ("pad", "digit", "bars"))
    paper.ink = memoryview((255 * line(12.0)).byte().numpy().tobytes())  # as it comes from the browser
    image = like_mnist((255 * line(12.0)).byte())
    for name, net in nets.items():
        with models.evaluating(net):
            torch.testing.assert_close(torch.tensor(bars.inputs[name]), net(image[None]), rtol=1e-5, atol=1e-6)
    assert list(bars.inputs) == ["teacher", "student"] and bars.recipe == "nets" and bars.T == 2.5
    assert np.array_equal(np.frombuffer(seen.images, np.uint8).reshape(28, 28), (255 * image[0]).round().byte())
    before = bars.inputs
    paper.put(digits[0][0])
    assert bars.inputs != before


def test_nothing_drawn_is_said_and_has_no_bars(nets):
    panel = widgets.pad(nets, NAMES)
    bars, paper = panel.pieces["bars"], panel.pieces["pad"]
    for _ in range(2):
        assert bars.inputs == {"teacher": [], "student": []} and "draw a digit" in bars.title
        paper.put(torch.eye(28))
        assert all(len(rows) == 1 for rows in bars.inputs.values()) and "draw" not in bars.title
        paper.clear()
    assert not any(panel.pieces["digit"].images)
    paper.put(torch.eye(28))
    paper.ink = bytes(140 * 140)  # what the Clear button sends
    assert bars.inputs == {"teacher": [], "student": []}


def test_nets_are_asked_in_eval_mode_and_keep_their_own(nets):
    nets["student"].train()
    panel = widgets.pad(nets, NAMES)
    averages = [b.clone() for b in nets["student"].buffers()]
    panel.pieces["pad"].put(torch.eye(28))
    first = panel.pieces["bars"].inputs
    panel.pieces["pad"].clear()
    panel.pieces["pad"].put(torch.eye(28))
    assert panel.pieces["bars"].inputs == first  # no dropout, no batch statistics
    assert not nets["teacher"].training and nets["student"].training
    assert all(torch.equal(a, b) for a, b in zip(averages, nets["student"].buffers(), strict=True))
    assert all(p.grad is None for p in nets["student"].parameters())


def test_a_net_is_asked_as_it_is_when_one_draws(nets):
    panel = widgets.pad(nets, NAMES)
    torch.nn.init.zeros_(nets["teacher"][-1].weight)
    torch.nn.init.zeros_(nets["teacher"][-1].bias)
    panel.pieces["pad"].put(torch.eye(28))
    assert panel.pieces["bars"].inputs["teacher"] == [[0.0] * 10]


def test_a_test_image_put_on_the_pad_is_seen_as_it_is(nets, digits):
    x, _ = digits
    panel = widgets.pad(nets, NAMES)
    for image in (x[0], x[0, 0], x[:1], x[0].flatten()[None], (255 * x[0]).round().byte()):
        panel.pieces["pad"].put(image)
        assert panel.pieces["digit"].images == (255 * x[0]).round().byte().numpy().tobytes()


def test_T_moves_the_bars_in_the_browser(nets):
    panel = widgets.pad(nets, NAMES)
    links = {(link.source[0], *link.target) for link in panel.links}
    assert (panel.controls["T"], panel.pieces["bars"], "T") in links


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: widgets.pad(models.mlp((5,)), NAMES), "nets by name are wanted"),
        (lambda: widgets.pad({}, NAMES), "nets by name are wanted"),
        (lambda: widgets.pad({"teacher": models.mlp((5,))}, NAMES[:9]), "9 names for 10 classes"),
        (lambda: widgets.pad({"a": models.mlp((5,)), "b": models.mlp((5,), n_classes=9)}, NAMES), "one shape"),
        (lambda: widgets.Pad().put(torch.rand(2, 28, 28)), "got 2 of 28 × 28"),
        (lambda: widgets.Pad().put(torch.rand(1, 28, 20)), "got 1 of 28 × 20"),
        (lambda: widgets.Pad().put(torch.rand(28, 28) - 0.5), "normalized"),
        (lambda: setattr(widgets.Pad(), "ink", b"123"), "got 3 bytes"),
        (lambda: widgets.Bars(recipe="nets", inputs={"labels": torch.zeros(10)}), "two dimensions"),
        (lambda: widgets.Bars(recipe="nets", inputs={"a": torch.zeros(2, 3), "b": torch.zeros(1, 3)}), "one shape"),
        (lambda: widgets.Bars(recipe="nets", inputs={"a": torch.zeros(2, 3)}, index=2), "0 to 1"),
    ],
)
def test_slips_are_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_net_may_bear_any_name():
    rows = torch.zeros(2, 3)
    bars = widgets.Bars(recipe="nets", inputs={"labels": rows, "logits": rows, "members": rows}, labels=["a", "b", "c"])
    assert bars.inputs["labels"] == [[0.0] * 3] * 2
