"""Section 5: a small Tr(F) early in training leads to a wider minimum.

Figures 6 and 10: trains two networks for a few epochs, one with high regularisation (a large
learning rate or a small batch) and one with low regularisation (a small learning rate or a large
batch). Several runs continue from each, with different seeds, all with low regularisation.
Tr(F_i) is Tr(F) at the end of the first runs. Tr(H_f) is Tr(H) at a continuation's best test
accuracy.

A continuation takes over only the weights of its network, and trains for all epochs of appendix
G.4. The paper does not state the two configurations: here they are the middle ones of sets A and B
of figure 11. Section 5 names ResNet-26 in the text, but ResNet-56 on CIFAR-100 in figure 6: the
paper preset follows the figure. Section 5 has 8 continuations, as here; appendix G.4 has 32 runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from experiment.command import main
from experiment.plan.paper import SECTION_5
from experiment.plan.recipe import Finished, Recipe
from experiment.plan.setting import Amount, Count, Listing, Range, Run, VariedSetting
from experiment.plan.small import DIGITS, SMALL_WATCHED
from experiment.results import picture, tables
from experiment.results.curvature import HESSIAN, add_traces_at_loss
from matplotlib.axes import Axes

COLOURS = {"high": "#c51b1b", "low": "#1b6fb5"}  # levels of regularisation
METHODS = (*COLOURS, *(f"after_{level}" for level in COLOURS))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyToFinal(VariedSetting):
    """A row of figure 6 or 10."""

    # Continuations use 100 seeds per seed, all below 2^32.
    seeds: Annotated[tuple[int, ...], Listing(), Range(0, 4e7)] = (0,)
    """random seeds"""
    high: Amount  # learning rate or batch size with high regularisation
    low: Amount  # learning rate or batch size with low regularisation
    early_epochs: Count = 20  # epochs of the first two runs
    continuations: Annotated[int, Range(1, 101)] = 8  # continuations of each of the two runs
    every_epochs: Count = 10  # epochs of a continuation between two measurements of Tr(H)
    num_probes: Count = 30  # probes to estimate Tr(H) from


def plan(part: str, setting: EarlyToFinal, finished: Finished) -> list[Run]:
    """Plans, for each seed and level, the first training and then its continuations."""
    runs = []
    for seed in setting.seeds:
        for level in COLOURS:
            first = plan_first(part, setting, level, seed)
            runs += [first, *plan_continuations(setting, first)]
    return runs


def plan_first(part: str, setting: EarlyToFinal, level: str, seed: int) -> Run:
    value, epochs = getattr(setting, level), setting.early_epochs
    changes = {"value": value, "epochs": epochs, **setting.set_value(value)}
    measures = {"fisher_trace": {"every_epochs": epochs}}
    return setting.make_run(part=part, method=level, seed=seed, measures=measures, **changes)


def plan_continuations(setting: EarlyToFinal, first: Run) -> list[Run]:
    probes = {"num_probes": setting.num_probes}
    return [
        setting.make_run(
            part=first.part,
            method=f"after_{first.method}",
            initial=first.name,
            data_seed=first.seed,
            seed=100 * (first.seed + 1) + number,
            measures={HESSIAN: {"every_epochs": setting.every_epochs, **probes}},
            at_best={HESSIAN: probes},
            **setting.set_value(setting.low),
        )
        for number in range(setting.continuations)
    ]


# ---- Table and figure ------------------------------------------------------------------------


CELLS = {
    "Tr(H_f)": tables.MeanCell("hessian_trace"),
    "Tr(H) at equal loss": tables.MeanCell("trace_at_loss"),
    "best test accuracy, %": tables.PercentCell("test_accuracy"),
}


def table(runs: pd.DataFrame) -> str:
    """Returns the means and standard deviations of figures 6 and 10."""
    traced = add_traces(runs)
    rows, differences = [], []
    for part, methods in tables.split_methods(traced, METHODS).items():
        high, low = (average_continuations(methods[f"after_{level}"]) for level in COLOURS)
        for level in COLOURS:
            first, continued = methods[level], methods[f"after_{level}"]
            cells = [
                tables.SettingCell("learning_rate")(first),
                tables.SettingCell("batch_size")(first),
                tables.MeanCell("fisher_trace")(first),
                str(len(continued)),
                *tables.fill_cells(continued, CELLS),
            ]
            rows.append([part, level, *cells])
        cells = [
            tables.DifferenceCell(cell.column, high, cell.scale)(low) for cell in CELLS.values()
        ]
        differences.append([part, *cells])
    header = [
        *("setting", "early regularisation", "learning rate", "batch size", "Tr(F_i)"),
        *("continuations", *CELLS),
    ]
    note = (
        "A standard deviation is one over runs. At equal loss: at the least training loss that all "
        "continuations of a setting reach. The paper prints no numbers: it finds the network "
        "of smaller Tr(F_i) more likely to end with a small Tr(H_f), and after the other one "
        "sharper minima and a test accuracy that varies a lot.\n"
    )
    of_differences = (
        "Low minus high early regularisation. The continuations of one first training are not "
        "independent: the difference is the mean over first trainings, each averaged over its "
        "continuations, with its standard error.\n"
    )
    return (
        f"{tables.write_markdown(header, rows)}\n{note}\n"
        f"{tables.write_markdown(['setting', *CELLS], differences)}\n{of_differences}"
    )


def average_continuations(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the mean figures of the continuations of each first training."""
    figures = runs.groupby("data_seed")[[cell.column for cell in CELLS.values()]]
    means = figures.agg(lambda values: values.mean(skipna=False))
    return means.reset_index(names="seed")


def add_traces(runs: pd.DataFrame) -> pd.DataFrame:
    """Adds Tr(F_i), Tr(H_f) and Tr(H) at equal loss to runs; NaN if not measured."""
    hessian = [best.get(HESSIAN, {"value": None})["value"] for best in runs["best"]]
    fisher = [final.get("fisher_trace") for final in runs["final"]]
    runs = runs.assign(fisher_trace=np.array(fisher, float), hessian_trace=np.array(hessian, float))
    continued = runs[runs["initial"] != ""]
    compared = [add_traces_at_loss(group) for _, group in continued.groupby("part")]
    return pd.concat([runs[runs["initial"] == ""].assign(trace_at_loss=np.nan), *compared])


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Draws figures 6 and 10, a row for each setting."""
    parts = tables.split_methods(add_traces(runs), METHODS)
    fig, axes = picture.make_panels(len(parts), 3)
    for row, (part, methods) in zip(axes, parts.items(), strict=True):
        draw_bars(row[0], methods)
        draw_histogram(row[1], methods, "hessian_trace")
        draw_histogram(row[2], methods, "test_accuracy")
        picture.label_axes(row[0], part, x="early regularisation", y=r"Tr(F$_i$)")
        picture.label_axes(row[1], part, x=r"Tr(H$_f$)", y="continuations")
        picture.label_axes(row[2], part, x="best test accuracy", y="continuations")
    picture.draw_legend(fig, axes.flat)
    picture.save(fig, path)


def draw_bars(axis: Axes, methods: Mapping[str, pd.DataFrame]) -> None:
    for level, colour in COLOURS.items():
        values = methods[level]["fisher_trace"]
        if len(values):
            spread = values.std() if len(values) > 1 else None
            axis.bar(level, values.mean(), 0.6, yerr=spread, color=colour, alpha=0.6, capsize=4)


def draw_histogram(axis: Axes, methods: Mapping[str, pd.DataFrame], column: str) -> None:
    """Draws the continuations of both levels in common bins, with a tick for each."""
    values = {level: methods[f"after_{level}"][column].dropna() for level in COLOURS}
    bins: Any = np.histogram_bin_edges(np.concatenate(list(values.values())), 10).tolist()
    for level, figures in values.items():
        colour = COLOURS[level]
        axis.hist(figures, bins, color=colour, alpha=0.5, label=f"{level} early regularisation")
        axis.plot(figures, np.full(len(figures), -0.2), "|", color=colour, ms=9)


# ---- Presets ---------------------------------------------------------------------------------

PRESETS = {
    "demo": {
        "mlp_digits": EarlyToFinal(
            **DIGITS | {"validation_size": 0},
            width=128,
            epochs=12,
            steps_per_execution=13,
            fisher_examples=400,
            every_epochs=3,
            varies="learning_rate",
            high=0.03,
            low=0.005,
            early_epochs=10,
            continuations=4,
        )
    },
    "small": {
        "simple_cnn_c10": EarlyToFinal(
            **SMALL_WATCHED,
            epochs=50,
            seeds=(0, 1, 2),
            every_epochs=5,
            fisher_examples=500,
            varies="learning_rate",
            high=0.03,
            low=0.003,
            early_epochs=10,
            continuations=4,
        )
    },
    "paper": {
        "cifar100": EarlyToFinal(
            **SECTION_5["cifar100"] | {"network": "resnet56"},
            varies="learning_rate",
            high=0.01,
            low=0.001,
        ),
        "cifar10": EarlyToFinal(**SECTION_5["cifar10"], varies="batch_size", high=100, low=500),
    },
}
RECIPE = Recipe("early_to_final_curvature", __doc__, PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
