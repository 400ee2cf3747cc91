"""Appendix C: the approximations in the Fisher penalty do not weaken it.

Figure 12 tracks Tr(F) and Tr(F^B), the squared norm of the mini-batch gradient, which the penalty
uses in place of Tr(F). Figure 13 compares a penalty whose gradient is computed every 10 steps with
one computed at every step. Figure 14 penalises the gradient of a single example (eq. 6).

Alphas are chosen by validation accuracy with the first seed (appendix G.2). The paper does not
state the learning rate of figures 13 and 14; the paper preset uses 0.00316, a tenth of 0.0316. Nor
does it state the data of figure 12, here 1280 examples. The run without a penalty is an addition.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from experiment.command import main
from experiment.plan.paper import SECTION_4
from experiment.plan.recipe import Finished, Recipe, tune
from experiment.plan.setting import Amounts, Choices, Count, PenaltySetting, Run, Sweep
from experiment.plan.small import SMALL_C10, WIDE_DIGITS
from experiment.results import picture, tables
from matplotlib.axes import Axes

from keras_fisher import tuning

TRACES = ("fisher_trace", "minibatch_fisher_trace")
Method = Literal["baseline", "fp", "every_step", "one_example"]
# The settings that the methods of figures 13 and 14 change.
METHODS: dict[Method, dict[str, int]] = {
    "baseline": {},
    "fp": {},
    "every_step": {"update_freq": 1},
    "one_example": {"update_freq": 1, "penalty_batch_size": 1},
}
TITLES = {
    "baseline": "baseline",
    "fp": "FP",
    "every_step": "FP computed at every step",
    "one_example": "FP on one example (eq. 6)",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApproximationSetting(PenaltySetting):
    """The setting of figures 13 and 14."""

    update_freq: Count = 10  # steps between two computations of the penalty's gradient, for fp
    methods: Choices[Method]  # methods to compare
    alphas: Amounts  # alphas to choose from


def plan(part: str, setting: Sweep | ApproximationSetting, finished: Finished) -> list[Run]:
    """Plans the runs of a figure."""
    if isinstance(setting, Sweep):
        return setting.make_runs(part, {trace: {} for trace in TRACES})
    runs: list[Run] = []
    for method in setting.methods:
        changes: dict[str, Any] = {"measures": {TRACES[0]: {}}, **METHODS[method]}
        run = setting.make_run(part=part, method=method, **changes)
        alphas = (0.0,) if method == "baseline" else setting.alphas
        runs += tune(run, alphas, setting.seeds, finished)[0]
    return runs


# ---- Table -----------------------------------------------------------------------------------

# Test accuracy in percent, and the largest Tr(F).
PAPER = {
    "fp": ("80.02", "21.38"),
    "every_step": ("about 80", tables.NOTHING),
    "one_example": ("79.7", "24.16"),
}


def table(runs: pd.DataFrame) -> str:
    """Returns the correlations of figure 12, and the results of figures 13 and 14."""
    penalised = runs["method"].isin(METHODS)
    texts = [
        write(some)
        for write, some in ((write_traces, runs[~penalised]), (write_methods, runs[penalised]))
        if not some.empty
    ]
    return "\n".join([*texts, tables.write_seeds(runs) + "\n"])


def write_traces(runs: pd.DataFrame) -> str:
    cells = {
        "first half of the epochs": tables.MeanCell("first_half", digits=2),
        "all epochs": tables.MeanCell("all_epochs", digits=2),
    }
    runs = runs.assign(
        first_half=[correlate_traces(runs.loc[[index]], 1 / 2) for index in runs.index],
        all_epochs=[correlate_traces(runs.loc[[index]]) for index in runs.index],
    )
    rows = [
        [tables.name_value(varied, value), *(cell(group) for cell in cells.values())]
        for (varied, value), group in runs.groupby(["method", "value"])
    ]
    pooled = [correlate_traces(runs, share) for share in (1 / 2, 1)]
    rows.append(["all runs", *(f"{coefficient:.2f}" for coefficient in pooled)])
    note = (
        "Pearson's correlation of log Tr(F) with log Tr(F^B). The paper prints no coefficient: it "
        "sees a strong correlation except in the final phase. The row of all runs also reflects "
        "that learning rates differ.\n"
    )
    return f"{tables.write_markdown(['figure 12', *cells], rows)}\n{note}"


def correlate_traces(runs: pd.DataFrame, share: float = 1) -> float:
    """Returns the correlation of the two traces over the first `share` of the epochs."""
    return tables.correlate_logarithms(*(pool_epochs(runs, key, share) for key in TRACES))


def pool_epochs(runs: pd.DataFrame, key: str, share: float = 1) -> np.ndarray:
    """Returns the values that runs logged after each of the first `share` of their epochs."""
    first = [h[key][: int(share * len(h[key]))] for h in runs["history"]]
    return np.array([value for values in first for value in values], float)


def write_methods(runs: pd.DataFrame) -> str:
    rows = [
        [
            part,
            TITLES[method],
            tables.SettingCell("alpha")(group),
            tables.PercentCell("test_accuracy")(group),
            tables.DifferenceCell("test_accuracy", methods["fp"])(group),
            PAPER.get(method, (tables.NOTHING, tables.NOTHING))[0],
            tables.MeanCell("max_fisher_trace")(group),
            PAPER.get(method, (tables.NOTHING, tables.NOTHING))[1],
        ]
        for part, methods in tables.split_methods(tables.choose_values(runs), METHODS).items()
        for method, group in methods.items()
        if not group.empty
    ]
    header = [
        *("part", "method", "alpha", "test accuracy, %", "minus that of FP, points", "paper"),
        *("largest Tr(F)", "paper"),
    ]
    note = f"{tables.FIGURES_NOTE} {tables.DIFFERENCES_NOTE}\n"
    return f"{tables.write_markdown(header, rows)}\n{note}{tables.write_edges(runs)}"


# ---- Figure ----------------------------------------------------------------------------------


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Draws figure 12 in the first row, and figures 13 and 14 below, one column per method."""
    swept = runs[~runs["method"].isin(METHODS)]
    baseline = runs[runs["method"] == "baseline"]
    groups = runs[runs["method"].isin(METHODS)].groupby(["part", "method"])
    columns = [item for item in groups if item[0][1] != "baseline"] or list(groups)
    columns.sort(key=lambda item: (item[0][0], [*METHODS].index(item[0][1])))
    fig, axes = picture.make_panels(bool(len(swept)) + 2 * bool(columns), max(3, len(columns)))
    for axis in axes.flat:
        axis.set_axis_off()
    if len(swept):
        draw_traces(axes[0], swept)
    for column, ((part, method), group) in zip(axes[-2:].T, columns, strict=False):
        own = baseline[baseline["part"] == part]
        draw_alphas(column, f"{part}: {TITLES[method]}", group, own)
    picture.save(fig, path)


def draw_traces(row: Sequence[Axes], runs: pd.DataFrame) -> None:
    """Draws both traces over epochs, and one against the other at each epoch."""
    for colour, (varied, value), group in picture.shade(runs.groupby(["method", "value"])):
        for axis, key in zip(row[:2], TRACES, strict=True):
            picture.draw_curve(axis, group, key, colour)
        points = [pool_epochs(group, key) for key in TRACES]
        name = tables.name_value(varied, value)
        row[2].plot(*points, "o", ms=3, alpha=0.6, color=colour, label=name)
    labels = [picture.LABELS[key] for key in TRACES]
    for axis in row[:3]:
        axis.set_axis_on()
    for axis, label in zip(row[:2], labels, strict=True):
        picture.label_axes(axis, "figure 12", y=label)
        axis.set_yscale("log")
    picture.label_axes(row[2], "figure 12, all epochs", x=labels[0], y=labels[1])
    row[2].set_xscale("log")
    row[2].set_yscale("log")
    row[2].legend(fontsize=7)


def draw_alphas(
    column: Sequence[Axes], title: str, runs: pd.DataFrame, baseline: pd.DataFrame
) -> None:
    """Draws validation accuracy and Tr(F) of a method, blue to red by alpha, and the baseline."""
    for axis, key in zip(column, ("val_accuracy", "fisher_trace"), strict=True):
        axis.set_axis_on()
        picture.draw_curve(axis, baseline, key, picture.COLOURS["baseline"], "baseline", ":")
        for colour, alpha, group in picture.shade(runs.groupby("value")):
            picture.draw_curve(axis, group, key, colour, f"alpha {alpha:g}")
        picture.label_axes(axis, title, y=picture.LABELS[key])
    column[0].legend(fontsize=7, loc="lower right", ncols=2)


# ---- Presets ---------------------------------------------------------------------------------

DEMO = WIDE_DIGITS | {"epochs": 30, "fisher_examples": 320}
SMALL_PENALISED: dict[str, Any] = SMALL_C10 | {"seeds": (0, 1, 2), "learning_rate": 0.003}
PRESETS: dict[str, dict[str, Sweep | ApproximationSetting]] = {
    "demo": {
        "figure12": Sweep(**DEMO, varies="learning_rate", values=(0.003, 0.01, 0.03)),
        "figure13": ApproximationSetting(
            **DEMO,
            learning_rate=0.003,
            methods=("baseline", "fp", "every_step"),
            alphas=(0.05,),
        ),
        "figure14": ApproximationSetting(
            **DEMO, learning_rate=0.003, methods=("one_example",), alphas=(0.0015,)
        ),
    },
    "small": {
        "figure12": Sweep(
            **SMALL_C10,
            epochs=50,
            seeds=(0, 1, 2),
            fisher_examples=384,
            varies="learning_rate",
            values=(0.002, 0.005, 0.03),
        ),
        "figure13": ApproximationSetting(
            **SMALL_PENALISED,
            epochs=50,
            methods=("baseline", "fp", "every_step"),
            alphas=(0.003, 0.01, 0.03, 0.1),
        ),
        # 351 steps per epoch instead of 39: nine times as many penalties between two evaluations.
        "figure13_all_images": ApproximationSetting(
            **SMALL_PENALISED | {"num_train": 44_928},
            epochs=16,
            methods=("baseline", "fp", "every_step"),
            alphas=(0.001, 0.003, 0.01, 0.03),
        ),
        "figure14": ApproximationSetting(
            **SMALL_PENALISED,
            epochs=50,
            methods=("baseline", "one_example"),
            alphas=(3e-5, 1e-4, 3e-4, 1e-3),
        ),
    },
    "paper": {
        "figure12": Sweep(
            **SECTION_4["simple_cnn_c10"],
            fisher_examples=1280,
            varies="learning_rate",
            values=(0.001, 0.00316, 0.01, 0.0316, 0.1),
        ),
        "figure13": ApproximationSetting(
            **SECTION_4["simple_cnn_c10"],
            learning_rate=0.00316,
            methods=("baseline", "fp", "every_step"),
            alphas=tuning.alphas(0.1),
        ),
        "figure14": ApproximationSetting(
            **SECTION_4["simple_cnn_c10"],
            learning_rate=0.00316,
            methods=("one_example",),
            alphas=tuning.alphas(0.001),
        ),
    },
}
RECIPE = Recipe("approximations", __doc__, PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
