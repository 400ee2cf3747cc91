"""How cheap the Fisher penalty can be: computed on fewer examples, or more or less often.

Under drawn labels the squared norm of the gradient of n examples has the mean Tr(F)/n. So a penalty
on n of the B examples of a mini-batch, with alpha n/B in the place of alpha, has the same expected
gradient at n/B of the cost. The paper computes it on the whole mini-batch at every tenth step; here
other shares and frequencies are trained beside that, each with the alphas of a list (scaled by n/B)
of which the best by validation accuracy with the first seed is taken (appendix G.2).

This is no experiment of the paper; figures 13 and 14 (`approximations.py`) are its relatives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiment import picture  # first: it meets Ctrl-C with a sentence

# isort: split
import numpy as np
from experiment.command import main
from experiment.paper import DIGITS, SECTION_4, SMALL_C10
from experiment.recipe import Recipe, Result, tuned
from experiment.results import (
    NOTHING,
    chosen,
    common,
    every_value,
    final,
    max_fisher_trace,
    percent,
    test_accuracy,
    written,
)
from experiment.setting import Run, Setting, option

from keras_fisher import tuning

BASELINE, PAPERS = "baseline", "whole_10"
# One in how many examples of a mini-batch the penalty takes, and every how many steps.
METHODS = {
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
class Costs(Setting):
    """A setting in which the penalty is computed in several ways."""

    learning_rate: float = option("learning rate", 0.003)
    noise: float = option("fraction of labels to replace by uniform draws", 0.0)
    methods: tuple[str, ...] = option(
        "ways to compute the penalty: share of the mini-batch, and steps from one to the next",
        tuple(METHODS),
        tuple(METHODS),
    )
    alphas: tuple[float, ...] = option("alphas to choose among, as of the whole mini-batch")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_listed("methods", "alphas")
        self._check("alphas", at_least=0)
        self._check("noise", at_least=0, below=1)


def plan(part: str, setting: Costs, finished: Mapping[str, Result]) -> list[Run]:
    """Each way to compute the penalty, with the best alpha."""
    runs: list[Run] = []
    for method in setting.methods:
        one_in, every = METHODS[method]
        run = Run.of(
            setting,
            part=part,
            method=method,
            noise=setting.noise,
            measures={"fisher_trace": {}},
        )
        if method == BASELINE:
            runs += tuned(run, (0.0,), setting.seeds, finished)[0]
            continue
        examples = max(1, setting.batch_size // one_in)
        run = dataclasses.replace(
            run, update_freq=every, penalty_batch_size=0 if one_in == 1 else examples
        )
        share = examples / setting.batch_size
        runs += tuned(run, setting.alphas, setting.seeds, finished, scaled_by(share))[0]
    return runs


def scaled_by(share: float) -> Any:
    """From the alpha of a whole mini-batch, the change that a share of it makes to a run."""
    return lambda alpha: {"alpha": alpha * share}


# ---- Table and figure ------------------------------------------------------------------------


def title(method: str) -> str:
    """What is computed how often, in words."""
    one_in, every = METHODS[method]
    if not one_in:
        return method
    share = "whole batch" if one_in == 1 else f"1/{one_in} of the batch"
    return f"{share}, every {every} steps" if every > 1 else f"{share}, every step"


def table(results: Sequence[Result]) -> str:
    """Accuracies, beside what each way costs in examples and how far it is from the paper's."""
    rows = []
    for part, methods in every_value(results, METHODS).items():
        papers = chosen(methods.get(PAPERS, []))
        for method, group in methods.items():
            best = chosen(group)
            rows.append(
                [
                    part,
                    title(method),
                    examples_a_step(best[0]),
                    common(best, "value"),
                    common(best, "alpha"),
                    percent(best, test_accuracy),
                    percent(best, final("test_accuracy")),
                    difference(best, papers),
                    written(best, max_fisher_trace),
                ]
            )
    header = [
        "setting",
        "penalty",
        "examples a step",
        "alpha of the whole batch",
        "alpha",
        "test accuracy, %",
        "at the end, %",
        "difference from the whole batch every 10 steps, %",
        "largest Tr(F)",
    ]
    note = (
        "Differences over the same seeds, with their standard error. "
        f"{picture.seeds_note(results)} {picture.FIGURES_NOTE}\n"
    )
    return f"{picture.markdown(header, rows)}\n{note}"


def examples_a_step(run: Result) -> str:
    """On how many examples the penalty is computed, in the mean over steps."""
    examples = run["penalty_batch_size"] or run["batch_size"]
    return f"{examples / run['update_freq']:g}" if run["alpha"] else "0"


def difference(runs: Sequence[Result], papers: Sequence[Result]) -> str:
    """The test accuracy less the paper's way's, in percent, and its standard error."""
    gain = gains(runs, papers)
    if not len(gain) or runs[0]["method"] == PAPERS:
        return NOTHING
    if len(gain) == 1:
        return f"{gain[0]:+.1f}"
    return f"{gain.mean():+.1f} ± {gain.std(ddof=1) / np.sqrt(len(gain)):.1f}"


def gains(runs: Sequence[Result], papers: Sequence[Result]) -> np.ndarray:
    """The test accuracy less that of other runs, in percent, for each seed that both have."""
    ours, theirs = ({run["seed"]: test_accuracy(run) for run in group} for group in (runs, papers))
    return np.array([100 * (ours[seed] - theirs[seed]) for seed in ours if seed in theirs])


def figure(results: Sequence[Result], path: Path) -> None:
    """Validation accuracy and Tr(F), a row for each setting."""
    parts = every_value(results, METHODS)
    fig, axes = picture.panels(len(parts), 2, width=5.5)
    for row, (part, methods) in zip(axes, parts.items(), strict=True):
        for shade, (method, group) in picture.shaded(methods):
            colour = picture.COLOURS.get(method, shade)
            for axis, key in zip(row, ("val_accuracy", "fisher_trace"), strict=True):
                picture.curve(axis, chosen(group), key, colour, title(method))
                picture.label(axis, part, y=picture.LABELS[key])
        row[1].set_yscale("log")
    picture.legend(fig, axes.flat)
    picture.save(fig, path)


# ---- Presets ---------------------------------------------------------------------------------

SEEDS = (0, 1, 2, 3, 4)
NOISY_DIGITS: dict[str, Any] = {
    **DIGITS | {"num_train": 0, "drops": (36,)},
    "epochs": 45,
    "learning_rate": 0.015,
    "noise": 0.5,
}
PRESETS = {
    "demo": {
        "noisy_digits": Costs(
            **NOISY_DIGITS,
            steps_per_execution=34,
            seeds=(0, 1),
            methods=(BASELINE, PAPERS, "quarter_10", "32nd_1"),
            alphas=(0.3,),
        )
    },
    "small": {
        "noisy_digits": Costs(**NOISY_DIGITS, seeds=SEEDS, alphas=(0.1, 0.3)),
        "noisy_digits_128": Costs(
            **NOISY_DIGITS
            | {"batch_size": 128, "learning_rate": 0.03, "epochs": 120, "drops": (96,)},
            seeds=SEEDS,
            alphas=(0.1, 0.3, 1.0),
        ),
        "simple_cnn_c10": Costs(
            **SMALL_C10, epochs=32, seeds=SEEDS[:3], alphas=(0.01, 0.03), fisher_examples=256
        ),
    },
    "paper": {
        "simple_cnn_c10": Costs(
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
