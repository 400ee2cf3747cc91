"""How cheap the Fisher penalty can be: computed on fewer examples, or more or less often.

With drawn labels, the squared norm of the gradient of n examples has the mean Tr(F)/n. A penalty on
n of the B examples of a mini-batch, with alpha n/B instead of alpha, therefore has the same
expected gradient at n/B of the cost. The paper computes the penalty on the whole mini-batch at
every tenth step. This recipe also trains with other shares and frequencies, each with the alphas of
a list (scaled by n/B), and chooses alpha by validation accuracy with the first seed (appendix G.2).

This is not an experiment of the paper; figures 13 and 14 (`approximations.py`) are similar.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from experiment.command import main
from experiment.plan.paper import SECTION_4
from experiment.plan.recipe import Finished, Recipe, tune
from experiment.plan.setting import Amount, Amounts, Choices, Fraction, Run, Setting
from experiment.plan.small import SMALL_C10, WHOLE_DIGITS
from experiment.results import picture, tables

from keras_fisher import tuning

Method = Literal[
    "baseline",
    "whole_10",
    "quarter_10",
    "eighth_10",
    "16th_10",
    "16th_5",
    "32nd_10",
    "32nd_4",
    "32nd_2",
    "32nd_1",
    "eighth_1",
]
BASELINE: Method = "baseline"
PAPERS: Method = "whole_10"
# The divisor of the mini-batch size for the penalty's examples, and the steps between computations.
METHODS: dict[Method, tuple[int, int]] = {
    BASELINE: (0, 0),
    PAPERS: (1, 10),
    "quarter_10": (4, 10),
    "eighth_10": (8, 10),
    "16th_10": (16, 10),
    "16th_5": (16, 5),
    "32nd_10": (32, 10),
    "32nd_4": (32, 4),
    "32nd_2": (32, 2),
    "32nd_1": (32, 1),
    "eighth_1": (8, 1),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostSetting(Setting):
    """A setting that computes the penalty in several ways."""

    learning_rate: Amount = 0.003  # learning rate
    noise: Fraction = 0.0  # fraction of labels to replace by uniform draws
    methods: Choices[Method] = tuple(METHODS)
    """ways to compute the penalty: share of the mini-batch, and steps between computations"""
    alphas: Amounts  # alphas to choose from, for the whole mini-batch


def plan(part: str, setting: CostSetting, finished: Finished) -> list[Run]:
    """Plans each way to compute the penalty, with the best alpha."""
    runs: list[Run] = []
    for method in setting.methods:
        one_in, every = METHODS[method]
        shared: dict[str, Any] = {"noise": setting.noise, "measures": {"fisher_trace": {}}}
        run = setting.make_run(part=part, method=method, **shared)
        if method == BASELINE:
            runs += tune(run, (0.0,), setting.seeds, finished)[0]
            continue
        examples = max(1, setting.batch_size // one_in)
        run = dataclasses.replace(
            run, update_freq=every, penalty_batch_size=0 if one_in == 1 else examples
        )
        share = examples / setting.batch_size
        runs += tune(run, setting.alphas, setting.seeds, finished, factor=share)[0]
    return runs


# ---- Table and figure ------------------------------------------------------------------------


def name_method(method: Method) -> str:
    """Describes the share and frequency of a method."""
    one_in, every = METHODS[method]
    if not one_in:
        return method
    share = "whole batch" if one_in == 1 else f"1/{one_in} of the batch"
    return f"{share}, every {every} steps" if every > 1 else f"{share}, every step"


CELLS = {
    "alpha of the whole batch": tables.SettingCell("value"),
    "alpha": tables.SettingCell("alpha"),
    "test accuracy, %": tables.PercentCell("test_accuracy"),
    "at the end, %": tables.PercentCell("final_test_accuracy"),
}


def table(runs: pd.DataFrame) -> str:
    """Returns the accuracy of each way, its cost in examples, and its gain over the paper's way."""
    rows = [
        [
            *(part, name_method(method), count_examples(group.iloc[0])),
            *tables.fill_cells(group, CELLS),
            tables.NOTHING
            if method == PAPERS
            else tables.DifferenceCell("test_accuracy", methods[PAPERS])(group),
            tables.MeanCell("max_fisher_trace")(group),
        ]
        for part, methods in tables.split_methods(tables.choose_values(runs), METHODS).items()
        for method, group in methods.items()
        if not group.empty
    ]
    header = [
        *("setting", "penalty", "examples a step", *CELLS),
        *("difference from the whole batch every 10 steps, %", "largest Tr(F)"),
    ]
    note = f"{tables.DIFFERENCES_NOTE} {tables.write_seeds(runs)} {tables.FIGURES_NOTE}\n"
    return f"{tables.write_markdown(header, rows)}\n{note}"


def count_examples(run: pd.Series) -> str:
    """Returns the mean number of examples per step that the penalty is computed on."""
    examples = run["penalty_batch_size"] or run["batch_size"]
    return f"{examples / run['update_freq']:g}" if run["alpha"] else "0"


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Draws validation accuracy and Tr(F), a row for each setting."""
    parts = tables.split_methods(tables.choose_values(runs), METHODS)
    fig, axes = picture.make_panels(len(parts), 2, width=5.5)
    for row, (part, methods) in zip(axes, parts.items(), strict=True):
        groups = [(method, group) for method, group in methods.items() if not group.empty]
        for shade, method, group in picture.shade(groups):
            colour = picture.COLOURS.get(method, shade)
            for axis, key in zip(row, ("val_accuracy", "fisher_trace"), strict=True):
                picture.draw_curve(axis, group, key, colour, name_method(method))
                picture.label_axes(axis, part, y=picture.LABELS[key])
        row[1].set_yscale("log")
    picture.draw_legend(fig, axes.flat)
    picture.save(fig, path)


# ---- Presets ---------------------------------------------------------------------------------

SEEDS = (0, 1, 2, 3, 4)
NOISY_DIGITS: dict[str, Any] = WHOLE_DIGITS | {"noise": 0.5}
PRESETS = {
    "demo": {
        "noisy_digits": CostSetting(
            **NOISY_DIGITS,
            steps_per_execution=34,
            seeds=(0, 1),
            methods=(BASELINE, PAPERS, "quarter_10", "32nd_1"),
            alphas=(0.3,),
        )
    },
    "small": {
        "noisy_digits": CostSetting(**NOISY_DIGITS, seeds=SEEDS, alphas=(0.1, 0.3)),
        "noisy_digits_128": CostSetting(
            **NOISY_DIGITS
            | {"batch_size": 128, "learning_rate": 0.03, "epochs": 120, "drops": (96,)},
            seeds=SEEDS,
            alphas=(0.1, 0.3, 1.0),
        ),
        "simple_cnn_c10": CostSetting(
            **SMALL_C10, epochs=32, seeds=SEEDS[:3], alphas=(0.01, 0.03), fisher_examples=256
        ),
    },
    "paper": {
        "simple_cnn_c10": CostSetting(
            **SECTION_4["simple_cnn_c10"],
            learning_rate=0.00316,
            seeds=SEEDS,
            alphas=tuning.alphas(0.1),
        )
    },
}
RECIPE = Recipe("penalty_cost", __doc__, PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
