"""The lines of the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table; `numbers` goes into the JSON file alone."""

    section: str
    network: str
    quantity: str
    result: str
    target: str = ""
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class SectionSkipped(Exception):
    """A section cannot run on this machine; the message says why."""


def ratio_row(
    section: str,
    network: str,
    quantity: str,
    ratios: np.ndarray,
    *,
    seconds: Mapping[str, np.ndarray],
    target: float | None = None,
    at_least: bool = False,
    floor: float | None = None,
) -> Row:
    """A ratio, of shape (rounds,): its median, smallest and largest.

    Args:
        section: The section.
        network: The network.
        quantity: What was divided by what.
        ratios: One for each round.
        seconds: What the ratios are of, by name.
        target: What the median is wanted to be at most.
        at_least: Whether it is wanted to be at least that.
        floor: The ratio of the numbers of passes.
    """
    median, low, high = (float(part(ratios)) for part in (np.median, np.min, np.max))
    numbers = {
        "median": median,
        "min": low,
        "max": high,
        "target": target,
        "floor": floor,
        "seconds": {what: taken.tolist() for what, taken in seconds.items()},
    }
    counted = "" if floor is None else f"; passes: {floor:.2f}"
    return Row(
        section,
        network,
        quantity,
        f"{median:.2f} ({low:.2f} to {high:.2f}){counted}",
        "" if target is None else f"at {'least' if at_least else 'most'} {target}",
        numbers,
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| section | network | measured | result | target |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row.section, row.network, row.quantity, row.result, row.target)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
