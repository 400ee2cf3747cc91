"""One process at a time in the folder of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from experiment.errors import SettingsError

SECONDS_TO_END = 5.0  # what a killed process may take, or one whose parent was


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from training in a folder; the lock of a killed process is free.

    Raises:
        SettingsError: if another process trains there.
    """
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=SECONDS_TO_END)
    except filelock.Timeout:
        raise SettingsError(
            f"`--out`: {folder} is being trained by another process. Wait until that has ended, "
            "or choose another folder with --out."
        ) from None
    try:
        yield
    finally:
        lock.release()
