"""The course's notebooks as programs: which there are, at which size, run from top to bottom, as a page."""

import hashlib
import json
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from kdlab import disk

from .contents import Entry

SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
SECONDS_A_CELL = 12 * 3600  # a full run on two cores may want hours; papermill's default is to wait for ever


OF_A_PAGE = (  # a page has no font for the icons of buttons
    ".widget-button i.fa, .widget-upload i.fa { display: none; }"
    "math { font-family: 'Latin Modern Math', 'STIX Two Math', 'Cambria Math', 'DejaVu Math TeX Gyre', math, serif; }"
)


def find(folder: Path, wanted: list[str]) -> list[Path]:
    """The notebooks of `folder` in order, or those whose name begins with one of `wanted` ("01", "02_the_loss")."""
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    unknown = [name for name in wanted if not any(path.name.startswith(name) for path in paths)]
    if unknown:
        raise ValueError(f"no notebook is called {unknown[0]!r}; there are {', '.join(path.stem for path in paths)}")
    return [path for path in paths if not wanted or any(path.name.startswith(name) for name in wanted)]


def run(parameters: dict[Path, dict], out: Path, n_at_once: int = 1) -> Iterator[tuple[Path, float | None, str]]:
    """Run notebooks, each with its parameters, into the folder `out`, `n_at_once` side by side, under a bar.

    Yields the notebook, its seconds and what went wrong ("" for nothing), as they end. What ended well is written down
    until all have: after an interrupt or a failure the same call passes over it, with None for its seconds, unless the
    notebook, its parameters or kdlab itself have changed.
    """
    from concurrent.futures import ProcessPoolExecutor, as_completed  # papermill changes a whole process's folder
    from multiprocessing import get_context

    from tqdm import tqdm

    out = out.resolve()
    done, marks = out / "done.json", {path: _mark(path, values) for path, values in parameters.items()}
    ended = json.loads(done.read_text("utf-8")) if done.exists() else {}
    todo = [path for path in parameters if ended.get(path.stem) != marks[path] or not (out / path.name).exists()]
    yield from ((path, None, "") for path in parameters if path not in todo)

    failed, pool = False, ProcessPoolExecutor(n_at_once, get_context("spawn"), without_slow_formats)
    try:
        jobs = {pool.submit(_timed, path, out / path.name, parameters[path]): path for path in todo}
        with tqdm(as_completed(jobs), total=len(jobs), desc="notebooks", disable=None, leave=False) as bar:
            for job in bar:
                (seconds, problem), path = job.result(), jobs[job]
                failed = failed or bool(problem)
                if not problem:
                    ended[path.stem] = marks[path]
                    disk.write(done, json.dumps(ended, indent=1).encode())
                yield path, seconds, problem
    finally:
        pool.shutdown(cancel_futures=True)
    if not failed:
        done.unlink(missing_ok=True)


def without_slow_formats() -> None:
    """In a process of its own: keep jsonschema, which papermill and nbformat import, from loading a grammar of IRIs.

    That takes two seconds; no notebook has an IRI that is checked, and jsonschema does without where it is missing.
    """
    sys.modules.setdefault("rfc3987_syntax", None)


def _timed(path: Path, out: Path, parameters: dict) -> tuple[float, str]:
    start = time.perf_counter()
    problem = execute(path, out, parameters)
    return time.perf_counter() - start, problem


def _mark(path: Path, parameters: dict) -> str:
    """Stands for a notebook, its parameters and the package it runs on."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    for file in [path, *sorted(Path(__file__).parent.parent.rglob("*.py"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def execute(path: Path, out: Path, parameters: dict, seconds_a_cell: int = SECONDS_A_CELL) -> str:
    """Run the notebook from top to bottom into `out`; return "" or, in a line, what went wrong.

    Errors inside a widget's callback count too, though Jupyter only shows them.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    disk.make_settings_absolute()  # the kernel works in the notebook's folder
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        notebook = papermill.execute_notebook(
            str(path),
            str(out),
            parameters,
            cwd=str(path.parent),
            kernel_name="python3",
            progress_bar=False,
            execution_timeout=seconds_a_cell,
            start_timeout=120,
        )
    except PapermillExecutionError as error:
        cell = error.source.strip().splitlines()[0]
        return f"cell {error.exec_count}, which begins with {cell!r}: {error.ename}: {error.evalue}"
    except (TimeoutError, RuntimeError) as error:  # a cell took too long, the kernel died
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return "; ".join(widget_errors(notebook))


def widget_errors(notebook) -> list[str]:
    """Errors inside interact() and Output widgets, and in live panels, which Jupyter shows but does not raise."""
    widgets = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    outputs = [o for model in widgets.get("state", {}).values() for o in model["state"].get("outputs", [])]
    problems = [model["state"].get("problem", "") for model in widgets.get("state", {}).values()]
    return [*filter(None, problems)] + [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]


def to_html(notebook: Path, folder: Path) -> Path:
    """An executed notebook as a page in `folder` whose sliders work without a kernel and without a network.

    The scripts that draw widgets are put beside the page: hand out the whole folder.
    """
    import nbconvert
    import nbformat

    exporter = nbconvert.HTMLExporter(require_js_url="require.js", widget_renderer_url="embed-amd.js", mathjax_url="")
    executed = nbformat.read(notebook, as_version=4)
    for cell in executed.cells:
        if cell.cell_type == "markdown":
            cell.source = _among_pages(with_mathml(cell.source))
    page, _ = exporter.from_notebook_node(executed, resources={"metadata": {"name": notebook.stem}})
    folder.mkdir(parents=True, exist_ok=True)
    for script in ("require.js", "embed-amd.js"):
        shutil.copy(Path(__file__).parent.parent / "widgets" / "page" / script, folder)
    shutil.copy(anywidget_script(), folder / "anywidget.js")
    target = folder / f"{notebook.stem}.html"
    page = page.replace("</head>", f"<style>{OF_A_PAGE}</style></head>", 1)
    target.write_text(page.replace("<body", '<body data-kd-exported="true"', 1), encoding="utf-8")
    return target


def _among_pages(markdown: str) -> str:
    """Links to notebooks lead to their pages; what is in other folders of the course is not handed out with them."""
    to_pages = re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.html)", markdown)
    return re.sub(r"\[([^]]+)\]\(\.\./[^)]*\)", r"\1", to_pages)


def write_index(folder: Path, course: Iterable[Entry]) -> Path:
    """Write index.html, of the notebooks whose pages are in `folder`."""
    rows = "".join(
        f"<li><a href='{entry.file}.html'>{entry.number} {entry.title}</a>: {entry.question}</li>"
        for entry in course
        if (folder / f"{entry.file}.html").exists()
    )
    report = "<p><a href='report.html'>The paper, claim by claim</a></p>" if (folder / "report.html").exists() else ""
    target = folder / "index.html"
    target.write_text(
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        "<title>kdlab</title><style>body { font: 17px/1.6 system-ui, sans-serif; max-width: 760px; margin: 2rem auto; "
        "padding: 0 1rem; } ul { list-style: none; padding: 0; } li { margin: .5rem 0; }</style>"
        f"<h1>kdlab: knowledge distillation, live</h1><ul>{rows}</ul>{report}</html>\n",
        encoding="utf-8",
    )
    return target


def for_projector(path: Path, folder: Path) -> Path:
    """A copy of a notebook in `folder` for a class that looks on: without the cells tagged `aside` (what takes long, or
    is to be read alone) and without links to other notebooks.
    """
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "aside" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\[([^]]+)\]\(\w+\.ipynb\)", r"\1", cell.source)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / path.name)
    return folder / path.name


def with_mathml(markdown: str) -> str:
    """The text with its $…$ and $$…$$ as MathML, which browsers draw without MathJax; `code` stays as it is."""

    def made(match: re.Match) -> str:
        code, display, inline = match.groups()
        return code or (formula(display, "block") if display else formula_in_line(inline))

    return re.sub(r"(```.*?```|`[^`]*`)|\$\$(.+?)\$\$|\$([^$\n]+?)\$", made, markdown, flags=re.S)


def formula_in_line(latex: str) -> str:
    """A formula in a line of text; a letter with a digit above it as text, which does not spread the lines."""
    power = re.fullmatch(r"\s*([A-Za-z])\^\{?([0-9])\}?\s*", latex)
    return f"<i>{power[1]}</i>{SUPERSCRIPTS[int(power[2])]}" if power else formula(latex, "inline")


def formula(latex: str, display: str) -> str:
    """A formula as MathML. display: "inline" or "block"."""
    from latex2mathml.converter import convert

    made = convert(latex, display=display).replace("<mi>\\arg</mi>", '<mi>arg</mi><mspace width="0.167em" />')
    return re.sub(r"<mi>log</mi>(?=<m(?:i|row|frac|sub))", '<mi>log</mi><mspace width="0.167em" />', made)


def anywidget_script() -> Path:
    from jupyter_core.paths import jupyter_path

    places = [Path(place) / "anywidget" / "index.js" for place in jupyter_path("nbextensions")]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise FileNotFoundError(f"anywidget's index.js is in none of {[*map(str, places)]}; reinstall anywidget")
    return found
