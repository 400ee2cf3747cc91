"""Files that are replaced in one step, so that whoever is killed leaves a whole one.

What is read may have been cut or written by somebody else: it is checked, and never run.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiment.errors import SettingsError
from experiment.kinds import fault


def write_json(path: Path, content: Any) -> None:
    """Writes values that JSON has."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, content: str) -> None:
    """Writes text."""
    replace(path, lambda part: part.write_text(content, encoding="utf-8"))


def read_json(path: Path, **needed: Any) -> dict[str, Any]:
    """Reads an object that has these keys, with values of these kinds, as `kinds.fault` takes them.

    Raises:
        SettingsError: if the file holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is damaged: {error}") from None
    if missing := fault(content, needed):
        raise SettingsError(
            f"{path} is damaged, or was not written by a recipe: it lacks {missing}"
        )
    return content


def inside(folder: Path, name: Any, suffix: str) -> Path:
    """The path of a file of a folder, whose name was read from a file.

    Raises:
        SettingsError: if it is no plain name that ends in `suffix`.
    """
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(suffix):
        raise SettingsError(
            f"{folder} is damaged, or was not written by a recipe: it names a file {name!r} that "
            f"is none of *{suffix} in there"
        )
    return folder / name


def is_read_only(error: BaseException | None) -> bool:
    """Whether a file could not be written because nothing can be where it is."""
    return isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def replace(path: Path, write: Callable[[Path], Any], size: int = 0) -> None:
    """Lets `write` write a file beside the one at `path`, which it then takes the place of.

    Args:
        path: The file.
        write: Writes a file at a path.
        size: How many bytes must be free. HDF5 crashes the process where it finds the disk full.

    Raises:
        OSError: if the file cannot be written; the one that was there is left as it is.
    """
    # By a name of its own: processes that end together write the same files.
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
            f"{path} could not be written: {error.strerror or error}. The file that was "
            "there before is left as it was."
        ) from error
