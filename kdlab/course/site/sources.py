"""What Sphinx reads: the clone's own pages and the executed notebooks, and pages made from results/ and the package."""

import importlib
import json
import posixpath
import re
import shutil
from pathlib import Path

from kdlab.course import claims_page, notebooks, readme
from kdlab.course.contents import COURSE, PARTS

from . import front

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "widgets" / "page"
GUIDES = ("install", "own_models", "other_loops", "settings", "teaching", "judging")
OWN_PAGES = ("results/README.md", "CONTRIBUTING.md", "CHANGELOG.md")
ROOMS = (
    "losses",
    "train",
    "live",
    "widgets",
    "teachers",
    "teachers.bert",
    "models",
    "data",
    "text",
    "metrics",
    "compress",
    "specialists",
    "plots",
    "course",
    "store",
    "parallel",
    "machine",
    "randomness",
)
STUDENT = '<iframe class="student" src="student.html" title="A student that learns in this page"></iframe>'


NO_INSTALLATION = (
    "**Without installing anything**: a student learns in the panel above while you turn the knobs. "
    "[student.html](docs/student.html) is the same panel as one file to hand out."
)


def pages(root: Path, executed: Path) -> dict[str, str]:
    """Return all pages' sources by name. Raises ValueError where `executed` has no notebook of the course."""
    run = [entry.file for entry in COURSE if (executed / f"{entry.file}.ipynb").exists()]
    if not run:
        raise ValueError(f"no executed notebook is in {executed}: `kdlab run` runs all, `kdlab run 00 03` two of them")
    files = {name: root / name for name in (*OWN_PAGES, *(f"docs/{name}.md" for name in GUIDES))}
    files |= {f"notebooks/{file}.ipynb": executed / f"{file}.ipynb" for file in run}
    made = {name: path.read_text("utf-8") for name, path in files.items()}
    made |= {f"api/kdlab.{room}.md": _room(room) for room in ROOMS}
    made |= {"index.md": _home(root, run), "course.md": _course(root), "api/index.md": _rooms()}
    made |= {"results/claims.md": _claims(root), "results/front.md": front.page(root / "results")}
    return {name: relinked(text, name, frozenset(made)) for name, text in made.items()}


def write(root: Path, made: dict[str, str], into: Path) -> None:
    """Write the pages below `into`, and beside them what they load."""
    for name, text in made.items():
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    _scripts(root, into)


def _scripts(root: Path, into: Path) -> None:
    """What the pages load, all of it beside them."""
    static, extra = into / "_static", into / "_extra"
    (extra / "notebooks").mkdir(parents=True)
    static.mkdir()
    for path in (PAGE / "require.js", PAGE / "embed-amd.js", HERE / "site.css", HERE / "site.js", *front.scripts()):
        shutil.copy(path, static)
    shutil.copy(notebooks.anywidget_script(), extra / "notebooks" / "anywidget.js")  # where the widgets look for it
    shutil.copy(root / "docs" / "student.html", extra)
    shutil.copy(root / "docs" / "claims.svg", into / "docs")


def relinked(text: str, page: str, pages: frozenset[str]) -> str:
    """A page's source with its links mended, see `mended`; of a notebook its Markdown, without papermill's notes."""
    if not page.endswith(".ipynb"):
        return mended(text, page, pages)
    notebook = json.loads(text)
    notebook["metadata"].pop("papermill", None)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = mended("".join(cell["source"]), page, pages)
    return json.dumps(notebook)


def mended(text: str, page: str, pages: frozenset[str]) -> str:
    """Links that lead to a page of the site stay; the student's page is beside the home page; of others, the words."""

    def made(match: re.Match) -> str:
        words, target = match.groups()
        place = posixpath.normpath(posixpath.join(posixpath.dirname(page), target.partition("#")[0]))
        if place == "docs/student.html":
            return f'<a href="{"../" * page.count("/")}student.html">{words}</a>'
        return match[0] if place in pages else words

    return re.sub(r"(?<!!)\[([^\][\n]+)\]\((?![a-z]+:|#)([^)\s]+)\)", made, text)


def _home(root: Path, run: list[str]) -> str:
    """The README, with a student that learns in the place of its picture, and where everything is."""
    text = (root / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"!\[[^]]*\]\(docs/student\.gif\)", STUDENT, text)
    text = re.sub(r"\*\*Without installing anything\*\*:.*?(?=\n\n)", NO_INSTALLATION, text, flags=re.S)
    trees = [_tree("", ["course"])]
    trees += [_tree(part, pages) for part in PARTS if (pages := _files(part, run))]
    trees += [
        _tree("Guides", [f"docs/{name}" for name in GUIDES]),
        _tree("Results", ["results/claims", "results/front", "results/README"]),
        _tree("Reference", ["api/index", "CHANGELOG", "CONTRIBUTING"]),
    ]
    return f"{text}\n\n{''.join(trees)}"


def _tree(caption: str, pages: list[str]) -> str:
    named = f":caption: {caption}\n" if caption else ""
    return "```{toctree}\n:hidden:\n" + named + "\n" + "\n".join(pages) + "\n```\n\n"


def _files(part: str, run: list[str]) -> list[str]:
    here = [entry for entry in COURSE if entry.number in PARTS[part] and entry.file in run]
    return [f"{entry.number} {entry.title} <notebooks/{entry.file}>" for entry in here]


def _course(root: Path) -> str:
    return f"# The course\n\nEach notebook asks one question.\n\n{readme.minutes(root / 'results')}\n"


def _claims(root: Path) -> str:
    """Every claim with its seeds; the headings as Markdown, so that the page's contents list them."""

    def heading(match: re.Match) -> str:
        return f"\n\n{'#' * int(match[1])} {match[2]}\n\n"

    body = claims_page.body(readme.judged(root / "results"))
    return "# Every claim\n\n" + re.sub(r"<h([23])>(.*?)</h[23]>", heading, body)


def _rooms() -> str:
    """The rooms of the package, each with its first line."""
    said = "Every public function and class, by module; `[source]` shows its code."
    lines = [f"# Reference\n\n{said}\n\n| module | what it holds |\n|---|---|"]
    for room in ROOMS:
        first = (importlib.import_module(f"kdlab.{room}").__doc__ or "").strip().splitlines()[0]
        lines.append(f"| [kdlab.{room}](kdlab.{room}.md) | {first} |")
    return "\n".join(lines) + "\n\n" + _tree("", [f"kdlab.{room}" for room in ROOMS])


def _room(room: str) -> str:
    return f"# kdlab.{room}\n\n```{{eval-rst}}\n.. automodule:: kdlab.{room}\n   :members:\n```\n"
