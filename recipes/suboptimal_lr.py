"""Section 4: a small learning rate generalises badly, and the Fisher penalty repairs it.

Tables 1, 4, 5 and 6 and figures 1, 3 and 8: trains with the learning rate eta* that grid search
finds, with one that is 10 (or 30) times smaller, and at the smaller rate with each penalty.

eta* is the rate with the best validation accuracy with the first seed; alpha is chosen in the same
way (appendix G.2). A `--learning-rate` above 0 sets the small rate; `--methods` without eta_star
then skips all runs at eta*. Use both to spread a grid over machines.

The paper says that GP_x needs larger alphas, but not which; here they are those of appendix G.3, 10
to 1000. On TinyImageNet the small learning rate is 31.6 times smaller, as in figure 1.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pandas as pd
from experiment.command import main
from experiment.plan.paper import SECTION_4, TINY_IMAGENET_GRID
from experiment.plan.recipe import Finished, Recipe, tune
from experiment.plan.setting import Amount, Amounts, Choices, PenaltySetting, Range, Run
from experiment.plan.small import SMALL_C10, THIRTY_SECOND, WIDE_DIGITS
from experiment.results import picture, tables

from keras_fisher import tuning

Method = Literal["eta_star", "baseline", "gp_x", "gp", "fp", "gp_r"]
METHODS = get_args(Method)
PENALTIES = METHODS[2:]
MEASURES: dict[str, dict[str, Any]] = {"fisher_trace": {}, "gradient_norm": {}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RateSetting(PenaltySetting):
    """A setting with eta*, and with the Fisher penalty at a learning rate derived from eta*."""

    learning_rate: Amount = 0.0  # the small learning rate; 0 for eta* / slower
    learning_rates: Amounts = tuning.learning_rates()  # learning rates to choose eta* from
    slower: Annotated[float, Range(1)] = 10.0  # factor by which the small learning rate is smaller
    methods: Choices[Any]
    fp: Amounts = tuning.alphas()  # alphas of FP


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllPenaltiesSetting(RateSetting):
    """A setting of table 1."""

    methods: Choices[Method] = METHODS  # methods to compare
    gp_x: Amounts = tuning.alphas(100.0)  # alphas of GP_x
    gp: Amounts = tuning.alphas()  # alphas of GP
    gp_r: Amounts = tuning.alphas()  # alphas of GP_r


def plan(part: str, setting: RateSetting, finished: Finished) -> list[Run]:
    """Plans the runs that determine eta*, then those at the small rate."""
    runs: list[Run] = []
    small = setting.learning_rate
    if not small or "eta_star" in setting.methods:
        run = setting.make_run(part=part, method="eta_star", measures=MEASURES)
        runs, star = tune(
            run, setting.learning_rates, setting.seeds, finished, sets="learning_rate"
        )
        if star is None:
            return runs
        small = small or star.learning_rate / setting.slower
    for method in METHODS[1:]:
        if method in setting.methods:
            penalty = method if method in PENALTIES else "fp"
            run = setting.make_run(
                part=part, method=method, learning_rate=small, penalty=penalty, measures=MEASURES
            )
            alphas = (0.0,) if method == "baseline" else getattr(setting, method)
            runs += tune(run, alphas, setting.seeds, finished)[0]
    return runs


# ---- Table and figure ------------------------------------------------------------------------

# Tables 1, 4, 5 and 6, in the order of METHODS. (Table 4 has no TinyImageNet.)
PAPER_TABLES = {
    "test accuracy, % (table 1)": {
        "wide_resnet_tiny_imagenet": (54.67, 52.57, 52.79, 56.44, 56.73, 55.41),
        "densenet_c100": (66.09, 58.51, 62.12, 64.42, 66.41, 66.39),
        "vgg11_c100": (45.86, 36.86, 45.26, 47.35, 49.87, 48.26),
        "wide_resnet_c100": (53.96, 46.38, 58.68, 57.68, 57.05, 58.15),
        "simple_cnn_c10": (76.94, 71.32, 75.68, 75.73, 79.66, 79.76),
    },
    "largest Tr(F) (table 4)": {
        "densenet_c100": (24.68, 98.17, 83.64, 64.33, 66.24, 73.66),
        "vgg11_c100": (50.88, 148.19, 102.95, 58.53, 64.93, 62.96),
        "wide_resnet_c100": (26.21, 91.39, 41.43, 40.94, 56.53, 39.31),
        "simple_cnn_c10": (24.21, 52.05, 47.96, 25.03, 19.63, 25.35),
    },
    "seconds for an epoch (table 5)": {
        "wide_resnet_tiny_imagenet": (214.45, 142.69, 233.14, 143.78, 208.62, 371.74),
        "densenet_c100": (78.88, 57.40, 77.89, 78.66, 97.25, 75.96),
        "vgg11_c100": (30.50, 35.27, 31.54, 32.52, 43.41, 42.40),
        "wide_resnet_c100": (49.64, 47.99, 71.33, 61.36, 76.93, 53.25),
        "simple_cnn_c10": (18.64, 19.51, 26.09, 19.91, 21.21, 20.55),
    },
    "final training accuracy, % (table 6)": {
        "wide_resnet_tiny_imagenet": (99.84, 99.96, 99.97, 93.84, 81.05, 86.46),
        "densenet_c100": (99.98, 99.97, 99.96, 99.91, 99.91, 99.39),
        "vgg11_c100": (99.98, 99.98, 99.85, 99.62, 97.73, 86.32),
        "wide_resnet_c100": (99.98, 99.98, 99.97, 99.96, 99.99, 99.94),
        "simple_cnn_c10": (100.00, 100.00, 97.79, 100.00, 93.80, 94.64),
    },
}
ALL_IMAGES = "_all_images"  # ends the name of a part that trains on all of them
CELLS = (
    tables.PercentCell("test_accuracy"),
    tables.MeanCell("max_fisher_trace"),
    tables.MeanCell("seconds_per_epoch"),
    tables.PercentCell("final_accuracy"),
)


def table(runs: pd.DataFrame) -> str:
    """Returns tables 1, 4, 5 and 6, with the paper's rows for the same parts."""
    runs = runs.assign(
        seconds_per_epoch=runs["seconds"] / runs["epochs"],
        final_accuracy=[final["accuracy"] for final in runs["final"]],
    )
    rows = []
    for part, groups in tables.split_methods(tables.choose_values(runs), METHODS).items():
        for (title, paper), cell in zip(PAPER_TABLES.items(), CELLS, strict=True):
            rows.append([part, title, *map(cell, groups.values())])
            if (name := str(part).removesuffix(ALL_IMAGES)) in paper:
                rows.append(["", "paper", *map(str, paper[name])])
        for other in ("baseline", "eta_star", "fp"):
            title = f"test accuracy minus that of {tables.TITLES[other]}, points"
            difference = tables.DifferenceCell("test_accuracy", groups[other])
            rows.append(["", title, *map(difference, groups.values())])
        for title, column in (("learning rate", "learning_rate"), ("alpha", "alpha")):
            rows.append(["", title, *map(tables.SettingCell(column), groups.values())])
    header = ["setting", "figure", *(tables.TITLES[method] for method in METHODS)]
    note = (
        f"{tables.write_seeds(runs)} {tables.FIGURES_NOTE} {tables.DIFFERENCES_NOTE} Time with "
        "evaluation and measurements.\n"
    )
    return f"{tables.write_markdown(header, rows)}\n{note}{tables.write_edges(runs)}"


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Draws figures 1, 3 and 8, a row for each setting."""
    parts = tables.split_methods(tables.choose_values(runs), METHODS)
    fig, axes = picture.make_panels(len(parts), 4)
    keys = ("accuracy", "val_accuracy", "fisher_trace", "gradient_norm")
    for row, (part, methods) in zip(axes, parts.items(), strict=True):
        picture.draw_methods(row, part, methods, keys)
        row[2].set_yscale("log")
        row[3].set_yscale("log")
    picture.draw_legend(fig, axes.flat)
    picture.save(fig, path)


# ---- Presets ---------------------------------------------------------------------------------

SMALL: dict[str, Any] = SMALL_C10 | {
    **THIRTY_SECOND,
    "epochs": 100,
    "drops": (80,),
    "seeds": (0, 1, 2),
    "fisher_examples": 512,
    "learning_rate": 0.003,
    "learning_rates": (0.003, 0.01, 0.03),
    "fp": (0.01, 0.03, 0.1, 0.3),
}
PRESETS = {
    "demo": {
        "mlp_digits": AllPenaltiesSetting(
            **WIDE_DIGITS,
            learning_rates=(0.1,),
            slower=30,
            gp_x=(3.0,),
            gp=(0.03,),
            fp=(0.03,),
            gp_r=(0.03,),
        )
    },
    "small": {
        "simple_cnn_c10": AllPenaltiesSetting(
            **SMALL,
            gp_x=(30.0, 100.0, 300.0, 1000.0),
            gp=(0.003, 0.01, 0.03, 0.1, 0.3),
            gp_r=(0.003, 0.01, 0.03, 0.1),
        ),
        # The paper's network, images and learning rates, in a fifth of its epochs.
        f"simple_cnn_c10{ALL_IMAGES}": AllPenaltiesSetting(
            **SECTION_4["simple_cnn_c10"] | THIRTY_SECOND | {"epochs": 60, "drops": (30, 45)},
            methods=("eta_star", "baseline", "fp"),
            learning_rates=(0.0316,),
            fp=(0.01, 0.03, 0.1),
            fisher_examples=512,
        ),
    },
    "paper": {
        "wide_resnet_tiny_imagenet": AllPenaltiesSetting(
            **SECTION_4["wide_resnet_tiny_imagenet"],
            augment="flip_and_crop",
            learning_rates=TINY_IMAGENET_GRID,
            slower=31.6,
            gp_x=tuning.alphas(100.0, num=5),
            gp=TINY_IMAGENET_GRID,
            fp=TINY_IMAGENET_GRID,
            gp_r=TINY_IMAGENET_GRID,
        ),
        **{
            part: AllPenaltiesSetting(**SECTION_4[part])
            for part in ("densenet_c100", "vgg11_c100", "wide_resnet_c100", "simple_cnn_c10")
        },
    },
}
RECIPE = Recipe("suboptimal_lr", __doc__ or "", PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
