"""The site, from notebooks that were run: every page opens from a file with the network off, and what moves moves."""

import html
import itertools
import json
import re
import shutil
from pathlib import Path

import pytest
import smoke
from conftest import NOTEBOOKS, ROOT

pytest.importorskip("playwright", reason="playwright is not installed: pip install 'kdlab[test]'")
import jupyter

from kdlab import course
from kdlab.course import contents, site
from kdlab.course.site import extension, front, sources

SHOWN = ("00", "01", "03")
in_one_place = pytest.mark.xdist_group("site")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The site of three notebooks at smoke size."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "executed").mkdir()
    for path in (path for path in NOTEBOOKS if path.name.startswith(SHOWN)):
        notebook, problem, _ = smoke.ran(path, tmp_path_factory)
        assert not problem
        shutil.copy(notebook, folder / "executed")
    assert site.build(ROOT, folder / "executed", folder / "site") == [], "what Sphinx warned of"
    return folder / "site"


@pytest.fixture
def page():
    with jupyter.browser() as page:
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda said: page.problems.append(said.text) if said.type == "error" else None)
        yield page


def anchors(text: str) -> set[str]:
    return {html.unescape(each) for each in re.findall(r'\bid="([^"]+)"', text)}


@in_one_place
def test_no_link_of_the_site_is_dead(made):
    texts = {path: path.read_text(encoding="utf-8") for path in made.rglob("*.html")}
    ids = {path: anchors(text) for path, text in texts.items()}
    assert len(texts) > 50
    dead = []
    for path, text in texts.items():
        visible = re.sub(r"<script.*?</script>", "", text, flags=re.S)
        for link in map(html.unescape, re.findall(r'\b(?:href|src)="([^"]+)"', visible)):
            if re.match(r"https?:|data:|mailto:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name.partition("?")[0]).resolve() if name else path
            if not target.exists() or (anchor and anchor not in ids.get(target, {anchor})):
                dead.append((str(path.relative_to(made)), link))
    assert dead == []


@pytest.mark.browser
@in_one_place
def test_every_page_opens_from_a_file_without_an_error_and_asks_for_nothing_from_outside(made, page):
    for path in sorted(made.rglob("*.html")):
        page.goto(path.as_uri())
        assert page.title(), path
        assert page.problems == page.refused == [], path


@pytest.mark.browser
@in_one_place
def test_on_the_home_page_a_student_learns_and_each_notebook_leads_to_the_next(made, page):
    page.goto((made / "index.html").as_uri())
    frame = page.frame_locator("iframe.student")
    frame.locator("[data-ready]").wait_for()
    frame.locator("[data-act=step]").click()
    learned = frame.locator("#panel")
    jupyter.until(lambda: json.loads(learned.get_attribute("data-shown"))["groups"][1]["number"] == 1)
    inside = page.frames[1].evaluate("document.documentElement.offsetHeight")
    assert page.locator("iframe.student").bounding_box()["height"] >= inside > 600, "the frame shows all of it"
    page.goto((made / "notebooks" / "00_start_here.html").as_uri())
    for expected in ("01_soft_targets", "03_live_distillation"):
        page.locator("a.next-page").click()
        page.wait_for_url(f"**/{expected}.html")


@pytest.mark.browser
@in_one_place
def test_the_sliders_of_a_notebook_move_its_pictures_and_its_student_learns(made, page):
    page.goto((made / "notebooks" / "01_soft_targets.html").as_uri())
    panel = page.locator(".kd-panel").first
    panel.locator(".noUi-handle").first.wait_for()
    before = jupyter.settled(panel)
    panel.locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    jupyter.until(lambda: jupyter.shown(panel) != before)
    assert page.locator("math mfrac").count() > 0, "formulas are drawn by the browser itself"
    page.goto((made / "notebooks" / "03_live_distillation.html").as_uri())
    student = page.locator(".kd-page")
    page.locator(".kd-without-kernel").scroll_into_view_if_needed()  # it begins when it is first seen
    page.wait_for_selector("[data-ready]")
    student.locator("[data-act=step]").click()
    page.wait_for_function("JSON.parse(document.querySelector('.kd-page').dataset.shown).groups[1].number === 201")
    assert not page.locator(".kd-with-kernel").first.is_visible()
    assert page.problems == page.refused == []


@pytest.mark.browser
@in_one_place
def test_the_search_works_from_a_file(made, page):
    page.goto((made / "index.html").as_uri())
    page.locator("input[name=q]").first.fill("distilling")
    page.keyboard.press("Enter")
    found = page.locator("ul.search li a")
    found.first.wait_for()
    assert any("kdlab.train" in text for text in found.all_inner_texts())
    assert page.problems == page.refused == []


FIGURES = "[...Bokeh.documents[0]._all_models.values()].filter(model => model.type === 'Figure')"
DOTS = f"{FIGURES}.map(f => f.renderers.flatMap(r => r.visible ? (r.data_source.data.name ?? []) : []))"
PLACE = f"""name => {{
    const figure = {FIGURES}[0], view = Bokeh.index.find_one(figure), box = view.canvas_view.el.getBoundingClientRect();
    const dots = figure.renderers.map(r => r.data_source.data).find(data => data.name?.includes(name));
    const i = dots.name.indexOf(name), {{ x_scale, y_scale }} = view.frame;
    return [box.x + x_scale.compute(dots.x[i]), box.y + y_scale.compute(dots.y[i]), dots.x[i], dots.y[i]]; }}"""


@pytest.mark.browser
@in_one_place
def test_a_dot_of_the_front_shows_its_row_and_a_method_can_be_hidden(made, page):
    rows = [row for path in (ROOT / "results" / "ruler").glob("*.json") for row in json.loads(path.read_text())["rows"]]
    page.goto((made / "results" / "front.html").as_uri())
    page.wait_for_function("window.Bokeh && Bokeh.documents.length === 1")
    page.wait_for_function(f"Bokeh.index.find_one({FIGURES}[0])")
    page.locator(".bk-Figure").first.wait_for()
    for key, names in zip(front.AXES, page.evaluate(DOTS), strict=True):
        assert sorted(names) == sorted(row["name"] for row in rows if row.get(key) is not None), key
    left, top, share, points = page.evaluate(PLACE, "80% zeros, tuned")
    assert (share, points) == (100, pytest.approx(-12.62)), "as large as BERT, 12.62 points below it"
    page.mouse.move(left - 2, top)
    page.mouse.move(left, top)
    tip = page.locator(".bk-Tooltip")
    tip.get_by_text("80% zeros, tuned").wait_for()
    assert tip.get_by_text("90.9").count() == 1, "its megabytes"
    page.locator(".bk-Legend").first.get_by_text("prune", exact=True).click()
    jupyter.until(lambda: "80% zeros, tuned" not in page.evaluate(DOTS)[0])
    assert page.problems == page.refused == []


def test_a_docstring_becomes_a_list_of_its_parameters_and_its_code_stays_code():
    lines = [
        "Do it with `losses.kl`.",
        "",
        "x, y: cases; * times |y|. T: above 0. Note: not one.",
        "Raises ValueError if so.",
        "",
    ]
    made = [line for line in extension.marked_up(lines, frozenset({"x", "y", "T"})) if line]
    assert made == [
        "Do it with :py:obj:`losses.kl <kdlab.losses.kl>`.",
        r"- **x, y**: cases; \* times \|y\|.",
        "- **T**: above 0. Note: not one.",
        "Raises ValueError if so.",
    ]
    code = extension.marked_up(["One line.", "", "with f(x):", "    g(…)"], frozenset())
    assert code[-3:] == ["    with f(x):", "        g(…)", ""] and "::" in code


def test_links_stay_where_their_page_is_in_the_site():
    pages = frozenset({"index.md", "docs/install.md", "notebooks/00_start_here.ipynb"})
    text = (
        "[a](install.md#x) [b](../notebooks/00_start_here.ipynb) [c](../kdlab/x.py) [d](student.html) [e](https://f.g)"
    )
    assert sources.mended(text, "docs/teaching.md", pages) == (
        '[a](install.md#x) [b](../notebooks/00_start_here.ipynb) c <a href="../student.html">d</a> [e](https://f.g)'
    )
    cells = [{"cell_type": kind, "source": "[c](x.py)"} for kind in ("markdown", "code")]
    notebook = json.dumps({"cells": cells, "metadata": {"papermill": {}, "kernelspec": {}}})
    made = json.loads(sources.relinked(notebook, "notebooks/00_start_here.ipynb", pages))
    assert [cell["source"] for cell in made["cells"]] == ["c", "[c](x.py)"], "code stays as it is"
    assert made["metadata"] == {"kernelspec": {}}


def test_minutes_to_read_are_counted_from_words_and_lines(tmp_path):
    text, code = ["word " * 399, "\n\nlast"], "a\n\nb\n" * 15
    cells = [{"cell_type": "markdown", "source": text}, {"cell_type": "code", "source": code}]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    assert contents.minutes_to_read(tmp_path / "n.ipynb") == 4  # 400 words and 30 lines of code


def test_a_site_of_nothing_or_outside_a_clone_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="kdlab run"):
        site.build(ROOT, tmp_path, tmp_path / "site")
    with pytest.raises(ValueError, match="no docs/"):
        site.build(tmp_path, tmp_path, tmp_path / "site")
    assert list(tmp_path.iterdir()) == []


def test_the_course_says_what_each_notebook_builds_on_and_has_each_in_one_part():
    numbers = [entry.number for entry in contents.COURSE]
    assert sorted(itertools.chain(*contents.PARTS.values())) == numbers
    assert all(before < entry.number for entry in contents.COURSE for before in entry.before)
    assert course.readme.minutes(ROOT / "results").count(".ipynb") == len(NOTEBOOKS)
