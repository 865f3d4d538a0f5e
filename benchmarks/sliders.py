"""Milliseconds from a key press on a slider to the changed picture, in a real JupyterLab in headless Chromium."""

import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import chromium  # noqa: E402

from kdlab import course  # noqa: E402


def sliders(rounds: int, presses: int = 40, notebooks: dict[Path, dict] | None = None) -> list[dict]:
    """Return a row for the first slider of each panel. rounds: not used, the presses are many.

    notebooks: with their parameters; where None, all of the course that have sliders, at smoke size.
    """
    if chromium.find() is None:
        print("sliders: NOT MEASURED, no Chromium was found")
        return []
    import jupyter

    if notebooks is None:
        paths = filter(jupyter.has_sliders, course.find(ROOT / "notebooks", []))
        notebooks = {path: course.profile(path, "smoke") for path in paths}
    rows = []
    with jupyter.lab(Path(tempfile.mkdtemp()), notebooks) as address, jupyter.browser() as page:
        for path in notebooks:
            jupyter.run_all(page, address, path.name)
            rows += panels(page, path.stem, presses)
            jupyter.end_kernel(page)
    return rows


def panels(page, notebook: str, presses: int) -> list[dict]:
    """Return a row for each panel of the notebook on the page that has a slider."""
    import jupyter

    rows = []
    for i, panel in enumerate(jupyter.panels(page)):
        if names := jupyter.slider_names(panel):
            name = "temperature T" if "temperature T" in names else names[0]
            rows.append({"notebook": notebook, "panel": i, "slider": name, **measured(page, panel, name, presses)})
            print(*rows[-1].values(), sep="  ", flush=True)
    return rows


def measured(page, panel, name: str, presses: int) -> dict:
    """Press a slider, and return how often its picture changed and how soon.

    Where one step up and down changes no count, as a bias that is far off, the presses go from end to end.
    """
    import jupyter

    ms = sorted(jupyter.latencies(page, panel, name, presses))
    ms = ms or sorted(jupyter.latencies(page, panel, name, presses, ends=True))
    if not ms:
        raise RuntimeError(f"{presses} presses on the slider {name!r} changed no picture: {panel.inner_text()!r:.200}")
    return {
        "presses": presses,
        "seen": len(ms),
        "median_ms": round(statistics.median(ms), 1),
        "p95_ms": round(ms[int(0.95 * (len(ms) - 1))], 1),
    }
