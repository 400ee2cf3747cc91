"""Appendix G.2: searches alpha and the learning rate of a setting, with keras-tuner.

Trains each combination of the given learning rates and alphas with each seed, and chooses the one
with the best mean validation accuracy. Figures 13 and 14 show the accuracy of such a search over
alpha. Another search in the same folder, with other values, seeds, noise or another penalty, trains
only the new combinations.

`--over lr` finds eta*, without a penalty. Run `--over alpha` at the learning rate that the penalty
will be used with (`--learning-rate 0.001`). Other recipes read the findings from the folder
(`--tuned`; docs/recipes.md lists which recipe uses which).

Several machines that share the folder share the work: start the same command on each, one with
KERASTUNER_TUNER_ID=chief, which trains nothing, and the others with tuner0, tuner1, ..., all with
the KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT of the chief. If a worker was killed, restart it
under the same name: it resumes its run.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from experiment.command import main
from experiment.plan.paper import SECTION_4, SECTION_4_1, TINY_IMAGENET_GRID
from experiment.plan.recipe import Finished, Recipe
from experiment.plan.setting import Amount, Amounts, Choices, Fraction, Penalty, PenaltySetting, Run
from experiment.plan.small import SMALL_C10, WHOLE_DIGITS
from experiment.results import picture, tables
from experiment.results.findings import BOTH, NOISY, choose_combination
from experiment.search import search
from matplotlib.axes import Axes

from keras_fisher import tuning


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSetting(PenaltySetting):
    """A setting and the hyperparameters to search."""

    over: Choices[Literal["lr", "alpha"]] = BOTH  # hyperparameters to search
    penalty: Penalty = "fp"  # penalty to search alpha for
    learning_rate: Amount = 0.01  # learning rate, if --over does not include lr
    learning_rates: Amounts = tuning.learning_rates()  # learning rates to search
    alphas: Amounts = tuning.alphas()  # alphas to search
    noise: Fraction = 0.0  # fraction of labels to replace by uniform draws


def plan(part: str, setting: SearchSetting, finished: Finished) -> list[Run]:
    """Plans the grid: seeds first, alphas last."""
    rates = setting.learning_rates if "lr" in setting.over else (setting.learning_rate,)
    alphas = setting.alphas if "alpha" in setting.over else (0.0,)
    return [
        setting.make_run(
            part=part,
            method=f"{setting.penalty}-rate{rate:g}",
            learning_rate=rate,
            penalty=setting.penalty,
            alpha=alpha,
            value=alpha,
            seed=seed,
            noise=setting.noise,
            measures={"fisher_trace": {}},
        )
        for seed, rate, alpha in itertools.product(setting.seeds, rates, alphas)
    ]


# ---- Table and figure ------------------------------------------------------------------------


def table(runs: pd.DataFrame) -> str:
    """Returns a row for each combination, with the best of each setting and penalty marked."""
    rows = []
    for (part, noise, penalty), grid in runs.groupby(["part", "noise", "penalty"]):
        best = choose_combination(grid)
        for (_, alpha), group in grid.groupby(["learning_rate", "alpha"]):
            mark = " (best)" if group.index.equals(best.index) else ""
            rows.append(
                [
                    name_part(part, noise),
                    penalty,
                    tables.SettingCell("learning_rate")(group),
                    f"{alpha:.4g}",
                    tables.PercentCell("validation_accuracy")(group) + mark,
                    tables.PercentCell("test_accuracy")(group),
                    tables.MeanCell("max_fisher_trace")(group),
                ]
            )
    header = [
        *("setting", "penalty", "learning rate", "alpha"),
        *("validation accuracy, %", "test accuracy, %", "largest Tr(F)"),
    ]
    return (
        f"{tables.write_markdown(header, rows)}\n{tables.write_seeds(runs)} {tables.FIGURES_NOTE}\n"
    )


def name_part(part: str, noise: float) -> str:
    """Returns the name of a part, with its noise if there is any."""
    return f"{part}, {noise:.0%} noise" if noise else part


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Draws accuracy and the largest Tr(F) against alpha: a row for each setting and penalty, a
    line for each learning rate."""
    parts = runs.groupby(["part", "noise", "penalty"])
    fig, axes = picture.make_panels(len(parts), 3)
    columns = {
        "validation_accuracy": "best validation accuracy",
        "test_accuracy": "test accuracy there",
        "max_fisher_trace": "largest Tr(F)",
    }
    for row, ((part, noise, penalty), grid) in zip(axes, parts, strict=True):
        for axis, (column, title) in zip(row, columns.items(), strict=True):
            for colour, rate, group in picture.shade(grid.groupby("learning_rate")):
                draw_line(axis, group, column, colour, f"learning rate {rate:g}")
            x = f"alpha of {tables.TITLES[penalty]}"
            picture.label_axes(axis, name_part(part, noise), x, title)
        row[2].set_yscale("log")
    picture.draw_legend(fig, axes.flat)
    picture.save(fig, path)


def draw_line(axis: Axes, runs: pd.DataFrame, column: str, colour: Any, name: str) -> None:
    """Draws the mean over seeds, with bars of the standard deviation; a dotted line at alpha 0."""
    figures = runs.groupby("alpha")[column].agg(["mean", "std"]).fillna({"std": 0})
    if 0 in figures.index:
        plain = figures["mean"][0]
        axis.axhline(plain, color=colour, ls=":", lw=1.2, label=f"{name}, alpha 0")
    figures = figures[figures.index > 0]
    if not figures.empty:
        means, spreads = figures["mean"], figures["std"]
        axis.errorbar(
            figures.index, means, spreads, color=colour, marker="o", capsize=3, label=name
        )
        axis.set_xscale("log")


# ---- Presets ---------------------------------------------------------------------------------

# Tables 1 and 2 use fewer alphas and smaller learning rates on TinyImageNet.
GRIDS: dict[str, dict[str, Any]] = {
    "wide_resnet_tiny_imagenet": {
        "learning_rates": TINY_IMAGENET_GRID,
        "alphas": TINY_IMAGENET_GRID,
    }
}
PRESETS = {
    "demo": {
        "mlp_digits": SearchSetting(
            **WHOLE_DIGITS,
            steps_per_execution=34,
            over=("alpha",),
            alphas=(0.0, *tuning.alphas(0.1, num=5)),
            noise=0.5,
        )
    },
    "small": {
        "simple_cnn_c10": SearchSetting(
            **SMALL_C10,
            epochs=40,
            over=("alpha",),
            learning_rate=0.003,
            alphas=(0.0, *tuning.alphas()),
        )
    },
    "paper": {
        **{
            part: SearchSetting(**setting, **GRIDS.get(part, {}))
            for part, setting in SECTION_4.items()
        },
        **{
            f"{part}{NOISY}": SearchSetting(**setting, noise=0.25)
            for part, setting in SECTION_4_1.items()
        },
    },
}
RECIPE = Recipe("search", __doc__ or "", PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE, train=search)
