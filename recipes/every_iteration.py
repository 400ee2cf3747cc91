"""Appendices D and E: Tr(F) at every iteration, so that no explosion can hide between epochs.

Figures 15 and 16: SimpleCNN with two learning rates and with three batch sizes. Tr(F) is measured
on 128 training examples after each step, and the accuracy on each mini-batch is kept. The question
is whether the large learning rate, or the small batch, reaches a Tr(F) as large as the small
learning rate or the large batch does, if only for a step.

The paper draws 128 examples for each iteration; here they stay the same ones, so that the weights
alone change Tr(F). It does not print its values: learning rates of 0.0316 and a tenth of it, and
batch sizes of 128, 512 and 1280, are a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiment import picture  # first: it meets Ctrl-C with a sentence

# isort: split
import numpy as np
from experiment.command import main
from experiment.paper import DIGITS, SECTION_4, SMALL_C10
from experiment.recipe import Recipe, Result
from experiment.results import grouped, named, of, percent, test_accuracy, written
from experiment.setting import Run, Swept

SMOOTHED_OVER = 1 / 50  # of the iterations of a run
MEASURES: dict[str, dict[str, Any]] = {"fisher_trace": {"freq": 1}, "batch_accuracy": {}}


def plan(part: str, setting: Swept, finished: Mapping[str, Result]) -> list[Run]:
    """The runs of figure 15 or 16."""
    return setting.runs(part, MEASURES)


# ---- Table and figure ------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """The largest Tr(F) of each run, and how often it is reached by the others."""
    rows = []
    for (part, varied), runs in grouped(results, "part", "method").items():
        values = grouped(runs, "value")
        reference, limit = to_compare_with(varied, values)
        for value, group in values.items():
            rows.append(
                [
                    part,
                    named(varied, *value),
                    written(group, largest),
                    written(group, iteration_of_largest, digits=0),
                    f"{limit:.1f} ({named(varied, reference)})",
                    written(group, iterations_above(limit), digits=0),
                    percent(group, test_accuracy),
                ]
            )
    header = [
        "part",
        "varied",
        "largest Tr(F)",
        "at iteration",
        "to compare with",
        "iterations at or above that",
        "test accuracy, %",
    ]
    note = (
        "The largest Tr(F) over all iterations, the first epoch included. The paper prints no "
        "numbers: its large learning rate is never at or above the largest Tr(F) of the small one, "
        "and its large batch reaches a much larger Tr(F) than its small one.\n"
    )
    return f"{picture.markdown(header, rows)}\n{picture.seeds_note(results)} {note}"


def traces(run: Result) -> np.ndarray:
    """Tr(F) after each step."""
    return np.array([value for _, value, *_ in run["curves"]["fisher_trace"]["history"]], float)


def largest(run: Result) -> float:
    return np.nanmax(traces(run))


def iteration_of_largest(run: Result) -> float:
    values = traces(run)
    return np.nan if np.isnan(values).all() else np.nanargmax(values) + 1.0


def iterations_above(limit: float) -> Callable[[Result], int]:
    """After how many steps Tr(F) was at least `limit`."""
    return lambda run: int((traces(run) >= limit).sum())


def to_compare_with(
    varied: str, runs: Mapping[tuple[float], Sequence[Result]]
) -> tuple[float, float]:
    """The smallest learning rate, or the largest batch, and the largest Tr(F) under it."""
    value = (max if varied == "batch_size" else min)(runs)
    return value[0], of(runs[value], largest).mean()


def figure(results: Sequence[Result], path: Path) -> None:
    """Figures 15 and 16, a row each."""
    parts = grouped(results, "part", "method")
    fig, axes = picture.panels(len(parts), 2, width=5.5)
    for row, ((part, varied), runs) in zip(axes, parts.items(), strict=True):
        values = grouped(runs, "value")
        for colour, ((value,), group) in picture.shaded(values):
            name = named(varied, value)
            trace = np.array([traces(run) for run in group])
            iterations = np.arange(1, trace.shape[1] + 1)
            picture.band(row[0], iterations, trace, colour, name)
            accuracy = np.array([smooth_accuracy(run) for run in group])
            picture.band(row[1], iterations, accuracy, colour, name)
        reference, limit = to_compare_with(varied, values)
        name = f"largest with {named(varied, reference)}"
        row[0].axhline(limit, color="#333333", ls=":", lw=1, label=name)
        picture.label(row[0], part, x="iteration", y=picture.LABELS["fisher_trace"])
        picture.label(row[1], part, x="iteration", y="accuracy on the mini-batch, smoothed")
        for axis in row:
            axis.set_xscale("log")
            axis.legend(fontsize=8)
    picture.save(fig, path)


def smooth_accuracy(run: Result) -> np.ndarray:
    """The training accuracy on each mini-batch, as a moving average."""
    accuracy = [value for _, value in run["curves"]["batch_accuracy"]["history"]]
    return picture.smoothed(accuracy, max(1, int(SMOOTHED_OVER * len(accuracy))))


# ---- Presets ---------------------------------------------------------------------------------


def both(rates: tuple[float, ...], batch_sizes: tuple[int, ...], **task: Any) -> dict[str, Swept]:
    """Figure 15 with these learning rates, and figure 16 with the last of them."""
    task = {**task, "fisher_examples": 128}
    return {
        "figure15": Swept(**task, varies="learning_rate", values=rates),
        "figure16": Swept(**task, varies="batch_size", values=batch_sizes, learning_rate=rates[-1]),
    }


PRESETS = {
    "demo": both((0.003, 0.1), (8, 40, 200), **DIGITS, width=128, epochs=30),
    "small": both((0.00316, 0.0316), (128, 512, 1280), **SMALL_C10, epochs=16),
    "paper": both((0.00316, 0.0316), (128, 512, 1280), **SECTION_4["simple_cnn_c10"]),
}
RECIPE = Recipe("every_iteration", __doc__, PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
