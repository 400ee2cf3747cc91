"""Atomic replacement of files, so that a killed process leaves them complete; and locks."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock

from experiment.errors import LockedError, SettingsError

# The errors raised by reading a file with unexpected content.
DAMAGE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, SettingsError),
)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Prevents other processes from training in a folder; a killed process releases its lock."""
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise LockedError(
            f"`--out`: {folder} is being trained by another process. Wait until that has ended, "
            "or choose another folder with --out."
        ) from None
    try:
        yield
    finally:
        lock.release()


def write_json(path: Path, content: Any) -> None:
    """Writes JSON-compatible values."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, content: str) -> None:
    replace_file(path, lambda part: part.write_text(content, encoding="utf-8"))


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """Reads a JSON object with the given keys.

    Raises:
        SettingsError: if the file has other content.
    """
    with name_damage(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        return content | {key: content[key] for key in keys}


@contextlib.contextmanager
def name_damage(path: Path, advice: str = "") -> Iterator[None]:
    """Turns errors from unexpected content into a `SettingsError` that names the path."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except DAMAGE as error:
        raise SettingsError(
            f"{path} is damaged, or was not written by this version of the recipe "
            f"({type(error).__name__}: {error}).{advice}"
        ) from error


def replace_file(path: Path, write: Callable[[Path], Any], size: int = 0) -> None:
    """Writes a new file next to the one at `path`, then replaces the old one.

    Args:
        path: The file.
        write: A function that writes a file at a path.
        size: The number of bytes that must be free, as HDF5 crashes the process on a full disk.

    Raises:
        OSError: if the file cannot be written; the old one stays unchanged.
    """
    # The name is unique: processes that finish together write the same files.
    part = path.with_name(f"part-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        if shutil.disk_usage(path.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(part)
        os.replace(part, path)
    except OSError as error:
        if part.exists():
            part.unlink(missing_ok=True)
        raise OSError(
            f"{path} could not be written: {error.strerror or error}. An existing "
            "file is unchanged."
        ) from error
