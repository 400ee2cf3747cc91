"""Section 3: Tr(F) early in training goes with how well the network will generalise.

Figures 2 and 7: trains with several learning rates, or several batch sizes, and measures Tr(F_i),
that is Tr(F) where the training loss crosses a threshold. The best test accuracy along the
training falls as Tr(F_i) rises.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiment import picture  # first: it meets Ctrl-C with a sentence

# isort: split
import numpy as np
from experiment.command import main
from experiment.correlation import pearson, spearman
from experiment.paper import DIGITS, SECTION_3, SMALL_WATCHED
from experiment.recipe import Recipe, Result
from experiment.results import (
    NOTHING,
    final,
    grouped,
    named,
    of,
    percent,
    test_accuracy,
    written,
)
from experiment.setting import Run, Swept, option
from matplotlib.axes import Axes

early_fisher_trace = final("early_fisher_trace")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyPhase(Swept):
    """A panel of figure 2 or 7."""

    loss_threshold: float = option("training loss at which Tr(F_i) is measured")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("loss_threshold", at_least=0)


def plan(part: str, setting: EarlyPhase, finished: Mapping[str, Result]) -> list[Run]:
    """The runs of a panel, which find Tr(F_i) on the way."""
    threshold = {"loss_threshold": setting.loss_threshold}
    return setting.runs(part, {"early_fisher_trace": threshold, "fisher_trace": {}})


# ---- Table and figure ------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """The points of figures 2 and 7, and how strongly the two figures correlate over runs."""
    points = [
        [part, named(varies, value), *_point(runs)]
        for (part, varies, value), runs in grouped(results, "part", "method", "value").items()
    ]
    correlations = [
        [part, *_correlation(runs)] for (part,), runs in grouped(results, "part").items()
    ]
    header = [
        "setting",
        "varied",
        "runs that crossed",
        "Tr(F_i)",
        "in epoch",
        "best test accuracy, %",
    ]
    note = (
        "Of the runs whose training loss, weight decay included, crosses the threshold: Tr(F) "
        "there, the epoch at whose end that is, and the best test accuracy along the training.\n"
    )
    claim = (
        "Over all runs of a setting that crossed. The paper prints no coefficient: its figures 2 "
        "and 7 show test accuracy falling as Tr(F_i) rises.\n"
    )
    return (
        f"{picture.markdown(header, points)}\n{picture.seeds_note(results)} {note}\n"
        f"{picture.markdown(['setting', 'runs', 'Pearson', 'Spearman', 'paper'], correlations)}"
        f"\n{claim}"
    )


def _point(runs: Sequence[Result]) -> list[str]:
    crossed = that_crossed(runs)
    return [
        f"{len(crossed)} of {len(runs)}",
        written(crossed, early_fisher_trace),
        written(crossed, epoch_of_crossing),
        percent(crossed, test_accuracy),
    ]


def _correlation(runs: Sequence[Result]) -> list[str]:
    crossed = that_crossed(runs)
    figures = of(crossed, early_fisher_trace), of(crossed, test_accuracy)
    coefficients = pearson(*figures), spearman(*figures)
    return [
        str(len(crossed)),
        *(NOTHING if math.isnan(number) else f"{number:.2f}" for number in coefficients),
        "negative",
    ]


def that_crossed(runs: Sequence[Result]) -> list[Result]:
    """The runs whose training loss reached the threshold."""
    return [run for run in runs if early_fisher_trace(run) is not None]


def epoch_of_crossing(run: Result) -> int:
    """The first epoch, counted from 1, at whose end Tr(F_i) was known."""
    values = np.array(run["history"]["early_fisher_trace"], float)
    return int(np.isfinite(values).argmax()) + 1


def figure(results: Sequence[Result], path: Path) -> None:
    """Figures 2 and 7, a row for each setting, and Tr(F) over the epochs behind them."""
    parts = grouped(results, "part", "method")
    fig, axes = picture.panels(len(parts), 2, width=5)
    for row, ((part, varies), runs) in zip(axes, parts.items(), strict=True):
        values = grouped(runs, "value")
        for colour, ((value,), group) in picture.shaded(values):
            _scatter(row[0], that_crossed(group), colour, named(varies, value))
            picture.curve(row[1], group, "fisher_trace", colour)
        picture.label(row[0], part, x=r"Tr(F$_i$)", y="best test accuracy")
        picture.label(row[1], part, y=picture.LABELS["fisher_trace"])
        row[0].legend(fontsize=8)
    picture.save(fig, path)


def _scatter(axis: Axes, runs: Sequence[Result], colour: Any, name: str) -> None:
    """Every run, and the mean over seeds as in the paper."""
    if not runs:
        return
    axis.plot(of(runs, early_fisher_trace), of(runs, test_accuracy), "o", c=colour, ms=3, alpha=0.5)
    picture.point(axis, runs, early_fisher_trace, test_accuracy, colour, name)


# ---- Presets ---------------------------------------------------------------------------------

PRESETS = {
    "demo": {
        "mlp_digits": EarlyPhase(
            **DIGITS | {"validation_size": 0},
            width=128,
            epochs=25,
            steps_per_execution=13,
            fisher_examples=400,
            seeds=(0, 1),
            varies="learning_rate",
            values=(0.003, 0.01, 0.04),
            loss_threshold=0.4,
        )
    },
    "small": {
        "simple_cnn_c10_rates": EarlyPhase(
            **SMALL_WATCHED,
            epochs=40,
            fisher_examples=1000,
            varies="learning_rate",
            values=(0.001, 0.003, 0.01, 0.03),
            loss_threshold=1.5,
        ),
        "simple_cnn_c10_batches": EarlyPhase(
            **SMALL_WATCHED,
            epochs=40,
            fisher_examples=1000,
            varies="batch_size",
            learning_rate=0.01,
            values=(64, 128, 512),
            loss_threshold=1.5,
        ),
    },
    "paper": {
        "imagenet": EarlyPhase(
            **SECTION_3["imagenet"],
            seeds=(0, 1),
            varies="learning_rate",
            values=(0.001, 0.01, 0.1),
            loss_threshold=3.5,
        ),
        "cifar10_rates": EarlyPhase(
            **SECTION_3["cifar10"],
            seeds=tuple(range(32)),
            varies="learning_rate",
            values=(0.007, 0.01, 0.05),
            loss_threshold=1.2,
        ),
        "cifar100_rates": EarlyPhase(
            **SECTION_3["cifar100"],
            seeds=tuple(range(32)),
            varies="learning_rate",
            values=(0.001, 0.005, 0.01),
            loss_threshold=3.5,
        ),
        "cifar10_batches": EarlyPhase(
            **SECTION_3["cifar10"],
            seeds=tuple(range(32)),
            varies="batch_size",
            values=(100, 500, 700),
            loss_threshold=1.2,
        ),
        "cifar100_batches": EarlyPhase(
            **SECTION_3["cifar100"],
            seeds=tuple(range(32)),
            varies="batch_size",
            values=(100, 300, 700),
            loss_threshold=3.5,
        ),
    },
}
RECIPE = Recipe("early_phase", __doc__, PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
