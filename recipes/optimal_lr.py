"""Section 4: the Fisher penalty at the best learning rate, with data augmentation.

Table 2: finds the learning rate eta* by grid search, and trains with it, without and with the
Fisher penalty. eta* and alpha are chosen by validation accuracy with the first seed.

The paper does not state the number of seeds of its standard deviations; three are a choice.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pandas as pd
from experiment.command import main
from experiment.plan.paper import SECTION_4, TINY_IMAGENET_GRID
from experiment.plan.recipe import Recipe
from experiment.plan.setting import Augmentation, Choices, Range
from experiment.plan.small import SMALL_C10, THIRTY_SECOND, WIDE_DIGITS
from experiment.results import picture, tables
from suboptimal_lr import RateSetting, plan

Method = Literal["eta_star", "fp"]
METHODS = get_args(Method)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationSetting(RateSetting):
    """A setting of table 2: both methods at eta*."""

    augment: Augmentation = "flip_and_crop"  # augmentation of the training images
    slower: Annotated[float, Range(1)] = 1.0  # factor by which the learning rate of FP is smaller
    methods: Choices[Method] = METHODS  # methods to compare


# ---- Table and figure ------------------------------------------------------------------------

# Table 2: test accuracy in percent, in the order of METHODS.
PAPER_TABLE = {
    "densenet_c100": ("74.41 ± 0.47", "74.19 ± 0.51"),
    "vgg11_c100": ("59.82 ± 1.23", "65.08 ± 0.53"),
    "wide_resnet_c100": ("69.48 ± 0.30", "71.53 ± 1.22"),
    "simple_cnn_c10": ("87.16 ± 0.16", "87.52 ± 0.50"),
    "wide_resnet_tiny_imagenet": ("54.70 ± 0.04", "60.00 ± 0.07"),
}


def table(runs: pd.DataFrame) -> str:
    """Returns table 2, with the paper's row for the same parts."""
    rows = []
    for part, groups in tables.split_methods(tables.choose_values(runs), METHODS).items():
        cells: dict[str, tables.Cell] = {
            "test accuracy, %": tables.PercentCell("test_accuracy"),
            "minus that of η*, points": tables.DifferenceCell("test_accuracy", groups["eta_star"]),
            "largest Tr(F)": tables.MeanCell("max_fisher_trace"),
            "learning rate": tables.SettingCell("learning_rate"),
            "alpha": tables.SettingCell("alpha"),
        }
        first, *others = [["", title, *map(cell, groups.values())] for title, cell in cells.items()]
        paper = [["", "paper, table 2", *PAPER_TABLE[part]]] if part in PAPER_TABLE else []
        rows += [[part, *first[1:]], *paper, *others]
    header = ["setting", "figure", *(tables.TITLES[method] for method in METHODS)]
    note = f"{tables.write_seeds(runs)} {tables.FIGURES_NOTE} {tables.DIFFERENCES_NOTE}\n"
    return f"{tables.write_markdown(header, rows)}\n{note}{tables.write_edges(runs)}"


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Draws the curves of both methods, a row for each setting."""
    parts = tables.split_methods(tables.choose_values(runs), METHODS)
    fig, axes = picture.make_panels(len(parts), 3)
    for row, (part, methods) in zip(axes, parts.items(), strict=True):
        picture.draw_methods(row, part, methods, ("accuracy", "val_accuracy", "fisher_trace"))
    picture.draw_legend(fig, axes.flat)
    picture.save(fig, path)


# ---- Presets ---------------------------------------------------------------------------------

GRIDS: dict[str, dict[str, Any]] = {part: {} for part in SECTION_4}
GRIDS["wide_resnet_tiny_imagenet"] = {
    "learning_rates": TINY_IMAGENET_GRID,
    "fp": TINY_IMAGENET_GRID,
}
PRESETS = {
    "demo": {
        "mlp_digits": AugmentationSetting(
            **WIDE_DIGITS,
            augment="none",  # Mirrored digits are not digits of their class.
            seeds=(0, 1),
            learning_rates=(0.03, 0.1),
            fp=(0.01,),
        )
    },
    "small": {
        "simple_cnn_c10": AugmentationSetting(
            **SMALL_C10 | THIRTY_SECOND | {"drops": (64,)},
            epochs=80,
            seeds=(0, 1, 2),
            learning_rates=(0.01, 0.03, 0.1),
            fp=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
        )
    },
    "paper": {
        part: AugmentationSetting(**SECTION_4[part] | {"seeds": (0, 1, 2)} | grid)
        for part, grid in GRIDS.items()
    },
}
RECIPE = Recipe("optimal_lr", __doc__ or "", PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
