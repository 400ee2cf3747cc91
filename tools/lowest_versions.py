"""Prints the lowest versions that the package declares to run with, as constraints for pip.

python tools/lowest_versions.py > lowest.txt
pip install --constraint lowest.txt --editable '.[dev]'
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
# What others are for is not used at run time.
EXTRAS = ("tensorflow", "jax", "torch", "datasets", "tuning", "recipes")


def list_lowest(pyproject: str) -> list[str]:
    """A constraint for each dependency with a lower bound."""
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *(line for name in EXTRAS for line in extras[name])]
    bounds = (re.fullmatch(r"([\w.-]+)>=([\d.]+)", line) for line in declared)
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


if __name__ == "__main__":
    print("\n".join(list_lowest(PYPROJECT.read_text())))
