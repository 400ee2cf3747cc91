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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiment import picture
from experiment.command import main
from experiment.paper import DIGITS, SECTION_4, SMALL_C10
from experiment.recipe import Recipe, Result, tuned
from experiment.results import (
    chosen,
    common,
    every_value,
    grouped,
    max_fisher_trace,
    percent,
    test_accuracy,
    written,
)
from experiment.setting import Penalised, Run, option

from keras_fisher import tuning

TITLES = {
    "small_batch": "small batch",
    "large_batch": "large batch",
    "half_rate": "large batch, half the rate",
    "fp": "large batch, half the rate, FP",
}
COLOURS = {"small_batch": "#2a9d4a", "large_batch": "#999999", "half_rate": "#333333"}
STYLES = {"small_batch": "--", "large_batch": "--", "half_rate": "-"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LargeBatch(Penalised):
    """The setting of figure 17."""

    batch_size: int = option("examples in a small mini-batch, and those of the penalty", 128)
    larger: int = option("how many times larger the large batch is", 10)
    update_freq: int = option("steps from one computation of the penalty to the next", 1)
    methods: tuple[str, ...] = option("methods to compare", tuple(TITLES), tuple(TITLES))
    alphas: tuple[float, ...] = option("alphas to choose among", tuning.alphas())

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_listed("methods", "alphas")
        self._check("larger", at_least=1)
        self._check("alphas", at_least=0)


def plan(part: str, setting: LargeBatch, finished: Mapping[str, Result]) -> list[Run]:
    """The runs of each method; those under the penalty first with every alpha."""
    large = {"batch_size": setting.larger * setting.batch_size}
    slow = large | {"learning_rate": setting.learning_rate / 2}
    tasks: dict[str, dict[str, Any]] = {
        "small_batch": {},
        "large_batch": large,
        "half_rate": slow,
        "fp": slow,
    }
    runs: list[Run] = []
    for method in setting.methods:
        run = Run.of(
            setting,
            part=part,
            method=method,
            penalty_batch_size=setting.batch_size,
            measures={"fisher_trace": {}},
            **tasks[method],
        )
        alphas = setting.alphas if method == "fp" else (0.0,)
        runs += tuned(run, alphas, setting.seeds, finished)[0]
    return runs


# ---- Table and figure ------------------------------------------------------------------------

PAPER = {"small_batch": "76.94", "large_batch": "73.7", "half_rate": "73.59", "fp": "78.7"}


def table(results: Sequence[Result]) -> str:
    """The test accuracies in the text of appendix E."""
    rows = []
    for part, methods in every_value(results, TITLES).items():
        for method, runs in methods.items():
            best = chosen(runs)
            rows.append(
                [
                    part,
                    TITLES[method],
                    common(best, "batch_size"),
                    common(best, "learning_rate"),
                    common(best, "alpha"),
                    percent(best, test_accuracy),
                    PAPER[method],
                    written(best, max_fisher_trace),
                ]
            )
    header = [
        "setting",
        "method",
        "batch size",
        "learning rate",
        "alpha",
        "test accuracy, %",
        "paper",
        "largest Tr(F)",
    ]
    note = f"{picture.seeds_note(results)} {picture.FIGURES_NOTE}\n"
    return f"{picture.markdown(header, rows)}\n{note}"


def figure(results: Sequence[Result], path: Path) -> None:
    """Figure 17: Tr(F) and validation accuracy, from blue to red by alpha."""
    parts = every_value(results, TITLES)
    fig, axes = picture.panels(len(parts), 2, width=5.5, height=4)
    for row, (part, methods) in zip(axes, parts.items(), strict=True):
        for axis, key in zip(row, ("fisher_trace", "val_accuracy"), strict=True):
            for method, colour in COLOURS.items():
                runs = methods.get(method, [])
                picture.curve(axis, runs, key, colour, TITLES[method], STYLES[method])
            alphas = grouped(methods.get("fp", []), "value")
            for colour, ((alpha,), runs) in picture.shaded(alphas):
                picture.curve(axis, runs, key, colour, f"FP, alpha {alpha:g}")
            picture.label(axis, part, y=picture.LABELS[key])
    picture.legend(fig, axes.flat)
    picture.save(fig, path)


# ---- Presets ---------------------------------------------------------------------------------

PRESETS = {
    "demo": {
        "mlp_digits": LargeBatch(
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
        "simple_cnn_c10": LargeBatch(
            **SMALL_C10 | {"batch_size": 32},
            epochs=40,
            learning_rate=0.01,
            fisher_examples=128,
            alphas=(0.01, 0.03),
        )
    },
    "paper": {
        "simple_cnn_c10": LargeBatch(
            **SECTION_4["simple_cnn_c10"], learning_rate=0.0316, fisher_examples=128
        )
    },
}
RECIPE = Recipe("large_batch", __doc__, PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
