"""Where one file of a data set comes from: packaged, cache, mirror, home; every one of them checked.

KDLAB_CACHE   the folder for fetched files, instead of the user's cache folder
KDLAB_MIRROR  a folder or an http(s) address that holds <data set>/<file>: a classroom's copy, asked before the home
"""

import contextlib
import hashlib
import os
import shutil
import time
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import platformdirs
from filelock import FileLock

PACKAGED = Path(__file__).parent
TIMEOUT = 15  # seconds without a byte from a server
WAITS = (0.5, 2.0)  # seconds before the second and the third try of a server that cut the connection


class DataUnavailable(RuntimeError):
    """A file is neither on this machine nor to be had; the message says what was tried and where to put it by hand."""


class File(NamedTuple):
    """One file, and how to know it when we see it."""

    name: str
    dataset: str  # its folder in the package and in a mirror
    hashes: tuple[str, ...]  # "sha256:…", "md5:…" or "members:…"; a file with any one of them is right
    urls: tuple[str, ...] = ()  # its homes, the best first
    size: int | None = None  # bytes
    folder: str = ""  # its folder in the cache, where that is not the data set's name


def cache_dir() -> Path:
    """The folder for fetched files: KDLAB_CACHE, else the user's cache folder."""
    chosen = os.environ.get("KDLAB_CACHE") or platformdirs.user_cache_dir("kdlab", appauthor=False)
    return Path(chosen).expanduser().absolute()


def cached(file: File) -> Path:
    """The place of `file` in the cache: where a download goes, and where a person may put it by hand."""
    return cache_dir() / (file.folder or file.dataset) / file.name


def find(file: File) -> Path:
    """The path of `file`, its checksum verified; fetched into the cache if it is nowhere on this machine.

    Warns if a place was passed over because what it holds is damaged or because it did not answer.
    Raises DataUnavailable if no place has it, or if the cache cannot be written.
    """
    tried: list[str] = []
    path = next((path for path in _here(file) if _intact(path, file, tried)), None)
    if path is None:
        path = cached(file)
        with writing(path) as part:
            if not _intact(path, file, []):  # else another process fetched it while this one waited
                _fetch(file, part, tried)
                os.replace(part, path)
    trouble = "".join(f"\n  {line}" for line in tried if not line.endswith(": not there"))
    if trouble:
        warnings.warn(f"using {path}, because of trouble elsewhere:{trouble}", stacklevel=2)
    return path


def locate(file: File) -> str:
    """Where `find` would take `file` from, without fetching it or asking the network."""
    folders = [*_here(file), *(Path(source) for source in _sources(file) if not _is_url(source))]
    home = next(filter(_is_url, _sources(file)), "nowhere")
    return next((str(path) for path in folders if _intact(path, file, [])), f"not here yet; from {home}")


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write to, with `target` locked against other processes.

    The block moves the finished file to `target`; anything left at the yielded path is removed, and what a killed
    process left there is written over.
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            try:
                yield part
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:  # a full disk, a quota, a folder that may not be written
        raise DataUnavailable(
            f"cannot write {target}: {error.strerror or error}. Nothing half-written was kept. Free some space there, "
            "or set KDLAB_CACHE to a folder that you may write to, on a disk with room."
        ) from error


def _here(file: File) -> list[Path]:
    return [PACKAGED / file.dataset / file.name, cached(file)]


def _sources(file: File) -> list[str]:
    mirror = os.environ.get("KDLAB_MIRROR", "").removeprefix("file://")
    if mirror and not _is_url(mirror):
        mirror = str(Path(mirror).expanduser().absolute())
    return [*([f"{mirror.rstrip('/')}/{file.dataset}/{file.name}"] if mirror else []), *file.urls]


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _intact(path: Path, file: File, tried: list[str], source: str = "") -> bool:
    """Whether what lies at `path`, taken from `source`, is `file`; if not, the reason is added to `tried`."""
    try:
        found = {_digest(path, known.partition(":")[0]) for known in file.hashes}
        if found & set(file.hashes):
            return True
        trouble = f"damaged, or another version: {' or '.join(sorted(found))}, {path.stat().st_size:,} bytes"
    except FileNotFoundError:
        trouble = "not there"
    except OSError as error:
        trouble = f"cannot be read: {error.strerror or error}"
    tried.append(f"{source or path}: {trouble}")
    return False


def _fetch(file: File, part: Path, tried: list[str]) -> None:
    """Put `file` at `part` from the first source that has it intact. An OSError from here is about writing `part`."""
    for source in _sources(file):
        if _is_url(source):
            got = _download(source, part, file, tried)
        else:
            got = _intact(Path(source), file, tried) and shutil.copyfile(source, part)
        if got and _intact(part, file, tried, source):
            return
    size = f"{file.size:,} bytes, " if file.size else ""
    raise DataUnavailable(
        f"{file.name} of {file.dataset} ({size}{' or '.join(file.hashes)}) is not on this machine and could not be "
        "fetched. Tried:\n  " + "\n  ".join(tried) + "\n"
        f"With no network, put the file by hand at\n  {cached(file)}\n"
        f"or set KDLAB_MIRROR (now {os.environ.get('KDLAB_MIRROR') or 'not set'}) to a folder or an http(s) address "
        f"that holds\n  {file.dataset}/{file.name}"
    )


def _digest(path: Path, algorithm: str) -> str:
    """Of the file's bytes; by "members" of what an archive holds, because its home packs it anew each time."""
    if algorithm == "members":
        return f"{algorithm}:{_members_digest(path)}"
    with path.open("rb") as opened:
        return f"{algorithm}:{hashlib.file_digest(opened, algorithm).hexdigest()}"


def _members_digest(path: Path) -> str:
    """SHA-256 of the name, without folders, and the bytes of each .wav file in a zip archive."""
    made = hashlib.sha256()
    try:
        with zipfile.ZipFile(path) as archive:
            sounds = {PurePosixPath(name).name: name for name in archive.namelist() if name.endswith(".wav")}
            for name in sorted(sounds):
                made.update(name.encode() + b"\0" + archive.read(sounds[name]))
    except (zipfile.BadZipFile, zlib.error) as error:
        return f"not a whole archive, {error}"
    return made.hexdigest()


def _download(url: str, part: Path, file: File, tried: list[str]) -> bool:
    """Download `url` to `part`, from its beginning; what went wrong is added to `tried`."""
    import pooch
    import requests
    from tqdm.auto import tqdm

    for wait in (*WAITS, None):
        try:
            with tqdm(desc=file.name, total=file.size or 1, unit="B", unit_scale=True, leave=False, delay=0.5) as bar:
                get = pooch.HTTPDownloader(bar, 2**16, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"})
                get(url, str(part), None)
            return True
        except requests.RequestException as error:
            trouble, answer = str(error), error.response
        if wait is None or (answer is not None and answer.status_code < 500):
            break  # an answer such as 403 or 404 would be the same again
        time.sleep(wait)
    tried.append(f"{url}: {'no connection, or it was cut: ' if answer is None else ''}{trouble}")
    return False
