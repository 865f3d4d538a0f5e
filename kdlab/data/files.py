"""Where one file of a data set comes from: packaged, cache, mirror, home; every one of them checked.

KDLAB_CACHE   the folder for fetched files, instead of the user's cache folder
KDLAB_MIRROR  a folder, or an http(s) or file:// address, that holds <data set>/<file>: a classroom's copy, asked
              before the home
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

from filelock import FileLock

from kdlab import disk

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


def cached(file: File) -> Path:
    """The place of `file` in the cache: where a download goes, and where a person may put it by hand."""
    return disk.cache_dir() / (file.folder or file.dataset) / file.name


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
    trouble = "".join(f"\n  {line}" for line in tried if not line.endswith(": not there"))
    if trouble:
        warnings.warn(f"using {path}, because of trouble elsewhere:{trouble}", stacklevel=2)
    return path


def locate(file: File) -> str:
    """Where `find` would take `file` from, without fetching it or asking the network."""
    folders = [*_here(file), *(Path(source) for source in _sources(file) if not disk.is_url(source))]
    home = next(filter(disk.is_url, _sources(file)), "nowhere")
    return next((str(path) for path in folders if _intact(path, file, [])), f"not here yet; from {home}")


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write to, with `target` locked against other processes.

    When the block ends well, what it wrote takes the place of `target`, if it wrote anything; else it is removed. What
    a killed process left there is removed first.
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            part.unlink(missing_ok=True)
            try:
                yield part
                if part.exists():
                    os.replace(part, target)
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
    mirror = disk.mirror().rstrip("/")
    return [*([f"{mirror}/{file.dataset}/{file.name}"] if mirror else []), *file.urls]


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
        if disk.is_url(source):
            if _download(source, part, file, tried):
                return
        elif _intact(Path(source), file, tried):
            shutil.copyfile(source, part)
            if _intact(part, file, tried, source):
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
    """Download `url` to `part`, from its beginning, and say whether it is `file`; if not, `tried` has the reason."""
    import requests
    import urllib3

    for wait in (*WAITS, None):
        try:
            codings = _received(url, part, file)
            return _undone(part, codings, file, tried, url)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            trouble, answer = str(error), getattr(error, "response", None)
        if wait is None or (answer is not None and answer.status_code < 500):
            break  # an answer such as 403 or 404 would be the same again
        time.sleep(wait)
    tried.append(f"{url}: {'no connection, or it was cut: ' if answer is None else ''}{trouble}")
    return False


def _received(url: str, part: Path, file: File) -> list[str]:
    """Write what a server sends to `part`, byte for byte; return the codings it says it put on, the last one first."""
    import requests
    from tqdm.auto import tqdm

    ask = {"Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=TIMEOUT, headers=ask) as answer:
        answer.raise_for_status()
        size = int(answer.headers.get("Content-Length") or 0)
        bar = tqdm(desc=file.name, total=file.size or size or 1, unit="B", unit_scale=True, leave=False, delay=0.5)
        with bar, part.open("wb") as out:
            for block in answer.raw.stream(2**16, decode_content=False):
                out.write(block)
                bar.update(len(block))
        if part.stat().st_size < size:
            raise requests.ConnectionError(f"{part.stat().st_size:,} of {size:,} bytes came")
        codings = answer.headers.get("Content-Encoding", "").lower().split(",")
    return [coding.strip() for coding in reversed(codings) if coding.strip() not in ("", "identity")]


def _undone(part: Path, codings: list[str], file: File, tried: list[str], url: str) -> bool:
    """Undo the codings of the transport, one by one, until `part` is `file`.

    A server may pack for the way what is packed already, or call a .gz "gzip" without packing it anew.
    """
    troubles: list[str] = []
    for coding in codings:
        if _intact(part, file, troubles, url):
            return True
        if coding not in ("gzip", "x-gzip", "deflate"):
            tried.append(f"{url}: came in the coding {coding!r}, which was not asked for and cannot be undone here")
            return False
        if not _unpacked(part):
            tried.append(f"{url}: damaged on the way: it came as {coding!r} and cannot be unpacked")
            return False
    return _intact(part, file, tried, url)


def _unpacked(part: Path) -> bool:
    """Put in the place of `part` what its gzip or zlib stream holds; whether it is one, and whole."""
    made = part.with_name(part.name + ".unpacked")
    try:
        with part.open("rb") as packed, made.open("wb") as out:
            stream = zlib.decompressobj(47)  # reads the header of either
            while block := packed.read(2**16):
                out.write(stream.decompress(block))
        whole = stream.eof
        os.replace(made, part)
        return whole
    except zlib.error:
        return False
    finally:
        made.unlink(missing_ok=True)
