"""Seeds of random draws."""

from __future__ import annotations

import zlib


def spread_seed(seed: int | None, purpose: str) -> int | None:
    """Returns a seed that is unrelated to those of other purposes, and of neighbouring seeds."""
    if seed is None:
        return None
    return zlib.crc32(f"{purpose} {seed}".encode()) & 0x7FFFFFFF  # PyTorch's are int32
