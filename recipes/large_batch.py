"""Appendix E: a large batch generalises worse, and the Fisher penalty makes up for it.

Figure 17 and its text: trains SimpleCNN with a small batch at its best learning rate, with a batch
10 times larger at the same rate, with the large batch at half that rate, and with the penalty at
half that rate. The penalty is computed at every step, on as many examples of the large batch as the
small batch has.

The penalty on all examples of the large batch is an addition: Novack et al. (ICLR 2023) find that
it does not close the gap. The paper states neither the learning rate nor the alphas: the paper
preset uses the grids of appendix G.2. Rates and alphas have the best validation accuracy with the
first seed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from experiment.command import main
from experiment.plan.paper import SECTION_4
from experiment.plan.recipe import Finished, Recipe, tune
from experiment.plan.setting import (
    Amount,
    Amounts,
    Choices,
    Count,
    CountOrShare,
    PenaltySetting,
    Run,
)
from experiment.plan.small import DIGITS, SMALL_C10
from experiment.results import picture, tables

from keras_fisher import tuning

Method = Literal["small_batch", "large_batch", "half_rate", "fp", "fp_whole"]
TITLES: dict[Method, str] = {
    "small_batch": "small batch",
    "large_batch": "large batch",
    "half_rate": "large batch, half the rate",
    "fp": "large batch, half the rate, FP",
    "fp_whole": "large batch, half the rate, FP on all of it",
}
PENALISED = ("fp", "fp_whole")
COLOURS: dict[Method, str] = {
    "small_batch": "#009e73",
    "large_batch": "#999999",
    "half_rate": "#333333",
}
STYLES: dict[Method, str] = {"small_batch": "--", "large_batch": "--", "half_rate": "-"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LargeBatchSetting(PenaltySetting):
    """The setting of figure 17."""

    batch_size: Count = 128  # examples in a small mini-batch
    larger: Count = 10  # factor by which the large batch is larger
    learning_rate: Amount = 0.0  # learning rate of the small batch; 0 for the best
    learning_rates: Amounts = tuning.learning_rates()  # learning rates to choose the best from
    update_freq: Count = 1  # steps between two computations of the penalty's gradient
    penalty_batch_size: CountOrShare = 0
    """number or share of a large batch's examples to compute FP on; 0 for as many as a small one"""
    methods: Choices[Method] = tuple(TITLES)  # methods to compare
    fp: Amounts = tuning.alphas()  # alphas of FP
    fp_whole: Amounts = tuning.alphas()  # alphas of FP on the whole large mini-batch


def plan(part: str, setting: LargeBatchSetting, finished: Finished) -> list[Run]:
    """Plans the runs that determine the best rate, then those of each method."""
    runs: list[Run] = []
    rate = setting.learning_rate
    shared: dict[str, Any] = {"part": part, "measures": {"fisher_trace": {}}}
    if not rate or "small_batch" in setting.methods:
        rates = (rate,) if rate else setting.learning_rates
        run = setting.make_run(method="small_batch", penalty_batch_size=0, **shared)
        runs, best = tune(run, rates, setting.seeds, finished, sets="learning_rate")
        if best is None:
            return runs
        rate = best.learning_rate
    few = setting.penalty_batch_size or setting.batch_size
    for method in setting.methods:
        if method != "small_batch":
            run = setting.make_run(
                method=method,
                batch_size=setting.larger * setting.batch_size,
                learning_rate=rate if method == "large_batch" else rate / 2,
                penalty_batch_size=few if method == "fp" else 0,
                **shared,
            )
            alphas = getattr(setting, method) if method in PENALISED else (0.0,)
            runs += tune(run, alphas, setting.seeds, finished)[0]
    return runs


# ---- Table and figure ------------------------------------------------------------------------

PAPER: dict[Method, str] = {
    "small_batch": "76.94",
    "large_batch": "73.7",
    "half_rate": "73.59",
    "fp": "78.7",
    "fp_whole": tables.NOTHING,
}

CELLS = {
    "batch size": tables.SettingCell("batch_size"),
    "learning rate": tables.SettingCell("learning_rate"),
    "alpha": tables.SettingCell("alpha"),
    "training accuracy at the end, %": tables.PercentCell("final_accuracy"),
    "test accuracy, %": tables.PercentCell("test_accuracy"),
}


def table(runs: pd.DataFrame) -> str:
    """Returns the test accuracies in the text of appendix E."""
    runs = runs.assign(final_accuracy=[final["accuracy"] for final in runs["final"]])
    rows = []
    for part, methods in tables.split_methods(tables.choose_values(runs), TITLES).items():
        difference = tables.DifferenceCell("test_accuracy", methods["half_rate"])
        rows += [
            [
                *(part, TITLES[method], *tables.fill_cells(group, CELLS)),
                *(PAPER[method], difference(group), tables.MeanCell("max_fisher_trace")(group)),
            ]
            for method, group in methods.items()
            if not group.empty
        ]
    header = ["setting", "method", *CELLS, "paper", "minus half the rate, points", "largest Tr(F)"]
    note = f"{tables.write_seeds(runs)} {tables.FIGURES_NOTE} {tables.DIFFERENCES_NOTE}\n"
    return f"{tables.write_markdown(header, rows)}\n{note}{tables.write_edges(runs)}"


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Draws figure 17: Tr(F) and validation accuracy, from blue to red by alpha."""
    parts = tables.split_methods(runs, TITLES)
    chosen = tables.split_methods(tables.choose_values(runs), TITLES)
    fig, axes = picture.make_panels(len(parts), 2, width=5.5, height=4)
    for row, (part, methods) in zip(axes, parts.items(), strict=True):
        for axis, key in zip(row, ("fisher_trace", "val_accuracy"), strict=True):
            for method, colour in COLOURS.items():
                group = chosen[part][method]
                picture.draw_curve(axis, group, key, colour, TITLES[method], STYLES[method])
            for colour, alpha, group in picture.shade(methods["fp"].groupby("value")):
                picture.draw_curve(axis, group, key, colour, f"FP, alpha {alpha:g}")
            picture.label_axes(axis, part, y=picture.LABELS[key])
    picture.draw_legend(fig, axes.flat)
    picture.save(fig, path)


# ---- Presets ---------------------------------------------------------------------------------

PRESETS = {
    "demo": {
        "mlp_digits": LargeBatchSetting(
            **DIGITS | {"num_train": 1000, "batch_size": 20},
            width=128,
            epochs=30,
            steps_per_execution=5,
            learning_rate=0.05,
            fisher_examples=500,
            fp=(0.01, 0.05),
            fp_whole=(0.01,),
        )
    },
    "small": {
        # 6,400 images are 50 small mini-batches, or 5 large ones.
        "simple_cnn_c10": LargeBatchSetting(
            **SMALL_C10 | {"num_train": 6400},
            epochs=120,
            seeds=(0, 1, 2),
            fisher_examples=128,
            learning_rates=(0.003, 0.01, 0.03),
            fp=(0.003, 0.01, 0.03, 0.1),
            fp_whole=(0.01, 0.1, 1.0, 10.0),
        )
    },
    "paper": {
        "simple_cnn_c10": LargeBatchSetting(
            **SECTION_4["simple_cnn_c10"],
            fisher_examples=128,
            methods=("small_batch", "large_batch", "half_rate", "fp"),
        )
    },
}
RECIPE = Recipe("large_batch", __doc__, PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
