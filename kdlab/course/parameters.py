"""A notebook's parameters: what its parameters cell says, what a profile or the command line changes.

Read without running the notebook and without torch, so that a list of notebooks takes no time.
"""

import ast
import contextlib
import json
from pathlib import Path
from typing import Any

from kdlab import place


def path_of(notebook: str) -> Path | None:
    """Return the file of this notebook, here or in the course, or None where there is none."""
    folders = [Path.cwd()]
    with contextlib.suppress(place.NoCourse):
        folders.append(place.folder())
    return next((path for folder in folders if (path := folder / f"{notebook}.ipynb").exists()), None)


def names(notebook: str) -> list[str]:
    """Return the names that the notebook's parameters cell assigns; [] where there is no such notebook."""
    return [*values(notebook)]


def values(notebook: str) -> dict[str, Any]:
    """Return what the notebook's parameters cell assigns, by name; {} where there is no such notebook."""
    path = path_of(notebook)
    return values_in(path) if path else {}


def values_in(path: Path) -> dict[str, Any]:
    """Return what the parameters cell of the notebook in this file assigns, by name."""
    return {
        target.id: ast.literal_eval(each.value)
        for each in parse(cell_sources(path, tagged=True))
        if isinstance(each, ast.Assign)
        for target in each.targets
    }


def profile(path: Path, name: str) -> dict:
    """The values that profiles.yaml's profile `name` has for the notebook; {} for its own values, "".

    Raises ValueError for a name that the parameters cell does not declare: papermill would pass over it with no more
    than a line in its log.
    """
    import yaml

    if not name:
        return {}
    profiles = yaml.safe_load((path.parent / "profiles.yaml").read_text())
    if name not in profiles:
        raise ValueError(f"no profile is called {name!r}; profiles.yaml has {', '.join(profiles)}")
    declared = values_in(path)
    own = profiles[name].get(path.stem[:2], {})
    if odd := [key for key in own if key not in declared]:
        raise ValueError(f"profile {name} sets {odd[0]!r}, which the parameters cell of {path.name} does not declare")
    return own


def profile_of(path: Path | None, given: dict) -> str:
    """The profile whose values these are, the seed apart: "own", "smoke" or "full"; "other" for none of them.

    path: of the notebook; None stands for one that no file is known of, whose values are its own.
    """
    if path is None or not path.with_name("profiles.yaml").exists():
        return "own"
    own = values_in(path)
    for name in ("own", "smoke", "full"):
        expected = own | (profile(path, name) if name != "own" else {})
        if all(given.get(key) == expected[key] for key in expected if key != "seed"):
            return name
    return "other"


def given(path: Path, pairs: list[str], paths: list[Path]) -> dict:
    """Those of NAME=VALUE that the notebook declares, as YAML reads them. ValueError for one that none declares."""
    import yaml

    declared, found = {each: values_in(each) for each in paths}, {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"a parameter is given as -p NAME VALUE, such as -p T 8, got {pair!r}")
        if not any(name in each for each in declared.values()):
            known = sorted({known for each in declared.values() for known in each})
            raise ValueError(f"no parameter is called {name!r}; there are {', '.join(known)}")
        if name in declared[path]:
            found[name] = yaml.safe_load(text)
    return found


def cell_sources(path: Path, tagged: bool) -> list[str]:
    """The code cells of a notebook: those tagged `parameters`, or the others. Lines for IPython are left out."""
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    wanted = [cell for cell in cells if ("parameters" in cell["metadata"].get("tags", [])) == tagged]
    lines = [line for cell in wanted for line in ("".join(cell["source"]) + "\n").splitlines()]
    return [line for line in lines if not line.startswith(("%", "!"))]


def parse(lines: list[str]) -> list[ast.stmt]:
    return ast.parse("\n".join(lines)).body
