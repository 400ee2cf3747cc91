"""Appendix E: a large batch generalises worse, and the Fisher penalty makes up for it.

Figure 17 and the text beside it: trains SimpleCNN with a batch 10 times larger at the same
learning rate, with half that rate, and with half that rate under the penalty, which is computed at
every step on the first examples of the large batch, as many as the small one has.

The paper prints neither the learning rate nor the alphas: the paper preset takes 0.0316 and
the alphas of appendix G.2. Alpha is the one of best validation accuracy with
the first seed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from experiment import picture, tables  # first: it meets Ctrl-C with a sentence

# isort: split
import pandas as pd
from experiment.command import main
from experiment.paper import DIGITS, SECTION_4, SMALL_C10
from experiment.recipe import Finished, Recipe, tune
from experiment.setting import Amounts, Choices, Count, PenaltySetting, Run

from keras_fisher import tuning

Method = Literal["small_batch", "large_batch", "half_rate", "fp"]
TITLES: dict[Method, str] = {
    "small_batch": "small batch",
    "large_batch": "large batch",
    "half_rate": "large batch, half the rate",
    "fp": "large batch, half the rate, FP",
}
COLOURS: dict[Method, str] = {
    "small_batch": "#2a9d4a",
    "large_batch": "#999999",
    "half_rate": "#333333",
}
STYLES: dict[Method, str] = {"small_batch": "--", "large_batch": "--", "half_rate": "-"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LargeBatchSetting(PenaltySetting):
    """The setting of figure 17."""

    batch_size: Count = 128  # examples in a small mini-batch, and those of the penalty
    larger: Count = 10  # how many times larger the large batch is
    update_freq: Count = 1  # steps from one computation of the penalty to the next
    methods: Choices[Method] = tuple(TITLES)  # methods to compare
    alphas: Amounts = tuning.alphas()  # alphas to choose among


def plan(part: str, setting: LargeBatchSetting, finished: Finished) -> list[Run]:
    """The runs of each method; those under the penalty first with every alpha."""
    large = {"batch_size": setting.larger * setting.batch_size}
    slow = large | {"learning_rate": setting.learning_rate / 2}
    tasks: dict[Method, dict[str, Any]] = {
        "small_batch": {},
        "large_batch": large,
        "half_rate": slow,
        "fp": slow,
    }
    runs: list[Run] = []
    for method in setting.methods:
        run = setting.make_run(
            part=part,
            method=method,
            penalty_batch_size=setting.batch_size,
            measures={"fisher_trace": {}},
            **tasks[method],
        )
        alphas = setting.alphas if method == "fp" else (0.0,)
        runs += tune(run, alphas, setting.seeds, finished)[0]
    return runs


# ---- Table and figure ------------------------------------------------------------------------

PAPER: dict[Method, str] = {
    "small_batch": "76.94",
    "large_batch": "73.7",
    "half_rate": "73.59",
    "fp": "78.7",
}


CELLS = {
    "batch size": tables.SettingCell("batch_size"),
    "learning rate": tables.SettingCell("learning_rate"),
    "alpha": tables.SettingCell("alpha"),
    "test accuracy, %": tables.PercentCell("test_accuracy"),
}


def table(runs: pd.DataFrame) -> str:
    """The test accuracies in the text of appendix E."""
    rows = [
        [
            *(part, TITLES[method], *tables.fill_cells(group, CELLS)),
            *(PAPER[method], tables.MeanCell("max_fisher_trace")(group)),
        ]
        for part, methods in tables.split_methods(tables.choose_values(runs), TITLES).items()
        for method, group in methods.items()
        if not group.empty
    ]
    header = ["setting", "method", *CELLS, "paper", "largest Tr(F)"]
    return (
        f"{tables.write_markdown(header, rows)}\n{tables.write_seeds(runs)} {tables.FIGURES_NOTE}\n"
    )


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Figure 17: Tr(F) and validation accuracy, from blue to red by alpha."""
    parts = tables.split_methods(runs, TITLES)
    fig, axes = picture.make_panels(len(parts), 2, width=5.5, height=4)
    for row, (part, methods) in zip(axes, parts.items(), strict=True):
        for axis, key in zip(row, ("fisher_trace", "val_accuracy"), strict=True):
            for method, colour in COLOURS.items():
                group = methods[method]
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
            alphas=(0.01, 0.05),
        )
    },
    "small": {
        # A smaller small batch, so that the large one still takes 16 steps in an epoch.
        "simple_cnn_c10": LargeBatchSetting(
            **SMALL_C10 | {"batch_size": 32},
            epochs=40,
            learning_rate=0.01,
            fisher_examples=128,
            alphas=(0.01, 0.03),
        )
    },
    "paper": {
        "simple_cnn_c10": LargeBatchSetting(
            **SECTION_4["simple_cnn_c10"], learning_rate=0.0316, fisher_examples=128
        )
    },
}
RECIPE = Recipe("large_batch", __doc__, PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
