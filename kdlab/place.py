"""Where the course is: the one answer for all commands, records and pages.

A course is known by what it holds, not by the name of a folder: other projects have folders called notebooks/, too.
"""

import filecmp
import shutil
from contextlib import suppress
from pathlib import Path

from kdlab.disk import store_dir

COPY = "kdlab-course"  # where `kdlab lab` puts the course, in the folder one stands in
FIRST = "00_start_here.ipynb"
PACKAGE = Path(__file__).parent


class NoCourse(ValueError):
    """There is no course here; the message says what to do."""


def folder() -> Path:
    """Return the course's folder of notebooks: here or above, else beside the package (a checkout).

    Raises NoCourse where there is none; a wheel's own copy is not one to work in.
    """
    here = Path.cwd()
    roots = [here, here / COPY, *here.parents, PACKAGE.parent]
    found = next((root / "notebooks" for root in roots if _is_course(root / "notebooks")), None)
    if found is None:
        raise NoCourse(f"there is no course in {here} or above it; `kdlab lab` puts one into {COPY}/ here")
    return found


def root() -> Path:
    """Return the folder that holds the course's notebooks/, results/ and build/."""
    return folder().parent


def results(profile: str) -> Path:
    """Return where a profile's measured numbers are kept: a full run's in results/ of the course, others in the store.

    A full run's, too, where there is no course: nothing is lost, and nothing is written into another project.
    """
    with suppress(NoCourse):
        return root() / "results" if profile == "full" else store_dir()
    return store_dir()


def folder_or_copy() -> tuple[Path, str]:
    """Return the course's folder of notebooks, put into kdlab-course/ here if there is none, and a word about the copy.

    A copy gets the notebooks that it lacks; what is there stays as its reader left it.
    """
    carried = PACKAGE / "notebooks"
    try:
        found = folder()
    except NoCourse:
        found = Path.cwd() / COPY / "notebooks"
        if not _is_course(carried):
            raise
    return found, _complete(found, carried) if found.parent.name == COPY and _is_course(carried) else ""


def _complete(copy: Path, carried: Path) -> str:
    """Copy to `copy` the files of the course that it lacks; return what to say about it."""
    names = sorted(path.name for path in carried.iterdir() if path.suffix in (".ipynb", ".yaml"))
    missing = [name for name in names if not (copy / name).exists()]
    changed = [name for name in names if name not in missing and not filecmp.cmp(carried / name, copy / name, False)]
    try:
        copy.mkdir(parents=True, exist_ok=True)
        for name in missing:
            shutil.copyfile(carried / name, copy / name)
    except OSError as error:
        raise NoCourse(
            f"the course cannot be put into {copy}: {error.strerror or error}; stand in a folder that you may write to"
        ) from error
    said = [f"The course is in {copy}."]
    said += [f"{len(missing)} files were put there."] if missing else []
    said += [f"Kept as they are, though this version's differ: {', '.join(changed)}."] if changed else []
    return " ".join(said)


def _is_course(notebooks: Path) -> bool:
    first = notebooks / FIRST
    try:
        return (notebooks / "profiles.yaml").is_file() and "kdlab" in first.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
