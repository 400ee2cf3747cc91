"""Draws what each way to compute the penalty reaches against what it costs.

    python tools/accuracy_against_cost.py runs/penalty_cost/small \\
        --benchmark runs/benchmark.json --out accuracy_against_cost.png

Accuracies are those of finished runs of `recipes/penalty_cost.py`, in one folder or several, beside
the paper's way (the whole mini-batch, every 10 steps) over the same seeds. Costs are those of a
network in the section `training` of `tools/benchmark.py`, in epochs of plain training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import numpy as np
from experiment import picture, results
from experiment.errors import SettingsError
from experiment.files import read_json
from experiment.recipe import Result
from penalty_cost import BASELINE, METHODS, PAPERS, gains, title


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    description, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=usage, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders of penalty_cost.py")
    parser.add_argument("--benchmark", type=Path, required=True, help="the JSON of the benchmark")
    parser.add_argument("--network", default="SimpleCNN", help="whose costs to take")
    parser.add_argument("--out", type=Path, required=True, help="the picture")
    given = parser.parse_args(arguments)
    try:
        runs = results.read_of("penalty_cost", given.folders)
        check_papers(runs)
        ratios = costs(given.benchmark, given.network)
        draw(runs, ratios, f"time of an epoch, in plain epochs ({given.network})", given.out)
    except (SettingsError, OSError) as error:
        sys.exit(f"error: {error}")


def check_papers(runs: Sequence[Result]) -> None:
    """Raises unless the paper's way was trained in each setting, which the others stand beside."""
    for (part,), of_part in results.grouped(runs, "part").items():
        if all(run["method"] != PAPERS for run in of_part):
            raise SettingsError(
                f"`folders` must have runs of the paper's way, {PAPERS}, in every setting. "
                f"Received: none of {part}"
            )


def costs(path: Path, network: str) -> dict[str, Mapping[str, Any]]:
    """The measured ratio of each method that the benchmark has."""
    rows = read_json(path, rows=list)["rows"]
    measured = {row["quantity"]: row["numbers"] for row in rows if row["network"] == network}
    found = {}
    for method, (one_in, every) in METHODS.items():
        for what, numbers in measured.items():
            if one_in and is_of(what, one_in, every):
                found[method] = numbers
    if not found:
        raise SettingsError(
            f"`--benchmark` must have a section training with `--network` {network}. "
            f"Received: {path}"
        )
    return found


def is_of(quantity: str, one_in: int, every: int) -> bool:
    """Whether a row of the benchmark is about FP, exact, on this share this often."""
    what, _, rest = quantity.partition(" examples, every ")
    steps = rest.partition(":")[0]
    if not what.startswith("FP, ") or not rest:
        return False
    examples, _, batch = what.removeprefix("FP, ").partition(" of ")
    is_often = steps == ("step" if every == 1 else f"{every} steps")
    return examples.isdigit() and int(examples) == max(1, int(batch) // one_in) and is_often


def draw(
    runs: Sequence[Result], ratios: Mapping[str, Mapping[str, Any]], x: str, path: Path
) -> None:
    """A panel for each setting, a point for each method."""
    parts = results.every_value(runs, METHODS)
    fig, axes = picture.panels(1, len(parts), width=5.5, height=4.2)
    for axis, (part, methods) in zip(axes[0], parts.items(), strict=True):
        papers = results.chosen(methods[PAPERS])
        for shade, (method, group) in picture.shaded(methods):
            gain = gains(results.chosen(group), papers)
            if method == BASELINE:
                axis.axhline(gain.mean(), color=picture.COLOURS[method], ls=":", label=method)
            elif method in ratios:
                ratio = ratios[method]
                axis.errorbar(
                    ratio["median"],
                    gain.mean(),
                    xerr=[
                        [ratio["median"] - ratio["min"]],
                        [ratio["max"] - ratio["median"]],
                    ],
                    yerr=gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else None,
                    fmt="*" if method == PAPERS else "o",
                    color=shade,
                    capsize=3,
                    label=title(method),
                )
        axis.axvline(1.05, color="#333333", lw=0.8, alpha=0.5)
        y = "test accuracy beside the paper's way, points"
        picture.label(axis, part, x=x, y=y)
    picture.legend(fig, axes.flat)
    picture.save(fig, path)


if __name__ == "__main__":
    main()
