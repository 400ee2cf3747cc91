"""Section 3: a large Tr(F) early in training predicts poor generalisation.

Figures 2 and 7: trains with several learning rates, or several batch sizes, and measures Tr(F_i):
Tr(F) when the training loss crosses a threshold. The best test accuracy during training decreases
as Tr(F_i) increases.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from experiment.command import main
from experiment.plan.paper import SECTION_3
from experiment.plan.recipe import Finished, Recipe
from experiment.plan.setting import Amount, Run, Sweep
from experiment.plan.small import DIGITS, SMALL_WATCHED
from experiment.results import picture, tables
from matplotlib.axes import Axes


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyPhase(Sweep):
    """A panel of figure 2 or 7."""

    loss_threshold: Amount  # training loss at which Tr(F_i) is measured


def plan(part: str, setting: EarlyPhase, finished: Finished) -> list[Run]:
    """Plans the runs of a panel, which measure Tr(F_i) during training."""
    threshold = {"loss_threshold": setting.loss_threshold}
    return setting.make_runs(part, {"early_fisher_trace": threshold, "fisher_trace": {}})


# ---- Table and figure ------------------------------------------------------------------------


CELLS = {
    "Tr(F_i)": tables.MeanCell("early_fisher_trace"),
    "in epoch": tables.MeanCell("epoch_of_crossing"),
    "best test accuracy, %": tables.PercentCell("test_accuracy"),
}
CORRELATIONS = ("setting", "values", "runs", "Pearson", "Spearman", "paper")


def table(runs: pd.DataFrame) -> str:
    """Returns the points of figures 2 and 7, and their correlations over runs."""
    points = []
    for (part, varied, value), group in runs.groupby(["part", "method", "value"]):
        crossed = list_crossed(group)
        share = f"{len(crossed)} of {len(group)}"
        points.append(
            [part, tables.name_value(varied, value), share, *tables.fill_cells(crossed, CELLS)]
        )
    correlations = [[part, *write_correlation(group)] for part, group in runs.groupby("part")]
    header = ["setting", "varied", "runs that crossed", *CELLS]
    note = (
        "Of the runs whose training loss, weight decay included, crosses the threshold: Tr(F) "
        "there, the epoch at whose end that is, and the best test accuracy along the training.\n"
    )
    claim = (
        "Over all runs of a setting that crossed. Runs of one value are alike, so that with few "
        "values a strong coefficient can be due to chance. The paper prints no coefficient: its "
        "figures 2 and 7 show test accuracy falling as Tr(F_i) rises.\n"
    )
    return (
        f"{tables.write_markdown(header, points)}\n{tables.write_seeds(runs)} {note}\n"
        f"{tables.write_markdown(CORRELATIONS, correlations)}\n{claim}"
    )


def write_correlation(runs: pd.DataFrame) -> list[str]:
    crossed = list_crossed(runs)
    figures = crossed["early_fisher_trace"], crossed["test_accuracy"]
    coefficients = [tables.correlate(*figures, method) for method in ("pearson", "spearman")]
    texts = [tables.NOTHING if math.isnan(number) else f"{number:.2f}" for number in coefficients]
    return [str(crossed["value"].nunique()), str(len(crossed)), *texts, "negative"]


def list_crossed(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the runs whose training loss crossed the threshold, with Tr(F_i) and its epoch."""
    traces = [final["early_fisher_trace"] for final in runs["final"]]
    runs = runs.assign(early_fisher_trace=np.array(traces, float))
    crossed = runs[runs["early_fisher_trace"].notna()]
    return crossed.assign(epoch_of_crossing=crossed["history"].map(find_crossing))


def find_crossing(history: dict[str, Any]) -> int:
    """Returns the first epoch, counted from 1, at whose end Tr(F_i) was known."""
    values = np.array(history["early_fisher_trace"], float)
    return int(np.isfinite(values).argmax()) + 1


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Draws figures 2 and 7, a row for each setting, and Tr(F) over epochs."""
    parts = runs.groupby(["part", "method"])
    fig, axes = picture.make_panels(len(parts), 2, width=5)
    for (left, right), ((part, varied), of_part) in zip(axes, parts, strict=True):
        for colour, value, group in picture.shade(of_part.groupby("value")):
            draw_points(left, list_crossed(group), colour, tables.name_value(varied, value))
            picture.draw_curve(right, group, "fisher_trace", colour)
        picture.label_axes(left, part, x=r"Tr(F$_i$)", y="best test accuracy")
        picture.label_axes(right, part, y=picture.LABELS["fisher_trace"])
        left.legend(fontsize=8)
    picture.save(fig, path)


def draw_points(axis: Axes, runs: pd.DataFrame, colour: Any, name: str) -> None:
    """Draws every run, and the mean over seeds as in the paper."""
    if not runs.empty:
        xs, ys = runs["early_fisher_trace"], runs["test_accuracy"]
        axis.plot(xs, ys, "o", c=colour, ms=3, alpha=0.5)
        picture.draw_point(axis, xs, ys, colour, name)


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
            epochs=100,
            seeds=(0, 1, 2),
            fisher_examples=1000,
            varies="learning_rate",
            values=(0.002, 0.005, 0.01, 0.03),
            loss_threshold=1.5,
        ),
        "simple_cnn_c10_batches": EarlyPhase(
            **SMALL_WATCHED,
            epochs=100,
            seeds=(0, 1, 2),
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
