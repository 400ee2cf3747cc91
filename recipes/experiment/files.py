"""Files that are replaced in one step, so that whoever is killed leaves a whole one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_json(path: Path, content: Any) -> None:
    """Writes values that JSON has."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, content: str) -> None:
    """Writes text."""
    replace(path, lambda part: part.write_text(content, encoding="utf-8"))


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` write a file beside the one at `path`, which it then takes the place of."""
    part = path.with_name(f"part-{path.name}")
    write(part)
    os.replace(part, path)
