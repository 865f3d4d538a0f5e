"""Figures: a color is a role, in figures and widgets alike; pictures of the idea show the numbers given to them."""

import json
import re
import shutil
import subprocess

import matplotlib.pyplot as plt
import pytest
import torch
from conftest import ROOT

from kdlab import data, losses, plots

ROLES = [
    "alone",
    "labels, 3 %",
    "teacher",
    "ensemble of ten",
    "distilled, T = 4",
    "student",
    "soft targets",
    "label",
    "x",
]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_name_has_the_color_of_its_role_and_no_two_share_one():
    assert plots.colors_of(["teacher", "alone", "distilled"]) == [plots.TEACHER, plots.ALONE, plots.STUDENT]
    assert plots.colors_of(["alone", "alone, T = 2"])[0] == plots.ALONE, "the first has it, the second another"
    for names in (["a", "b", "teacher", "c"], ["student", "distilled", "x"], ROLES[:6]):
        assert len(set(plots.colors_of(names))) == len(names)


@pytest.mark.skipif(not shutil.which("node"), reason="the widgets' colors are asked of the program itself, by node")
def test_the_widgets_give_the_same_names_the_same_roles():
    script = (ROOT / "kdlab" / "widgets" / "js" / "draw.js").read_text(encoding="utf-8")
    asked = f"{script}\nconsole.log(JSON.stringify({json.dumps(ROLES[:-1])}.map((name) => colorsOf([name])[0])));"
    found = json.loads(subprocess.run(["node", "-e", asked], capture_output=True, text=True, check=True).stdout)
    style = (ROOT / "kdlab" / "widgets" / "js" / "style.css").read_text(encoding="utf-8")
    colors = {int(number): value.upper() for number, value in re.findall(r"--kd-(\d): (#\w{6})", style.splitlines()[1])}
    assert [colors[number] for number in found] == [plots.colors_of([name])[0].upper() for name in ROLES[:-1]]


def test_the_soft_target_is_drawn_beside_its_label():
    z, image = torch.tensor([1.0, 4.0, 2.0]), torch.zeros(1, 8, 8)
    axes = plots.label_and_soft_target(image, z, ["a", "b", "c"], label=1, T=2.0, examples={2: image})
    label, soft = ([bar.get_height() for bar in ax.patches] for ax in axes[1:])
    assert label == [0, 1, 0] and soft == pytest.approx(losses.softened(z, 2.0).tolist())
    assert len(axes[2].child_axes) == 1, "an example stands above its bar"
    beside = plots.image_and_bars(image, {"teacher": [1, 2, 3], "student": [3, 2, 1]}, ["a", "b", "c"], "logit")
    assert [bar.get_height() for bar in beside[1].patches] == [1, 2, 3, 3, 2, 1]


def test_the_diagram_joins_boxes_that_are_there():
    words = {text.get_text().strip() for text in plots.diagram().texts}
    assert {"teacher", "student", "KL divergence", "cross-entropy", "loss", "α T²", "1 − α", "logits s"} <= words


def test_a_shift_moves_every_pixel_and_fills_with_zeros():
    x = torch.arange(1.0, 10).view(1, 1, 3, 3)
    assert data.shift(x, 1, 0)[0, 0].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert data.shift(x, 0, -1)[0, 0].tolist() == [[2, 3, 0], [5, 6, 0], [8, 9, 0]]
    seen = [data.jitter(x, 1, torch.Generator().manual_seed(i)) for i in range(60)]
    possible = [data.shift(x, down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    assert all(any(torch.equal(a, b) for b in possible) for a in seen), "jitter draws one of these"
    with pytest.raises(ValueError, match="at most their size"):
        data.shift(x, 4, 0)
