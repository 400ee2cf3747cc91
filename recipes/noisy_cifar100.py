"""Section 4.1: the Fisher penalty keeps a network from memorising wrong labels.

Table 3 and figures 5 and 9: trains with 25% or 50% of the labels replaced by uniform draws, without
regularisation, with mixup and with the penalties GP_x, FP and GP_r, and compares test accuracies
and how clean and wrong labels are learnt.

Table 3 compares methods, and figures 5 and 9 compare alphas; here the picture compares methods, and
the second table compares alphas. The ranges are those of appendix G.3; section 4.1 differs (6
alphas, and also a beta of 0.2).

Choices that the paper does not state: validation labels stay clean, there is no augmentation (as in
table 1), and the learning rate is 0.01. Networks without batch normalisation use SkipInit. The
second network of table 3 has three names in the paper (Wide ResNet, ResNet-50, ResNet-52): here it
is Wide ResNet 44-3, and `--only wide_resnet_c100 --network resnet50_skipinit` uses ResNet-50.

With `--noise-source worse`, or another annotation, the recipe trains on the human labels of CIFAR
(Wei et al., 2022) instead of uniform ones, and ignores `--noise`. The environment variable
CIFAR_N_DIR names the folder of their files; docs/data_and_networks.md says where to get them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from experiment.command import main
from experiment.plan.paper import SECTION_4_1
from experiment.plan.recipe import Finished, Recipe, tune
from experiment.plan.setting import (
    UNIFORM,
    Amount,
    Amounts,
    Choices,
    Count,
    Listing,
    NoiseSource,
    PenaltySetting,
    Range,
    Run,
)
from experiment.plan.small import SMALL_C10, THIRTY_SECOND, WHOLE_DIGITS
from experiment.results import picture, tables

from keras_fisher import tuning

Method = Literal["baseline", "mixup", "gp_x", "fp", "gp_r"]
METHODS = get_args(Method)
PENALTIES = METHODS[2:]
Noises = Annotated[tuple[float, ...], Listing(), Range(1e-6, 1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseSetting(PenaltySetting):
    """A setting of table 3."""

    learning_rate: Amount = 0.01  # learning rate
    noise: Noises = (0.25, 0.5)  # fractions of labels to replace by uniform draws
    noise_source: NoiseSource = "uniform"  # uniform draws, or people's labels of CIFAR, all of them
    methods: Choices[Method] = METHODS  # methods to compare
    mixup: Amounts = tuning.mixup_betas()  # beta of mixup
    gp_x: Amounts = tuning.noisy_label_alphas("gp_x")  # alphas of GP_x
    fp: Amounts = tuning.noisy_label_alphas()  # alphas of FP
    gp_r: Amounts = tuning.noisy_label_alphas()  # alphas of GP_r
    monitored: Count = 5000  # training examples to monitor both kinds of labels on
    gradient_batches: Count = 10  # mini-batches for each gradient norm


def plan(part: str, setting: NoiseSetting, finished: Finished) -> list[Run]:
    """Plans each method at each noise; chooses alphas and betas with the first seed."""
    runs: list[Run] = []
    noises = setting.noise if setting.noise_source == UNIFORM else (0.0,)
    for noise, method in itertools.product(noises, setting.methods):
        run = setting.make_run(
            part=part,
            method=method,
            noise=noise,
            noise_source=setting.noise_source,
            monitored=setting.monitored,
            gradient_batches=setting.gradient_batches,
            penalty=method if method in PENALTIES else "fp",
        )
        values = (0.0,) if method == "baseline" else getattr(setting, method)
        sets = "mixup_beta" if method == "mixup" else "alpha"
        runs += tune(run, values, setting.seeds, finished, sets)[0]
    return runs


# ---- Table and figure ------------------------------------------------------------------------

# Table 3: test accuracy in percent at the best validation point, in the order of METHODS.
PAPER_TABLE = {
    (0.25, "vgg11_c100"): (41.74, 52.31, 45.94, 60.18, 58.46),
    (0.25, "wide_resnet_c100"): (53.30, 61.61, 52.70, 58.31, 57.60),
    (0.5, "vgg11_c100"): (30.05, 39.15, 34.26, 51.33, 50.33),
    (0.5, "wide_resnet_c100"): (43.35, 51.71, 42.99, 47.99, 50.08),
}
FIGURES = {
    "test accuracy at best validation": tables.PercentCell("test_accuracy"),
    "test accuracy at the end": tables.PercentCell("final_test_accuracy"),
    "wrong labels memorised at the end": tables.PercentCell("final_noisy_accuracy"),
}


def table(runs: pd.DataFrame) -> str:
    """Returns each method's figures by noise and network, with table 3, then those by value."""
    runs = runs.assign(
        final_noisy_accuracy=[final["noisy_accuracy"] for final in runs["final"]],
        gradient_norm_ratio=runs["history"].map(average_ratio),
    )
    rows = []
    for (*noise, part), group in tables.choose_values(runs).groupby([*tables.NOISE, "part"]):
        methods = [group[group["method"] == method] for method in METHODS]
        cells = {
            **FIGURES,
            "test accuracy minus the baseline, points": tables.DifferenceCell(
                "test_accuracy", methods[0]
            ),
            "alpha or beta": tables.SettingCell("value"),
        }
        for title, cell in cells.items():
            rows.append([tables.write_noise(*noise), part, title, *map(cell, methods)])
    for (noise, part), numbers in PAPER_TABLE.items():
        rows.append([f"{noise:.0%}", part, "paper, table 3", *(f"{n:.2f}" for n in numbers)])
    header = ["noise", "network", "figure", *(tables.TITLES[method] for method in METHODS)]
    note = f"Percent. {tables.write_seeds(runs)} {tables.DIFFERENCES_NOTE}\n"
    return (
        f"{tables.write_markdown(header, rows)}\n{note}{tables.write_edges(runs)}\n"
        f"{write_values(runs)}"
    )


def write_values(runs: pd.DataFrame) -> str:
    """Returns the results of figures 5 and 9 for each alpha."""
    cells = {
        "alpha or beta": tables.SettingCell("value"),
        **FIGURES,
        "gradient norms": tables.MeanCell("gradient_norm_ratio", digits=2),
    }
    rows = [
        [tables.write_noise(*noise), part, tables.TITLES[method], *tables.fill_cells(group, cells)]
        for (*noise, part), of_part in runs.groupby([*tables.NOISE, "part"])
        for method in METHODS
        for _, group in of_part[of_part["method"] == method].groupby("value")
    ]
    header = ["noise", "network", "method", *cells]
    note = (
        "The last column is the mean norm of the mini-batch gradient on clean labels over that on "
        "wrong ones, over the second half of the epochs: in figure 5 it is below 1, and closer to "
        "1 the larger alpha is.\n"
    )
    return f"{tables.write_markdown(header, rows)}\n{note}"


def average_ratio(history: dict[str, Any]) -> float:
    """Returns the ratio of mean gradient norms, clean to wrong, over the last half of epochs.

    After the labels are fitted, both norms are small, and their ratio at an epoch varies a lot.
    """
    norms = [np.array(history[f"{labels}_gradient_norm"], float) for labels in ("clean", "noisy")]
    clean, wrong = (values[len(values) // 2 :].mean() for values in norms)
    return float(clean / wrong)


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Draws figures 5 and 9 by method, at the chosen alphas, a row per noise and network."""
    groups = tables.choose_values(runs).groupby([*tables.NOISE, "part"])
    fig, axes = picture.make_panels(len(groups), 4)
    for row, ((*noise, part), group) in zip(axes, groups, strict=True):
        for method in METHODS:
            draw_method(row, method, group[group["method"] == method])
        label_row(row, f"{part}, {tables.write_noise(*noise)} noise")
    styles = {"clean labels": "-", "wrong labels": "--"}
    lines = {name: plt.Line2D([], [], color="grey", ls=style) for name, style in styles.items()}
    picture.draw_legend(fig, axes.flat, **lines)
    picture.save(fig, path)


def draw_method(row: Any, method: str, runs: pd.DataFrame) -> None:
    colour = picture.COLOURS[method]
    picture.draw_curve(row[0], runs, "val_accuracy", colour, tables.TITLES[method])
    for labels, style in (("clean", "-"), ("noisy", "--")):
        picture.draw_curve(row[1], runs, f"{labels}_accuracy", colour, style=style)
        picture.draw_curve(row[2], runs, f"{labels}_gradient_norm", colour, style=style)
    picture.draw_curve(row[3], runs, "gradient_norm_ratio", colour)


def label_row(row: Sequence[Any], name: str) -> None:
    titles = (
        f"validation accuracy\n{name}",
        "training accuracy\non clean and on wrong labels",
        "norm of the mini-batch gradient\non clean and on wrong labels",
        "ratio of gradient norms\nclean to wrong",
    )
    for axis, title in zip(row, titles, strict=True):
        picture.label_axes(axis, title)
    row[1].set_ylim(0, 1.02)
    for axis in (row[0], row[2]):
        axis.set_ylim(bottom=0)


# ---- Presets ---------------------------------------------------------------------------------

PRESETS = {
    "demo": {
        "mlp_digits": NoiseSetting(
            **WHOLE_DIGITS,
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
        f"simple_cnn_{name}": NoiseSetting(
            **SMALL_C10 | THIRTY_SECOND | {"dataset": dataset, "num_train": 9984, "drops": (40,)},
            epochs=50,
            seeds=(0, 1, 2),
            mixup=(0.4, 1.6, 6.4),
            gp_x=(30.0, 100.0, 300.0, 1000.0),
            fp=(0.01, 0.03, 0.1, 0.3, 1.0, 10.0),
            gp_r=(0.01, 0.03, 0.1, 0.3),
            monitored=2000,
            gradient_batches=2,
        )
        for name, dataset in (("c100", "cifar100"), ("c10", "cifar10"))
    },
    "paper": {part: NoiseSetting(**setting) for part, setting in SECTION_4_1.items()},
}
RECIPE = Recipe("noisy_cifar100", __doc__ or "", PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
