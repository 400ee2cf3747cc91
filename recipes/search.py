"""Appendix G.2: searches alpha and the learning rate of a setting, with keras-tuner.

Trains each combination of the given learning rates and alphas, under each seed, and picks the one
of best mean validation accuracy. Figures 13 and 14 show the accuracy of such a search over alpha.
Another search in the same folder, of other values, seeds or noise or of another penalty, trains
what is new.

`--over lr` finds eta*, without a penalty; `--over alpha` belongs at the learning rate that the
penalty will be used with (`--learning-rate 0.001`). The other recipes take what was found by its
folder (`--tuned`; README.md says which takes what).

Several machines that share the folder share the work: start the same command on each, one of them
with KERASTUNER_TUNER_ID=chief, which trains nothing, and the others with tuner0, tuner1, ..., all
with KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT of the chief. A worker that was killed is
started again under its own name, and goes on with its run.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiment import picture
from experiment.command import main
from experiment.paper import DIGITS, SECTION_4, SECTION_4_1, SMALL_C10, TINY_IMAGENET_GRID
from experiment.recipe import Recipe, Result
from experiment.results import (
    best_combination,
    common,
    grouped,
    max_fisher_trace,
    of,
    percent,
    test_accuracy,
    validation_accuracy,
    written,
)
from experiment.search import search
from experiment.setting import Penalised, Run, option
from experiment.tuned import BOTH, NOISY
from matplotlib.axes import Axes

from keras_fisher import tuning
from keras_fisher.penalties import PENALTIES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Searched(Penalised):
    """A setting, and what is searched in it."""

    over: tuple[str, ...] = option("what to search", BOTH, BOTH)
    penalty: str = option("penalty that alpha is of", "fp", tuple(PENALTIES))
    learning_rate: float = option("learning rate, where --over has no lr", 0.01)
    learning_rates: tuple[float, ...] = option("learning rates to search", tuning.learning_rates())
    alphas: tuple[float, ...] = option("alphas to search", tuning.alphas())
    noise: float = option("fraction of labels to replace by uniform draws", 0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_listed("over", "learning_rates", "alphas")
        for name in ("learning_rates", "alphas"):
            self._check(name, at_least=0)
        self._check("noise", at_least=0, below=1)


def plan(part: str, setting: Searched, finished: Mapping[str, Result]) -> list[Run]:
    """The grid: seeds first, alphas last."""
    rates = setting.learning_rates if "lr" in setting.over else (setting.learning_rate,)
    alphas = setting.alphas if "alpha" in setting.over else (0.0,)
    return [
        Run.of(
            setting,
            part=part,
            method=f"{setting.penalty}-rate{rate:g}",
            learning_rate=rate,
            penalty=setting.penalty,
            alpha=alpha,
            value=alpha,
            seed=seed,
            noise=setting.noise,
            measures={"fisher_trace": {}},
        )
        for seed, rate, alpha in itertools.product(setting.seeds, rates, alphas)
    ]


# ---- Table and figure ------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """A row for each combination; the best of each setting and penalty is marked."""
    rows = []
    for (part, noise, _), runs in grouped(results, "part", "noise", "penalty").items():
        best = best_combination(runs)
        for group in combinations(runs):
            rows.append(
                [
                    named(part, noise),
                    group[0]["penalty"],
                    common(group, "learning_rate"),
                    f"{group[0]['alpha']:.4g}",
                    percent(group, validation_accuracy) + " (best)" * (group == best),
                    percent(group, test_accuracy),
                    written(group, max_fisher_trace),
                ]
            )
    header = [
        *("setting", "penalty", "learning rate", "alpha"),
        *("validation accuracy, %", "test accuracy, %", "largest Tr(F)"),
    ]
    note = f"{picture.seeds_note(results)} {picture.FIGURES_NOTE}\n"
    return f"{picture.markdown(header, rows)}\n{note}"


def combinations(runs: Sequence[Result]) -> list[list[Result]]:
    """The runs of each learning rate and alpha."""
    return list(grouped(runs, "learning_rate", "alpha").values())


def named(part: str, noise: float) -> str:
    """A part, and its noise if there is any."""
    return f"{part}, {noise:.0%} noise" if noise else part


def figure(results: Sequence[Result], path: Path) -> None:
    """Accuracy and the largest Tr(F) against alpha: a row for each setting and penalty, a line for
    each learning rate."""
    parts = grouped(results, "part", "noise", "penalty")
    fig, axes = picture.panels(len(parts), 3)
    figures = (validation_accuracy, test_accuracy, max_fisher_trace)
    titles = ("best validation accuracy", "test accuracy there", "largest Tr(F)")
    for row, ((part, noise, penalty), runs) in zip(axes, parts.items(), strict=True):
        for colour, ((rate,), group) in picture.shaded(grouped(runs, "learning_rate")):
            for axis, figure_of in zip(row, figures, strict=True):
                _draw(axis, group, figure_of, colour, f"learning rate {rate:g}")
        for axis, title in zip(row, titles, strict=True):
            picture.label(axis, named(part, noise), f"alpha of {picture.TITLES[penalty]}", title)
        row[2].set_yscale("log")
    picture.legend(fig, axes.flat)
    picture.save(fig, path)


def _draw(
    axis: Axes, runs: Sequence[Result], figure_of: Callable[[Result], float], colour: Any, name: str
) -> None:
    """The mean over seeds, with the standard deviation as bars; a dotted line at alpha 0."""
    groups = {alpha: of(group, figure_of) for (alpha,), group in grouped(runs, "alpha").items()}
    plain = groups.pop(0.0, None)
    if plain is not None:
        axis.axhline(plain.mean(), color=colour, ls=":", lw=1.2, label=f"{name}, alpha 0")
    if groups:
        means = [values.mean() for values in groups.values()]
        spreads = [values.std(ddof=1) if len(values) > 1 else 0 for values in groups.values()]
        axis.errorbar([*groups], means, spreads, color=colour, marker="o", capsize=3, label=name)
        axis.set_xscale("log")


# ---- Presets ---------------------------------------------------------------------------------

# Tables 1 and 2 search fewer alphas and smaller learning rates on TinyImageNet.
GRIDS: dict[str, dict[str, Any]] = {
    "wide_resnet_tiny_imagenet": {
        "learning_rates": TINY_IMAGENET_GRID,
        "alphas": TINY_IMAGENET_GRID,
    }
}
PRESETS = {
    "demo": {
        "mlp_digits": Searched(
            **DIGITS | {"num_train": 0, "drops": (36,)},
            epochs=45,
            steps_per_execution=34,
            over=("alpha",),
            learning_rate=0.015,
            alphas=(0.0, *tuning.alphas(0.1, num=5)),
            noise=0.5,
        )
    },
    "small": {
        "simple_cnn_c10": Searched(
            **SMALL_C10,
            epochs=40,
            over=("alpha",),
            learning_rate=0.003,
            alphas=(0.0, *tuning.alphas()),
        )
    },
    "paper": {
        **{part: Searched(**setting, **GRIDS.get(part, {})) for part, setting in SECTION_4.items()},
        **{
            f"{part}{NOISY}": Searched(**setting, noise=0.25)
            for part, setting in SECTION_4_1.items()
        },
    },
}
RECIPE = Recipe("search", __doc__ or "", PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE, run_all=search)
