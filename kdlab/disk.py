"""Files on this machine: the folders that the settings name, and a file that is written whole or not at all.

A relative path in KDLAB_CACHE, KDLAB_STORE or KDLAB_MIRROR means the folder in which it was typed, that is the one in
which this process began, whatever folder it or its kernels work in later.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import platformdirs

SETTINGS = ("KDLAB_CACHE", "KDLAB_STORE", "KDLAB_MIRROR")
BEGAN_IN = Path.cwd()  # when kdlab was imported


def cache_dir() -> Path:
    """Return the folder for fetched files: KDLAB_CACHE, else the user's cache folder."""
    return Path(_chosen("KDLAB_CACHE") or platformdirs.user_cache_dir("kdlab", appauthor=False))


def store_dir() -> Path:
    """Return the folder for trained models and results: KDLAB_STORE, else `store` in the cache folder."""
    return Path(_chosen("KDLAB_STORE") or cache_dir() / "store")


def mirror() -> str:
    """Return KDLAB_MIRROR as an http(s) address or as an absolute path; "" where it is not set."""
    return _chosen("KDLAB_MIRROR")


def is_url(source: str) -> bool:
    """Return whether `source` is an http(s) address."""
    return source.lower().startswith(("http://", "https://"))


def make_settings_absolute() -> None:
    """Rewrite the settings in os.environ, so that a process started in another folder reads the same from them."""
    for name in SETTINGS:
        if chosen := _chosen(name):
            os.environ[name] = chosen


def _chosen(name: str) -> str:
    setting = os.environ.get(name, "")
    if not setting or (name == "KDLAB_MIRROR" and is_url(setting)):
        return setting
    address = urlsplit(setting)
    if address.scheme == "file":
        if address.netloc not in ("", "localhost") and os.name != "nt":
            raise ValueError(
                f"{name}={setting} names a machine called {address.netloc!r}; an address of a folder on "
                "this one has three slashes, as file:///srv/mirror has"
            )
        host = "" if address.netloc in ("", "localhost") else f"//{address.netloc}"
        setting = url2pathname(host + address.path)
    return str(BEGAN_IN / Path(setting).expanduser())


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends well, and leaves no trace when it does not.

    It is written under another name, onto the disk, then renamed: at any moment `path` is whole or not there.
    """
    temp = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temp, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    except BaseException:
        with suppress(OSError):
            temp.unlink()
        raise
    with suppress(OSError):  # Windows opens no folder, and some network drives sync none
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write(path: Path, blob: bytes) -> None:
    """Write `blob` to `path`, whole or not at all."""
    with replacing(path) as file:
        file.write(blob)
