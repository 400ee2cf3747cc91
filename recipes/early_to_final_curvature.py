"""Section 5: the network whose Tr(F) is small early in training ends in a wider minimum.

Figures 6 and 10: trains two networks for a few epochs, one under high and one under low
regularisation, that is with a large and a small learning rate, or a small and a large batch size.
From each go on several trainings with different seeds, all under low regularisation. Tr(F_i) is
Tr(F) where the two end; Tr(H_f) is Tr(H) at the epoch of best test accuracy of a continuation.

A continuation begins with the weights of its network alone, and has all epochs of appendix G.4.
The two configurations are printed in no text: these are the middle ones of sets A and B of
figure 11. The text of section 5 has ResNet-26, the caption of figure 6 ResNet-56 on CIFAR-100: the
paper preset follows the caption. Section 5 counts 8 continuations, as here, appendix G.4 32 runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiment import picture  # first: it meets Ctrl-C with a sentence

# isort: split
import numpy as np
from experiment.command import main
from experiment.paper import DIGITS, SECTION_5, SMALL_WATCHED
from experiment.recipe import Recipe, Result
from experiment.results import by_part, common, final, of, percent, test_accuracy, written
from experiment.setting import Run, Varied, option
from matplotlib.axes import Axes

COLOURS = {"high": "#c51b1b", "low": "#1b6fb5"}  # levels of regularisation
fisher_trace = final("fisher_trace")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyToFinal(Varied):
    """A row of figure 6 or 10."""

    high: float = option("learning rate or batch size of high regularisation")
    low: float = option("the same of low regularisation")
    early_epochs: int = option("epochs of the first two trainings", 20)
    continuations: int = option("trainings that go on from each of the two", 8)
    num_probes: int = option("probes that Tr(H) is estimated from", 30)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("high", "low"):
            self._check(name, at_least=0)
        for name in ("early_epochs", "num_probes"):
            self._check(name, at_least=1)
        self._check("continuations", at_least=1, below=101)  # Seeds are in hundreds ...
        self._check("seeds", at_least=0, below=4e7)  # ... and below 2^32.


def plan(part: str, setting: EarlyToFinal, finished: Mapping[str, Result]) -> list[Run]:
    """For each seed and level the first training, and then those that go on from it."""
    runs = []
    for seed in setting.seeds:
        for level in COLOURS:
            first = _first(part, setting, level, seed)
            runs += [first, *_continuations(setting, first)]
    return runs


def _first(part: str, setting: EarlyToFinal, level: str, seed: int) -> Run:
    value = getattr(setting, level)
    changes = {"epochs": setting.early_epochs, **setting.at(value)}
    measures = {"fisher_trace": {"every_epochs": setting.early_epochs}}
    return Run.of(
        setting, part=part, method=level, value=value, seed=seed, measures=measures, **changes
    )


def _continuations(setting: EarlyToFinal, first: Run) -> list[Run]:
    return [
        Run.of(
            setting,
            part=first.part,
            method=f"after_{first.method}",
            initial=first.name,
            data_seed=first.seed,
            seed=100 * (first.seed + 1) + number,
            at_best={"hessian_trace": {"num_probes": setting.num_probes}},
            **setting.at(setting.low),
        )
        for number in range(setting.continuations)
    ]


# ---- Table and figure ------------------------------------------------------------------------


def final_hessian_trace(result: Result) -> float:
    """Tr(H_f)."""
    return result["best"]["hessian_trace"]["value"]


def table(results: Sequence[Result]) -> str:
    """What figures 6 and 10 show, as means and standard deviations."""
    rows = [
        [part, level, *_row(methods.get(level, []), methods.get(f"after_{level}", []))]
        for part, methods in by_part(results).items()
        for level in COLOURS
    ]
    header = [
        *("setting", "early regularisation", "learning rate", "batch size", "Tr(F_i)"),
        *("continuations", "Tr(H_f)", "best test accuracy, %"),
    ]
    note = (
        "A standard deviation is one over runs. The paper prints no numbers: it finds the network "
        "of smaller Tr(F_i) more likely to end with a small Tr(H_f), and after the other one "
        "sharper minima and a test accuracy that varies a lot.\n"
    )
    return f"{picture.markdown(header, rows)}\n{note}"


def _row(first: Sequence[Result], after: Sequence[Result]) -> list[str]:
    return [
        common(first, "learning_rate"),
        common(first, "batch_size"),
        written(first, fisher_trace),
        str(len(after)),
        written(after, final_hessian_trace),
        percent(after, test_accuracy),
    ]


def figure(results: Sequence[Result], path: Path) -> None:
    """Figures 6 and 10, a row for each setting."""
    parts = by_part(results)
    fig, axes = picture.panels(len(parts), 3)
    for row, (part, methods) in zip(axes, parts.items(), strict=True):
        after = {level: methods.get(f"after_{level}", []) for level in COLOURS}
        _bars(row[0], methods)
        _histogram(row[1], after, final_hessian_trace)
        _histogram(row[2], after, test_accuracy)
        picture.label(row[0], part, x="early regularisation", y=r"Tr(F$_i$)")
        picture.label(row[1], part, x=r"Tr(H$_f$)", y="continuations")
        picture.label(row[2], part, x="best test accuracy", y="continuations")
    picture.legend(fig, axes.flat)
    picture.save(fig, path)


def _bars(axis: Axes, methods: Mapping[str, Sequence[Result]]) -> None:
    for level, colour in COLOURS.items():
        values = of(methods.get(level, []), fisher_trace)
        if len(values):
            spread = values.std(ddof=1) if len(values) > 1 else None
            axis.bar(level, values.mean(), 0.6, yerr=spread, color=colour, alpha=0.6, capsize=4)


def _histogram(
    axis: Axes, after: Mapping[str, Sequence[Result]], figure: Callable[[Result], Any]
) -> None:
    """Both levels in the same bins, over a tick for each continuation."""
    values = {level: of(runs, figure) for level, runs in after.items()}
    values = {level: figures[np.isfinite(figures)] for level, figures in values.items()}
    bins = np.histogram_bin_edges(np.concatenate(list(values.values())), 10).tolist()
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
            epochs=16,
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
