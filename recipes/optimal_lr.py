"""Section 4: the Fisher penalty at the best learning rate, with data augmentation.

Table 2: finds the learning rate eta* by grid search, trains with it, and trains with it under the
Fisher penalty. eta* and alpha are chosen by validation accuracy with the first seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiment import picture
from experiment.command import main
from experiment.paper import ALPHAS, DIGITS, SECTION_4, SMALL_C10
from experiment.recipe import Recipe, Result
from experiment.results import by_part, common, max_fisher_trace, percent, test_accuracy, written
from suboptimal_lr import Rates, plan

METHODS = ("eta_star", "fp")
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
    note = "Test accuracy at the best validation point."
    return f"{picture.markdown(header, rows)}\n{picture.seeds_note(results)} {note}\n"


def figure(results: Sequence[Result], path: Path) -> None:
    """Curves of both methods: a row for each setting."""
    parts = by_part(results)
    fig, axes = picture.panels(len(parts), 3)
    for row, (part, runs) in zip(axes, parts.items(), strict=True):
        picture.methods(row, part, runs, METHODS, ("accuracy", "val_accuracy", "fisher_trace"))
    picture.legend(fig, axes.flat)
    picture.save(fig, path)


def augmented(**task: Any) -> Rates:
    """A setting of table 2: both methods at eta*, with the standard augmentation."""
    both: dict[str, Any] = {"augment": "flip_and_crop", "slower": 1.0, "methods": METHODS}
    return Rates(**both | task)


PRESETS = {
    "demo": {
        "mlp_digits": augmented(
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
        "simple_cnn_c10": augmented(
            **SMALL_C10 | {"drops": (40, 50)},
            epochs=60,
            learning_rates=(0.003, 0.01, 0.03),
            fp=(0.003, 0.01, 0.03),
        )
    },
    "paper": {
        part: augmented(**task, learning_rates=(0.001, 0.00316, 0.01, 0.0316, 0.1), fp=ALPHAS[::2])
        if part == "wide_resnet_tiny_imagenet"
        else augmented(**task)
        for part, task in SECTION_4.items()
    },
}
RECIPE = Recipe("optimal_lr", __doc__ or "", PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
