"""Section 4: the Fisher penalty at the best learning rate, with data augmentation.

Table 2: finds the learning rate eta* by grid search, trains with it, and trains with it under the
Fisher penalty. eta* and alpha are chosen by validation accuracy with the first seed.

The paper does not print the number of seeds behind its standard deviations: three are a choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiment import picture
from experiment.command import main
from experiment.paper import DIGITS, SECTION_4, SMALL_C10, TINY_IMAGENET_GRID
from experiment.recipe import Recipe, Result
from experiment.results import by_part, common, max_fisher_trace, percent, test_accuracy, written
from experiment.setting import AUGMENTATIONS, option
from suboptimal_lr import Rates, plan

METHODS = ("eta_star", "fp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmented(Rates):
    """A setting of table 2: both methods at eta*."""

    augment: str = option("augmentation of the training images", "flip_and_crop", AUGMENTATIONS)
    slower: float = option("how many times smaller than eta* the rate under FP is", 1.0)
    methods: tuple[str, ...] = option("methods to compare", METHODS, METHODS)


# ---- Table and figure ------------------------------------------------------------------------

# Table 2: test accuracy in percent, in the order of METHODS.
PAPER_TABLE = {
    "densenet_c100": ("74.41 ± 0.47", "74.19 ± 0.51"),
    "vgg11_c100": ("59.82 ± 1.23", "65.08 ± 0.53"),
    "wide_resnet_c100": ("69.48 ± 0.30", "71.53 ± 1.22"),
    "simple_cnn_c10": ("87.16 ± 0.16", "87.52 ± 0.50"),
    "wide_resnet_tiny_imagenet": ("54.70 ± 0.04", "60.00 ± 0.07"),
}


def table(results: Sequence[Result]) -> str:
    """Table 2, with the paper's row of the same parts."""
    rows = []
    for part, of_methods in by_part(results).items():
        runs = [of_methods.get(method, []) for method in METHODS]
        rows.append([part, "test accuracy, %", *(percent(r, test_accuracy) for r in runs)])
        if part in PAPER_TABLE:
            rows.append(["", "paper, table 2", *PAPER_TABLE[part]])
        rows.append(["", "largest Tr(F)", *(written(r, max_fisher_trace) for r in runs)])
        rows.append(["", "learning rate", *(common(r, "learning_rate") for r in runs)])
        rows.append(["", "alpha", *(common(r, "alpha") for r in runs)])
    header = ["setting", "figure", *(picture.TITLES[method] for method in METHODS)]
    note = f"{picture.seeds_note(results)} {picture.FIGURES_NOTE}\n"
    return f"{picture.markdown(header, rows)}\n{note}"


def figure(results: Sequence[Result], path: Path) -> None:
    """Curves of both methods: a row for each setting."""
    parts = by_part(results)
    fig, axes = picture.panels(len(parts), 3)
    for row, (part, runs) in zip(axes, parts.items(), strict=True):
        picture.methods(row, part, runs, METHODS, ("accuracy", "val_accuracy", "fisher_trace"))
    picture.legend(fig, axes.flat)
    picture.save(fig, path)


# ---- Presets ---------------------------------------------------------------------------------

GRIDS: dict[str, dict[str, Any]] = {part: {} for part in SECTION_4}
GRIDS["wide_resnet_tiny_imagenet"] = {
    "learning_rates": TINY_IMAGENET_GRID,
    "fp": TINY_IMAGENET_GRID,
}
PRESETS = {
    "demo": {
        "mlp_digits": Augmented(
            **DIGITS,
            augment="none",  # A digit that is mirrored is another one, or none.
            width=128,
            epochs=40,
            steps_per_execution=13,
            seeds=(0, 1),
            learning_rates=(0.03, 0.1),
            fp=(0.01,),
        )
    },
    "small": {
        "simple_cnn_c10": Augmented(
            **SMALL_C10 | {"drops": (24,)},
            epochs=30,
            learning_rates=(0.01, 0.03),
            fp=(0.003,),
        )
    },
    "paper": {
        part: Augmented(**SECTION_4[part] | {"seeds": (0, 1, 2)} | grid)
        for part, grid in GRIDS.items()
    },
}
RECIPE = Recipe("optimal_lr", __doc__ or "", PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
