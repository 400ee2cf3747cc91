"""Appendix C: what the Fisher penalty approximates, and that it loses nothing by it.

Figure 12 follows Tr(F) and Tr(F^B), the squared norm of the mini-batch gradient that is penalised
in its place. Figure 13 compares a penalty whose gradient is computed every 10 steps with one
computed at every step. Figure 14 penalises the gradient of a single example (eq. 6).

Each alpha is the one of best validation accuracy with the first seed (appendix G.2). The paper
does not print the learning rate of figures 13 and 14: the paper preset takes 0.00316, a tenth of
0.0316, nor how much figure 12 measures on: 1280 examples. The run without a penalty is an addition.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiment import picture  # first: it meets Ctrl-C with a sentence

# isort: split
import numpy as np
from experiment.command import main
from experiment.correlation import log_pearson
from experiment.paper import DIGITS, SECTION_4, SMALL_C10
from experiment.recipe import Recipe, Result, tuned
from experiment.results import (
    NOTHING,
    chosen,
    common,
    every_value,
    grouped,
    max_fisher_trace,
    named,
    percent,
    test_accuracy,
    written,
)
from experiment.setting import Penalised, Run, Swept, option
from matplotlib.axes import Axes

from keras_fisher import tuning

TRACES = ("fisher_trace", "minibatch_fisher_trace")
# What the methods of figures 13 and 14 change.
METHODS: dict[str, dict[str, int]] = {
    "baseline": {},
    "fp": {},
    "every_step": {"update_freq": 1},
    "one_example": {"update_freq": 1, "penalty_batch_size": 1},
}
TITLES = {
    "baseline": "baseline",
    "fp": "FP",
    "every_step": "FP computed at every step",
    "one_example": "FP on one example (eq. 6)",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Approximated(Penalised):
    """The setting of figures 13 and 14."""

    update_freq: int = option("steps from one computation of the penalty to the next, of fp", 10)
    methods: tuple[str, ...] = option("methods to compare", choices=tuple(METHODS))
    alphas: tuple[float, ...] = option("alphas to choose among")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_listed("methods", "alphas")
        self._check("alphas", at_least=0)


def plan(part: str, setting: Swept | Approximated, finished: Mapping[str, Result]) -> list[Run]:
    """The runs of a figure."""
    if isinstance(setting, Swept):
        return setting.runs(part, {trace: {} for trace in TRACES})
    runs: list[Run] = []
    for method in setting.methods:
        run = Run.of(setting, part=part, method=method, measures={TRACES[0]: {}}, **METHODS[method])
        alphas = (0.0,) if method == "baseline" else setting.alphas
        runs += tuned(run, alphas, setting.seeds, finished)[0]
    return runs


# ---- Table -----------------------------------------------------------------------------------

# Test accuracy in percent, and the largest Tr(F).
PAPER = {
    "fp": ("80.02", "21.38"),
    "every_step": ("about 80", NOTHING),
    "one_example": ("79.7", "24.16"),
}


def table(results: Sequence[Result]) -> str:
    """How the traces of figure 12 correlate, and what the penalties of figures 13 and 14 reach."""
    followed, penalised = split(results)
    tables = [make(runs) for make, runs in ((_traces, followed), (_methods, penalised)) if runs]
    return "\n".join([*tables, picture.seeds_note(results) + "\n"])


def split(results: Sequence[Result]) -> tuple[list[Result], list[Result]]:
    """The runs of figure 12, and those of figures 13 and 14."""
    followed = [run for run in results if run["method"] not in METHODS]
    return followed, [run for run in results if run["method"] in METHODS]


def _traces(runs: Sequence[Result]) -> str:
    rows = [
        [
            named(varied, value),
            written(group, lambda run: together([run], 1 / 2), digits=2),
            written(group, lambda run: together([run], 1), digits=2),
        ]
        for (varied, value), group in grouped(runs, "method", "value").items()
    ]
    rows.append(["all runs", f"{together(runs, 1 / 2):.2f}", f"{together(runs, 1):.2f}"])
    header = ["figure 12", "first half of the epochs", "all epochs"]
    note = (
        "Pearson's correlation of log Tr(F) with log Tr(F^B). The paper prints no coefficient: it "
        "sees a strong correlation but for the final phase.\n"
    )
    return f"{picture.markdown(header, rows)}\n{note}"


def together(runs: Sequence[Result], share: float) -> float:
    """The correlation of the two traces over the first epochs, a share of all, of some runs."""
    return log_pearson(*(pooled(runs, key, share) for key in TRACES))


def pooled(runs: Sequence[Result], key: str, share: float = 1) -> np.ndarray:
    """What some runs logged at the ends of their first epochs, a share of all."""
    histories = (run["history"][key][: int(share * run["epochs"])] for run in runs)
    return np.array([value for history in histories for value in history], float)


def _methods(runs: Sequence[Result]) -> str:
    rows = []
    for part, methods in every_value(runs, METHODS).items():
        for method, group in methods.items():
            best = chosen(group)
            paper_accuracy, paper_trace = PAPER.get(method, (NOTHING, NOTHING))
            rows.append(
                [
                    part,
                    TITLES[method],
                    common(best, "alpha"),
                    percent(best, test_accuracy),
                    paper_accuracy,
                    written(best, max_fisher_trace),
                    paper_trace,
                ]
            )
    header = ["part", "method", "alpha", "test accuracy, %", "paper", "largest Tr(F)", "paper"]
    return f"{picture.markdown(header, rows)}\n{picture.FIGURES_NOTE}\n"


# ---- Figure ----------------------------------------------------------------------------------


def figure(results: Sequence[Result], path: Path) -> None:
    """Figure 12 in the first row; below it figures 13 and 14, a column for each method."""
    followed, penalised = split(results)
    parts = every_value(penalised, METHODS)
    groups = {(part, m): runs for part, methods in parts.items() for m, runs in methods.items()}
    baselines = [runs for (_, method), runs in groups.items() if method == "baseline"]
    columns = {key: runs for key, runs in groups.items() if key[1] != "baseline"} or groups
    fig, axes = picture.panels(bool(followed) + 2 * bool(columns), max(3, len(columns)))
    for axis in axes.flat:
        axis.set_axis_off()
    if followed:
        _draw_traces(axes[0], followed)
    for column, ((part, method), runs) in zip(axes[-2:].T, columns.items(), strict=False):
        _draw_alphas(column, f"{part}: {TITLES[method]}", runs, baselines[0] if baselines else [])
    picture.save(fig, path)


def _draw_traces(row: Sequence[Axes], runs: Sequence[Result]) -> None:
    """Both traces over epochs, and one against the other at each epoch."""
    values = grouped(runs, "method", "value")
    for colour, ((varied, value), group) in picture.shaded(values):
        for axis, key in zip(row[:2], TRACES, strict=True):
            picture.curve(axis, group, key, colour)
        points = [pooled(group, key) for key in TRACES]
        row[2].plot(*points, "o", ms=3, alpha=0.6, color=colour, label=named(varied, value))
    labels = [picture.LABELS[key] for key in TRACES]
    for axis in row[:3]:
        axis.set_axis_on()
    for axis, name in zip(row[:2], labels, strict=True):
        picture.label(axis, "figure 12", y=name)
        axis.set_yscale("log")
    picture.label(row[2], "figure 12, all epochs", x=labels[0], y=labels[1])
    row[2].set_xscale("log")
    row[2].set_yscale("log")
    row[2].legend(fontsize=7)


def _draw_alphas(
    column: Sequence[Axes], title: str, runs: Sequence[Result], baseline: Sequence[Result]
) -> None:
    """Validation accuracy and Tr(F) of a method, blue to red by alpha, beside the baseline."""
    alphas = grouped(runs, "value")
    for axis, key in zip(column, ("val_accuracy", "fisher_trace"), strict=True):
        axis.set_axis_on()
        picture.curve(axis, baseline, key, picture.COLOURS["baseline"], "baseline", ":")
        for colour, ((alpha,), some) in picture.shaded(alphas):
            picture.curve(axis, some, key, colour, f"alpha {alpha:g}")
        picture.label(axis, title, y=picture.LABELS[key])
    column[0].legend(fontsize=7, loc="lower right", ncols=2)


# ---- Presets ---------------------------------------------------------------------------------

DEMO = DIGITS | {"width": 128, "epochs": 30, "steps_per_execution": 13, "fisher_examples": 320}
PRESETS: dict[str, dict[str, Swept | Approximated]] = {
    "demo": {
        "figure12": Swept(**DEMO, varies="learning_rate", values=(0.003, 0.01, 0.03)),
        "figure13": Approximated(
            **DEMO,
            learning_rate=0.003,
            methods=("baseline", "fp", "every_step"),
            alphas=(0.05,),
        ),
        "figure14": Approximated(
            **DEMO, learning_rate=0.003, methods=("one_example",), alphas=(0.0015,)
        ),
    },
    "small": {
        "figure12": Swept(
            **SMALL_C10,
            epochs=16,
            fisher_examples=384,
            varies="learning_rate",
            values=(0.001, 0.005, 0.03),
        ),
        "figure13": Approximated(
            **SMALL_C10,
            epochs=24,
            learning_rate=0.003,
            methods=("baseline", "fp", "every_step"),
            alphas=(0.01,),
        ),
        "figure14": Approximated(
            **SMALL_C10,
            epochs=24,
            learning_rate=0.003,
            methods=("one_example",),
            alphas=(0.0001,),
        ),
    },
    "paper": {
        "figure12": Swept(
            **SECTION_4["simple_cnn_c10"],
            fisher_examples=1280,
            varies="learning_rate",
            values=(0.001, 0.00316, 0.01, 0.0316, 0.1),
        ),
        "figure13": Approximated(
            **SECTION_4["simple_cnn_c10"],
            learning_rate=0.00316,
            methods=("baseline", "fp", "every_step"),
            alphas=tuning.alphas(0.1),
        ),
        "figure14": Approximated(
            **SECTION_4["simple_cnn_c10"],
            learning_rate=0.00316,
            methods=("one_example",),
            alphas=tuning.alphas(0.001),
        ),
    },
}
RECIPE = Recipe("approximations", __doc__, PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
