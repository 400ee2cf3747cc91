"""Files that a killed process does not leave half written."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically: a killed process leaves the old or the new file.

    Processes that share a folder may write the same file at the same time.
    """
    new = path.with_name(f"{path.name}.{uuid.uuid4().hex}.new")
    try:
        new.write_text(json.dumps(value))
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
