"""Folders that settings name, and files that are whole or not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdlab import disk

ALL = ("KDLAB_CACHE", "KDLAB_STORE", "KDLAB_MIRROR")


def in_another_folder(code: str, cwd: Path, **environ) -> list[str]:
    """The lines that `code` prints in a process which began in `cwd` and then moved to the root."""
    code = f"import os; from kdlab import disk; os.chdir('/'); {code}"
    bare = {name: value for name, value in os.environ.items() if name not in ALL}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, env=bare | environ)
    return done.stdout.splitlines() or [done.stderr]


def test_a_relative_setting_means_the_folder_in_which_the_process_began(tmp_path):
    said = in_another_folder(
        "print(disk.cache_dir(), disk.store_dir(), disk.mirror(), sep='\\n')",
        tmp_path,
        KDLAB_CACHE="cache",
        KDLAB_STORE="../results",
        KDLAB_MIRROR="./mirror",
    )
    assert [os.path.normpath(path) for path in said] == [
        str(tmp_path / "cache"),
        str(tmp_path.parent / "results"),
        str(tmp_path / "mirror"),
    ]
    said = in_another_folder("print(disk.store_dir())", tmp_path, KDLAB_CACHE="cache")
    assert said == [str(tmp_path / "cache" / "store")]


def test_what_a_process_starts_reads_the_same_folders(tmp_path):
    code = (
        "disk.make_settings_absolute(); import subprocess, sys; "
        "subprocess.run([sys.executable, '-c', 'from kdlab import disk; print(disk.store_dir(), disk.mirror())'])"
    )
    said = in_another_folder(code, tmp_path, KDLAB_STORE="results", KDLAB_MIRROR="http://localhost:1/here")
    assert said == [f"{tmp_path / 'results'} http://localhost:1/here"]


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("file:///srv/my%20mirror", "/srv/my mirror"),
        ("file://localhost/srv/100%25", "/srv/100%"),
        ("file:/srv/mirror", "/srv/mirror"),
        ("FILE:///srv/%C3%BC", "/srv/ü"),
        ("/srv/my%20mirror", "/srv/my%20mirror"),
        ("HTTP://class.local/a%20b", "HTTP://class.local/a%20b"),
        ("", ""),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="paths of POSIX")
def test_a_file_address_is_read_as_an_address_and_a_path_as_a_path(monkeypatch, address, path):
    monkeypatch.setenv("KDLAB_MIRROR", address)
    assert disk.mirror() == path


@pytest.mark.skipif(os.name == "nt", reason="there it names a share")
def test_a_file_address_with_two_slashes_is_refused_with_the_right_form(monkeypatch):
    monkeypatch.setenv("KDLAB_MIRROR", "file://srv/mirror")
    with pytest.raises(ValueError, match="a machine called 'srv'.*three slashes"):
        disk.mirror()


def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a"
    disk.write(path, b"old")
    with pytest.raises(KeyboardInterrupt), disk.replacing(path) as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and [*tmp_path.iterdir()] == [path]
