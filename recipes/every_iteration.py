"""Appendices D and E: Tr(F) at every iteration, so that no explosion can hide between epochs.

Figures 15 and 16: trains SimpleCNN with two learning rates and with three batch sizes. It measures
Tr(F) on 128 training examples after each step, and records the accuracy on each mini-batch. The
question is whether the large learning rate, or the small batch, ever reaches a Tr(F) as large as
the small learning rate, or the large batch, does.

The paper draws 128 examples for each iteration. Here they stay the same, so that only the weights
change Tr(F). The paper does not state its values: learning rates of 0.0316 and a tenth of it, and
batch sizes of 128, 512 and 1280, are a choice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from experiment.command import main
from experiment.plan.paper import SECTION_4
from experiment.plan.recipe import Finished, Recipe
from experiment.plan.setting import Run, Sweep
from experiment.plan.small import DIGITS, SMALL_C10
from experiment.results import picture, tables

SMOOTHING = 1 / 50  # the window, as a share of a run's iterations
MEASURES: dict[str, dict[str, Any]] = {"fisher_trace": {"freq": 1}, "batch_accuracy": {}}


def plan(part: str, setting: Sweep, finished: Finished) -> list[Run]:
    """Plans the runs of figure 15 or 16."""
    return setting.make_runs(part, MEASURES)


# ---- Table and figure ------------------------------------------------------------------------

LARGEST = {
    "largest Tr(F)": tables.MeanCell("largest"),
    "at iteration": tables.MeanCell("iteration", digits=0),
}


def table(runs: pd.DataFrame) -> str:
    """Returns the largest Tr(F) of each run, and how often the other runs reach it."""
    runs = add_largest(runs)
    rows = []
    for (part, varied), of_part in runs.groupby(["part", "method"]):
        reference, limit = find_reference(of_part)
        comparison = f"{limit:.1f} ({tables.name_value(varied, reference)})"
        for value, group in add_reached(of_part, reference).groupby("value"):
            cells = [
                *tables.fill_cells(group, LARGEST),
                comparison,
                write_largest(group["reached"]),
                tables.PercentCell("test_accuracy")(group),
            ]
            rows.append([part, tables.name_value(varied, value), *cells])
    header = [
        *("part", "varied", *LARGEST, "to compare with"),
        *("most iterations at or above that", "test accuracy, %"),
    ]
    note = (
        "The largest Tr(F) over all iterations, the first epoch included. Iterations are compared "
        "with the largest Tr(F) of the same seed, and shown for the seed with the most. The more "
        "iterations there are, the larger the largest of their values is. The paper prints no "
        "numbers: its large learning rate is never at or above the largest Tr(F) of the small one, "
        "and its large batch reaches a much larger Tr(F) than its small one.\n"
    )
    return f"{tables.write_markdown(header, rows)}\n{tables.write_seeds(runs)} {note}"


def add_largest(runs: pd.DataFrame) -> pd.DataFrame:
    """Adds Tr(F) after each step, its largest value and the iteration of that value to runs."""
    traces = [get_step_values(curves, "fisher_trace") for curves in runs["curves"]]
    iterations = [np.nan if np.isnan(t).all() else np.nanargmax(t) + 1.0 for t in traces]
    return runs.assign(
        trace=traces, largest=[np.nanmax(trace) for trace in traces], iteration=iterations
    )


def add_reached(runs: pd.DataFrame, reference: float) -> pd.DataFrame:
    """Adds how many iterations reach the largest Tr(F) of the reference with the same seed."""
    limits = runs[runs["value"] == reference].set_index("seed")["largest"].to_dict()
    reached = [
        np.nan if np.isnan(trace).any() or seed not in limits else (trace >= limits[seed]).sum()
        for trace, seed in zip(runs["trace"], runs["seed"], strict=True)
    ]
    return runs.assign(reached=np.array(reached, float))


def write_largest(values: pd.Series) -> str:
    return tables.NOTHING if values.isna().any() else f"{values.max():.0f}"


def get_step_values(curves: dict[str, Any], key: str) -> np.ndarray:
    """Returns the values of a curve over steps."""
    return np.array([value for _, value, *_ in curves[key]["history"]], float)


def find_reference(runs: pd.DataFrame) -> tuple[float, float]:
    """Returns the smallest learning rate, or the largest batch, and its largest Tr(F)."""
    values = runs["value"]
    value = values.max() if runs["method"].iloc[0] == "batch_size" else values.min()
    return value, runs[values == value]["largest"].mean()


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Draws figures 15 and 16, a row each."""
    parts = add_largest(runs).groupby(["part", "method"])
    fig, axes = picture.make_panels(len(parts), 2, width=5.5)
    for row, ((part, varied), of_part) in zip(axes, parts, strict=True):
        for colour, value, group in picture.shade(of_part.groupby("value")):
            name, traces = tables.name_value(varied, value), np.array(list(group["trace"]))
            iterations = np.arange(1, traces.shape[1] + 1)
            picture.draw_band(row[0], iterations, traces, colour, name)
            accuracies = np.array([smooth_accuracy(curves) for curves in group["curves"]])
            picture.draw_band(row[1], iterations, accuracies, colour, name)
        reference, limit = find_reference(of_part)
        name = f"largest with {tables.name_value(varied, reference)}"
        row[0].axhline(limit, color="#333333", ls=":", lw=1, label=name)
        picture.label_axes(row[0], part, x="iteration", y=picture.LABELS["fisher_trace"])
        picture.label_axes(row[1], part, x="iteration", y="accuracy on the mini-batch, smoothed")
        for axis in row:
            axis.set_xscale("log")
            axis.legend(fontsize=8)
    picture.save(fig, path)


def smooth_accuracy(curves: dict[str, Any]) -> np.ndarray:
    """Returns a moving average of mini-batch accuracies, with shorter windows at the ends."""
    accuracy = get_step_values(curves, "batch_accuracy")
    ones = np.ones(max(1, int(SMOOTHING * len(accuracy))))
    weights = np.convolve(np.ones(len(accuracy)), ones, "same")
    return np.convolve(accuracy, ones, "same") / weights


# ---- Presets ---------------------------------------------------------------------------------


def make_parts(
    rates: tuple[float, ...], batch_sizes: tuple[int, ...], **task: Any
) -> dict[str, Sweep]:
    """Returns figure 15 with these learning rates, and figure 16 with the last of them."""
    task = {**task, "fisher_examples": 128}
    return {
        "figure15": Sweep(**task, varies="learning_rate", values=rates),
        "figure16": Sweep(**task, varies="batch_size", values=batch_sizes, learning_rate=rates[-1]),
    }


PRESETS = {
    "demo": make_parts((0.003, 0.1), (8, 40, 200), **DIGITS, width=128, epochs=30),
    # 5,120 images are 160, 40 or 10 mini-batches.
    "small": make_parts(
        (0.003, 0.03),
        (32, 128, 512),
        **SMALL_C10 | {"num_train": 5120, "validation_size": 1000},
        epochs=100,
        seeds=(0, 1, 2),
    ),
    "paper": make_parts((0.00316, 0.0316), (128, 512, 1280), **SECTION_4["simple_cnn_c10"]),
}
RECIPE = Recipe("every_iteration", __doc__, PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
