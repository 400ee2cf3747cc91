"""Section 4.1: the Fisher penalty keeps a network from memorising wrong labels.

Table 3 and figures 5 and 9: trains on labels of which 25% or 50% were replaced by uniform ones,
with no regularisation, mixup and the penalties GP_x, FP and GP_r, and compares test accuracies and
how clean and wrong labels are learnt.

Table 3 is about the methods, figures 5 and 9 about alpha: the picture here compares methods, and
the second table alphas. The ranges are those of appendix G.3, which section 4.1 does not agree with
(6 alphas, and a beta of 0.2 as well).

Where the paper is silent: validation labels stay clean, there is no augmentation (as in table 1),
and the learning rate is 0.01. Networks without batch normalisation use SkipInit. The second network
of table 3 has three names in the paper (Wide ResNet, ResNet-50, ResNet-52): here it is Wide ResNet
44-3, and `--only wide_resnet_c100 --network resnet50_skipinit` takes ResNet-50.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiment import picture  # first: it meets Ctrl-C with a sentence

# isort: split
import matplotlib.pyplot as plt
import numpy as np
from experiment.command import main
from experiment.paper import DIGITS, SECTION_4_1, SMALL_C10
from experiment.recipe import Recipe, Result, as_alpha, tuned
from experiment.results import (
    by_method,
    common,
    final,
    grouped,
    percent,
    test_accuracy,
    written,
)
from experiment.setting import Penalised, Run, option

from keras_fisher import tuning

METHODS = ("baseline", "mixup", "gp_x", "fp", "gp_r")
VALUES = METHODS[1:]
PENALTIES = METHODS[2:]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noisy(Penalised):
    """A setting of table 3."""

    learning_rate: float = option("learning rate", 0.01)
    noise: tuple[float, ...] = option(
        "fractions of labels to replace by uniform draws", (0.25, 0.5)
    )
    methods: tuple[str, ...] = option("methods to compare", METHODS, METHODS)
    mixup: tuple[float, ...] = option("beta of mixup", tuning.mixup_betas())
    gp_x: tuple[float, ...] = option("alphas of GP_x", tuning.noisy_label_alphas("gp_x"))
    fp: tuple[float, ...] = option("alphas of FP", tuning.noisy_label_alphas())
    gp_r: tuple[float, ...] = option("alphas of GP_r", tuning.noisy_label_alphas())
    monitored: int = option("training examples on which both kinds of labels are followed", 5000)
    gradient_batches: int = option("mini-batches for each gradient norm", 10)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_listed("noise", "methods", *VALUES)
        for name in VALUES:
            self._check(name, at_least=0)
        self._check("noise", at_least=1e-6, below=1)
        self._check("monitored", at_least=1)
        self._check("gradient_batches", at_least=1)


def plan(part: str, setting: Noisy, finished: Mapping[str, Result]) -> list[Run]:
    """Each method at each noise. Alphas and betas are chosen with the first seed."""
    runs: list[Run] = []
    for noise, method in itertools.product(setting.noise, setting.methods):
        run = Run.of(
            setting,
            part=part,
            method=method,
            noise=noise,
            monitored=setting.monitored,
            gradient_batches=setting.gradient_batches,
            penalty=method if method in PENALTIES else "fp",
        )
        values = (0.0,) if method == "baseline" else getattr(setting, method)
        changes = as_beta if method == "mixup" else as_alpha
        runs += tuned(run, values, setting.seeds, finished, changes)[0]
    return runs


def as_beta(value: float) -> dict[str, Any]:
    """The change to a run that makes a value its beta of mixup."""
    return {"mixup_beta": value}


# ---- Table and figure ------------------------------------------------------------------------

# Table 3: test accuracy in percent at the best validation point, in the order of METHODS.
PAPER_TABLE = {
    (0.25, "vgg11_c100"): (41.74, 52.31, 45.94, 60.18, 58.46),
    (0.25, "wide_resnet_c100"): (53.30, 61.61, 52.70, 58.31, 57.60),
    (0.5, "vgg11_c100"): (30.05, 39.15, 34.26, 51.33, 50.33),
    (0.5, "wide_resnet_c100"): (43.35, 51.71, 42.99, 47.99, 50.08),
}
FIGURES: dict[str, Callable[[Result], float]] = {
    "test accuracy at best validation": test_accuracy,
    "test accuracy at the end": final("test_accuracy"),
    "wrong labels memorised at the end": final("noisy_accuracy"),
}
Groups = dict[tuple[float, str], dict[str, list[Result]]]


def by_noise(results: Sequence[Result]) -> Groups:
    """The runs of each noise, part and method, of the chosen alpha or beta."""
    return {
        (noise, part): by_method(runs)
        for (noise, part), runs in grouped(results, "noise", "part").items()
    }


def table(results: Sequence[Result]) -> str:
    """For each noise and network the figures of every method, and table 3."""
    rows = []
    for (noise, part), runs in by_noise(results).items():
        start = [f"{noise:.0%}", part]
        for title, figure in FIGURES.items():
            cells = [percent(runs.get(method, []), figure) for method in METHODS]
            rows.append([*start, title, *cells])
        values = [common(runs.get(method, []), "value") for method in METHODS]
        rows.append([*start, "alpha or beta", *values])
    for (noise, part), numbers in PAPER_TABLE.items():
        rows.append([f"{noise:.0%}", part, "paper, table 3", *(f"{n:.2f}" for n in numbers)])
    titles = [picture.TITLES[method] for method in METHODS]
    header = ["noise", "network", "figure", *titles]
    return (
        f"{picture.markdown(header, rows)}\nPercent. {picture.seeds_note(results)}\n\n"
        f"{_every_value(results)}"
    )


def _every_value(results: Sequence[Result]) -> str:
    """What figures 5 and 9 show over alpha."""
    rows = []
    for (noise, part), runs in grouped(results, "noise", "part").items():
        for method in METHODS:
            of_method = [run for run in runs if run["method"] == method]
            for group in grouped(of_method, "value").values():
                start = [f"{noise:.0%}", part, picture.TITLES[method], common(group, "value")]
                accuracies = [percent(group, figure) for figure in FIGURES.values()]
                ratio = written(group, gradient_norm_ratio, digits=2)
                rows.append([*start, *accuracies, ratio])
    header = ["noise", "network", "method", "alpha or beta", *FIGURES, "gradient norms"]
    note = (
        "The last column is the norm of the mini-batch gradient on clean labels over that on wrong "
        "ones, the mean over the second half of the epochs: in figure 5 it is below 1, and closer "
        "to 1 the larger alpha is.\n"
    )
    return f"{picture.markdown(header, rows)}\n{note}"


def gradient_norm_ratio(run: Result) -> float:
    """That of clean to wrong labels, over the second half of the epochs."""
    ratios = np.array(run["history"]["gradient_norm_ratio"], float)
    return float(np.nanmean(ratios[len(ratios) // 2 :]))


def figure(results: Sequence[Result], path: Path) -> None:
    """Figures 5 and 9 over methods, at their chosen alphas: a row for each noise and network."""
    groups = by_noise(results)
    fig, axes = picture.panels(len(groups), 4)
    for row, ((noise, part), runs) in zip(axes, groups.items(), strict=True):
        for method in METHODS:
            _draw(row, method, runs.get(method, []))
        _label(row, f"{part}, {noise:.0%} noise")
    styles = {"clean labels": "-", "wrong labels": "--"}
    lines = {name: plt.Line2D([], [], color="grey", ls=style) for name, style in styles.items()}
    picture.legend(fig, axes.flat, **lines)
    picture.save(fig, path)


def _draw(row: Any, method: str, runs: Sequence[Result]) -> None:
    colour = picture.COLOURS[method]
    picture.curve(row[0], runs, "val_accuracy", colour, picture.TITLES[method])
    for group, style in (("clean", "-"), ("noisy", "--")):
        picture.curve(row[1], runs, f"{group}_accuracy", colour, style=style)
        picture.curve(row[2], runs, f"{group}_gradient_norm", colour, style=style)
    picture.curve(row[3], runs, "gradient_norm_ratio", colour)


def _label(row: Any, name: str) -> None:
    titles = (
        f"validation accuracy\n{name}",
        "training accuracy\non clean and on wrong labels",
        "norm of the mini-batch gradient\non clean and on wrong labels",
        "ratio of gradient norms\nclean to wrong",
    )
    for axis, title in zip(row, titles, strict=True):
        picture.label(axis, title)
    row[1].set_ylim(0, 1.02)
    for axis in (row[0], row[2]):
        axis.set_ylim(bottom=0)


# ---- Presets ---------------------------------------------------------------------------------

PRESETS = {
    "demo": {
        "mlp_digits": Noisy(
            **DIGITS | {"num_train": 0, "drops": (36,)},
            epochs=45,
            learning_rate=0.015,
            steps_per_execution=34,
            seeds=(0, 1, 2),
            noise=(0.5,),
            mixup=(1.6,),
            gp_x=(10.0,),
            fp=(0.3,),
            gp_r=(0.1,),
            monitored=2000,
            gradient_batches=5,
        )
    },
    "small": {
        "simple_cnn_c100": Noisy(
            **SMALL_C10 | {"dataset": "cifar100", "num_train": 10000, "drops": (26,)},
            epochs=32,
            noise=(0.5,),
            mixup=(1.6,),
            gp_x=(100.0,),
            fp=(0.03,),
            gp_r=(0.03,),
            monitored=2000,
            gradient_batches=2,
        )
    },
    "paper": {part: Noisy(**setting) for part, setting in SECTION_4_1.items()},
}
RECIPE = Recipe("noisy_cifar100", __doc__ or "", PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
