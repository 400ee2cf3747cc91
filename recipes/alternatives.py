"""The Fisher penalty beside other methods for wrong labels and for small learning rates.

Trains each setting with cross-entropy, label smoothing, mixup, GCE, ELR, SAM, ASAM, GNP, FP, GP_r,
and with FP together with GCE, ELR or mixup. FP is computed as the setting says and, once more, on a
quarter of each mini-batch at every step, which costs almost as much as SAM. Network, data, noise,
epochs and learning rate are the same for all. In a setting, each method has one hyperparameter with
equally many values to choose from, trained with the first seed; cross-entropy has none. FP together
with another method leaves that method's hyperparameter at its published value.

The value is chosen twice: by clean validation labels, and by validation labels that are as noisy as
the training labels. The other seeds train both. The score is the mean validation accuracy of the
last fifth of the epochs, as all methods are compared at the end of training. Cross-entropy is also
shown at its epoch of best validation accuracy.

Settings with human labels (CIFAR-10N: Wei et al., 2022) need the environment variable CIFAR_N_DIR,
the folder of their files; docs/data_and_networks.md says where to get them. Without it they are
skipped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from experiment.command import main
from experiment.plan.cost import count_step_cost
from experiment.plan.paper import SECTION_4, SECTION_4_1
from experiment.plan.recipe import Finished, Recipe, tune
from experiment.plan.setting import (
    UNIFORM,
    Amount,
    Amounts,
    Annotated,
    Choices,
    Fraction,
    Listing,
    NoiseSource,
    PenaltySetting,
    Range,
    Run,
    get_run,
)
from experiment.plan.small import DIGITS, QUARTER, SMALL_C10, SPLIT_DIGITS, THIRTY_SECOND
from experiment.results import picture, tables
from experiment.results.choice import get_curve
from matplotlib.axes import Axes

from keras_fisher.tuning.alpha_plan import score as average_end

Method = Literal[
    "baseline",
    "smoothing",
    "mixup",
    "gce",
    "elr",
    "sam",
    "asam",
    "gnp",
    "fp",
    "fp_often",
    "gp_r",
    "fp_gce",
    "fp_elr",
    "fp_mixup",
]
Fractions = Annotated[tuple[float, ...], Listing(), Range(0, 1)]


class Way(NamedTuple):
    """How a method trains.

    Attributes:
        title: Its name in tables.
        symbol: The name of its hyperparameter.
        values: The field of a setting that lists values of it.
        sets: The field of a run that a value sets.
        others: Other fields of its runs.
    """

    title: str
    symbol: str = ""
    values: str = ""
    sets: str = ""
    others: Mapping[str, Any] = {}


WAYS: dict[Method, Way] = {
    "baseline": Way("cross-entropy"),
    "smoothing": Way("label smoothing", "smoothing", "smoothing", "label_smoothing"),
    "mixup": Way("mixup", "beta", "mixup", "mixup_beta"),
    "gce": Way("GCE", "q", "gce", "gce_q"),
    "elr": Way("ELR", "lambda", "elr", "elr"),
    "sam": Way("SAM", "rho", "sam", "radius"),
    "asam": Way("ASAM", "rho", "asam", "radius", {"sharpness": "asam"}),
    "gnp": Way("GNP", "r", "gnp", "radius", {"sharpness": "gnp"}),
    "fp": Way("FP", "alpha", "fp", "alpha"),
    "fp_often": Way("FP on a quarter, every step", "alpha", "fp", "alpha", QUARTER),
    "gp_r": Way("GP_r", "alpha", "gp_r", "alpha", {"penalty": "gp_r"}),
    # Published values: q of Zhang & Sabuncu (2018), lambda of Liu et al. (2020) for CIFAR-10, beta
    # of Zhang et al. (2018) for CIFAR.
    "fp_gce": Way("FP with GCE, q 0.7", "alpha", "fp", "alpha", {"gce_q": 0.7}),
    "fp_elr": Way("FP with ELR, lambda 3", "alpha", "fp", "alpha", {"elr": 3.0}),
    "fp_mixup": Way("FP with mixup, beta 1", "alpha", "fp", "alpha", {"mixup_beta": 1.0}),
}
STOPPED = "cross-entropy, stopped early"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlternativesSetting(PenaltySetting):
    """A setting to compare methods in."""

    learning_rate: Amount = 0.01  # learning rate
    noise: Fraction = 0.0  # fraction of labels to replace by uniform draws
    noise_source: NoiseSource = "uniform"  # uniform draws, or people's labels of CIFAR, all of them
    methods: Choices[Method] = tuple(WAYS)  # methods to compare
    smoothing: Fractions = (0.1, 0.2, 0.4, 0.6, 0.8)  # label smoothing
    mixup: Amounts = (0.4, 0.8, 1.6, 3.2, 6.4)  # beta of mixup
    gce: Fractions = (0.3, 0.5, 0.7, 0.8, 0.9)  # q of GCE
    elr: Amounts = (1.0, 3.0, 5.0, 7.0, 10.0)  # lambda of ELR
    sam: Amounts = (0.05, 0.1, 0.2, 0.5, 1.0)  # rho of SAM
    asam: Amounts = (0.5, 1.0, 2.0, 5.0, 10.0)  # rho of ASAM
    gnp: Amounts = (0.05, 0.1, 0.2, 0.5, 1.0)  # r of GNP
    fp: Amounts = (0.03, 0.1, 0.3, 1.0, 3.0)  # alpha of FP, alone and with other methods
    gp_r: Amounts = (0.01, 0.03, 0.1, 0.3, 1.0)  # alpha of GP_r


class Scores(NamedTuple):
    """The validation accuracies by which hyperparameters are chosen."""

    clean: float
    noisy: float


def score(figures: Mapping[str, Any]) -> Scores:
    """Returns the mean accuracy over the last fifth of the epochs, by each kind of labels."""
    history = figures["history"]
    clean = history["val_accuracy"]
    curves = (clean, history.get("noisy_val_accuracy", clean))
    means = (average_end(np.array(curve, float), len(curve)) for curve in curves)
    return Scores(*(float(np.nan_to_num(mean, nan=-1.0)) for mean in means))


def plan(part: str, setting: AlternativesSetting, finished: Finished) -> list[Run]:
    """Plans each method; its hyperparameter is chosen by clean labels, and by noisy ones."""
    noise = setting.noise if setting.noise_source == UNIFORM else 0.0
    runs: dict[str, Run] = {}
    for method in setting.methods:
        way = WAYS[method]
        run = setting.make_run(
            part=part,
            method=method,
            noise=noise,
            noise_source=setting.noise_source,
            measures={"label_accuracies": {}},
            **way.others,
        )
        values = getattr(setting, way.values) if way.values else (0.0,)
        for labels in Scores._fields:
            scores = {name: getattr(found, labels) for name, found in finished.items()}
            planned, _ = tune(run, values, setting.seeds, scores, way.sets)
            runs |= {one.name: one for one in planned}
    return list(runs.values())


# ---- Choices ---------------------------------------------------------------------------------

SETTING = ["part", *tables.NOISE]


def add_figures(runs: pd.DataFrame) -> pd.DataFrame:
    """Adds what tables and figures show of each run."""
    rows = [row for _, row in runs.iterrows()]
    costs = [count_step_cost(get_run(row)) for row in rows]
    scores = [score(row) for row in rows]
    return runs.assign(
        cost=costs,
        clean=[found.clean for found in scores],
        noisy=[found.noisy for found in scores],
        memorised=[get_curve(row, "memorised_accuracy")[-1] for row in rows],
        equal_cost=[read_at_cost(row, cost) for row, cost in zip(rows, costs, strict=True)],
    )


def read_at_cost(run: pd.Series, cost: float) -> float:
    """Returns the test accuracy after as many plain steps as cross-entropy takes in all its epochs.

    At a constant learning rate, a training of fewer epochs is the beginning of a longer one.
    """
    epochs = int(run["epochs"] / cost)
    is_constant = not tuple(run["drops"])
    return get_curve(run, "test_accuracy")[epochs - 1] if is_constant and epochs else np.nan


def choose(runs: pd.DataFrame, labels: str) -> pd.DataFrame:
    """Returns the runs of a setting with the values that were chosen by a kind of labels.

    Only the first seed chooses: the others may have the choices by both kinds of labels.
    """
    values = runs.groupby(["method", "seed"])["value"].transform("nunique")
    is_full = values == values.groupby(runs["method"]).transform("max")
    first = runs["seed"].where(is_full).groupby(runs["method"]).transform("min")
    scores = runs[labels].where(runs["seed"] == first)
    return tables.choose_values(runs.assign(validation_accuracy=scores))


def stop_early(runs: pd.DataFrame, labels: str) -> pd.DataFrame:
    """Returns the runs of cross-entropy with the figures of their best validation epoch."""
    key = {"clean": "val_accuracy", "noisy": "noisy_val_accuracy"}[labels]
    plain = runs[runs["method"] == "baseline"]
    rows = [row for _, row in plain.iterrows()]
    epochs = [int(np.argmax(np.nan_to_num(get_curve(row, key), nan=-1.0))) for row in rows]
    at_best = {
        name: [get_curve(row, curve)[epoch] for row, epoch in zip(rows, epochs, strict=True)]
        for name, curve in (
            ("final_test_accuracy", "test_accuracy"),
            ("equal_cost", "test_accuracy"),
            ("memorised", "memorised_accuracy"),
        )
    }
    return plain.assign(**at_best)


def split_ways(runs: pd.DataFrame, labels: str) -> dict[str, pd.DataFrame]:
    """Returns the chosen runs of each method of a setting, by its title."""
    chosen = choose(runs, labels)
    ways = {way.title: chosen[chosen["method"] == method] for method, way in WAYS.items()}
    plain, *others = ways.items()
    return dict([plain, (STOPPED, stop_early(chosen, labels)), *others])


def is_noisy(noise: float, source: str) -> bool:
    """Whether a setting has wrong labels."""
    return bool(noise) or source != UNIFORM


# ---- Table -----------------------------------------------------------------------------------


def table(runs: pd.DataFrame) -> str:
    """Returns each method's figures, the choice by noisy validation labels, and its cost."""
    runs = add_figures(runs)
    return "\n".join([write_methods(runs), write_noisy_choice(runs), write_regrets(runs)])


def write_methods(runs: pd.DataFrame) -> str:
    """Returns the figures of the methods, chosen by clean validation labels."""
    rows = []
    for (part, *noise), group in runs.groupby(SETTING):
        ways = split_ways(group, "clean")
        fisher = ways[WAYS["fp"].title]
        cells = (
            tables.PercentCell("final_test_accuracy"),
            tables.DifferenceCell("final_test_accuracy", fisher),
            tables.PercentCell("memorised"),
            lambda own: f"{own['cost'].iloc[0]:.2f}",
            tables.PercentCell("equal_cost"),
            tables.DifferenceCell("equal_cost", fisher),
            tables.PercentCell("test_accuracy"),
            tables.DifferenceCell("test_accuracy", fisher),
        )
        rows += [
            [part, tables.write_noise(*noise), title, write_value(own), *(c(own) for c in cells)]
            for title, own in ways.items()
            if not own.empty
        ]
    header = [
        *("setting", "noise", "method", "chosen", "test accuracy at the end, %"),
        *("minus FP, points", "wrong labels memorised, %", "plain steps"),
        *("test accuracy at equal cost, %", "minus FP there, points"),
        *("test accuracy at best validation, %", "minus FP there, points"),
    ]
    note = (
        f"{tables.write_seeds(runs)} {tables.DIFFERENCES_NOTE} Values are chosen by clean "
        "validation labels. Plain steps: the cost of an average step, by counting forward and "
        "backward passes. At equal cost, each method stops after as many plain steps as "
        "cross-entropy takes in all its epochs; the rate must be constant. Best validation is that "
        "of clean labels; values are chosen for the end of training.\n"
    )
    titles = [WAYS[method].title for method in runs["method"]]
    named = runs.assign(method=titles, validation_accuracy=runs["clean"])
    return f"{tables.write_markdown(header, rows)}\n{note}{tables.write_edges(named)}"


def write_value(runs: pd.DataFrame) -> str:
    """Returns the hyperparameter of runs, such as "alpha 0.1"."""
    symbol = WAYS[runs["method"].iloc[0]].symbol
    return f"{symbol} {runs['value'].iloc[0]:g}" if symbol else tables.NOTHING


def write_noisy_choice(runs: pd.DataFrame) -> str:
    """Returns what the methods reach if values are chosen by noisy validation labels."""
    rows = []
    for (part, *noise), group in runs.groupby(SETTING):
        if not is_noisy(*noise):
            continue
        clean, ways = split_ways(group, "clean"), split_ways(group, "noisy")
        fisher = ways[WAYS["fp"].title]
        for title, own in ways.items():
            if not own.empty:
                cells = (
                    tables.PercentCell("final_test_accuracy"),
                    tables.DifferenceCell("final_test_accuracy", fisher),
                    tables.DifferenceCell("final_test_accuracy", clean[title]),
                )
                shown = [part, tables.write_noise(*noise), title, write_value(own)]
                rows.append([*shown, *(cell(own) for cell in cells)])
    header = [
        *("setting", "noise", "method", "chosen by noisy labels"),
        *("test accuracy at the end, %", "minus FP, points", "minus the clean choice, points"),
    ]
    return tables.write_markdown(header, rows)


def write_regrets(runs: pd.DataFrame) -> str:
    """Returns what noisy validation labels cost, on average over settings and methods."""
    lost = [
        measure_regrets(group) for (_, *noise), group in runs.groupby(SETTING) if is_noisy(*noise)
    ]
    every = [{k: v for k, v in points.items() if k != STOPPED} for points in lost]
    rows = [
        ["the epoch of cross-entropy", *summarise([select(points, STOPPED) for points in lost])],
        ["alpha of FP", *summarise([select(points, WAYS["fp"].title) for points in lost])],
        ["the hyperparameters of all methods", *summarise([[*p.values()] for p in every])],
    ]
    header = [
        *("chosen by noisy instead of clean labels", "settings", "mean regret, points"),
        "largest of a method",
    ]
    note = (
        "The regret of a method is averaged over seeds, and the mean is that over settings of the "
        "mean over methods, with the standard error over settings if there are several.\n"
    )
    return f"{tables.write_markdown(header, rows)}\n{note}"


def measure_regrets(runs: pd.DataFrame) -> dict[str, float]:
    """Returns the points that each way loses in a setting by noisy validation labels."""
    clean, noisy = split_ways(runs, "clean"), split_ways(runs, "noisy")
    pairs = {
        title: tables.pair_seeds(clean[title], own, "final_test_accuracy")
        for title, own in noisy.items()
        if title != WAYS["baseline"].title and not own.empty
    }
    return {title: 100 * float(points.mean(skipna=False)) for title, points in pairs.items()}


def select(points: Mapping[str, float], title: str) -> list[float]:
    return [points[title]] if title in points else []


def summarise(settings: list[list[float]]) -> list[str]:
    """Returns the number of settings, their mean with its standard error, and the largest value."""
    known = [points for points in settings if points]
    means = pd.Series([np.mean(points) for points in known], dtype=float)
    largest = f"{max(map(max, known)):.1f}" if known else tables.NOTHING
    return [f"{len(known)}", tables.write_mean(means), largest]


# ---- Figure ----------------------------------------------------------------------------------

CURVES: dict[Method, tuple[str, Any]] = {
    "baseline": ("#000000", ":"),
    "gce": ("#e69f00", "--"),
    "elr": ("#009e73", "-."),
    "sam": ("#0072b2", (0, (5, 1))),
    "fp": ("#d55e00", "-"),
    "fp_often": ("#cc79a7", (0, (1, 1))),
}
MARKERS = {"clean": ("o", "#000000"), "noisy": ("D", "none")}


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Draws a row for each setting: accuracy, memorised labels, and accuracy over cost."""
    groups = add_figures(runs).groupby(SETTING)
    fig, axes = picture.make_panels(len(groups), 3, width=5, height=4.2)
    for row, ((part, *noise), group) in zip(axes, groups, strict=True):
        labels = tuple(MARKERS) if is_noisy(*noise) else ("clean",)
        for kind in labels:
            ways = {k: v for k, v in split_ways(group, kind).items() if not v.empty}
            name = f"chosen by {kind} validation labels"
            draw_dots(row[0], ways, "final_test_accuracy", kind, name)
            draw_dots(row[1], ways, "memorised", kind, name)
        draw_curves(row[2], choose(group, "clean"))
        for axis, title, x in zip(
            row,
            (str(part), "wrong labels memorised", "test accuracy over cost"),
            ("test accuracy at the end, %", "% of wrong labels", "cost, in plain epochs"),
            strict=True,
        ):
            picture.label_axes(axis, title, x)
        row[2].set_ylabel("test accuracy")
        row[1].set_visible(is_noisy(*noise))
    picture.draw_legend(fig, axes.flat)
    picture.save(fig, path)


def draw_dots(
    axis: Axes, ways: Mapping[str, pd.DataFrame], column: str, kind: str, name: str
) -> None:
    """Draws the mean over seeds of each method, with bars of one standard deviation."""
    marker, fill = MARKERS[kind]
    places = np.arange(len(ways)) + (0.15 if kind == "noisy" else -0.15)
    figures = pd.DataFrame(
        [
            100 * own[column].astype(float).agg(["mean", "std"]).fillna({"std": 0})
            for own in ways.values()
        ]
    )
    axis.errorbar(
        figures["mean"],
        places,
        xerr=figures["std"],
        fmt=marker,
        color="#000000",
        mfc=fill,
        ms=5,
        capsize=2,
        lw=1,
        label=name,
    )
    axis.set_yticks(np.arange(len(ways)), list(ways), fontsize=8)
    axis.set_ylim(len(ways) - 0.5, -0.5)


def draw_curves(axis: Axes, chosen: pd.DataFrame) -> None:
    """Draws the test accuracy of some methods over the cost so far."""
    for method, (colour, style) in CURVES.items():
        own = chosen[chosen["method"] == method]
        if own.empty:
            continue
        values = np.array([get_curve(row, "test_accuracy") for _, row in own.iterrows()])
        cost = own["cost"].iloc[0] * np.arange(1, values.shape[1] + 1)
        picture.draw_band(axis, cost, values, colour, WAYS[method].title, style)


# ---- Presets ---------------------------------------------------------------------------------

SMALL_RATE_METHODS: tuple[Method, ...] = ("baseline", "sam", "gnp", "fp")
NOISY_DIGITS: dict[str, Any] = SPLIT_DIGITS | {"noise": 0.5}
# Shifted once, until the best validation accuracy of the first seed lay inside most of them.
DIGITS_VALUES: dict[str, Any] = {
    "smoothing": (0.4, 0.6, 0.8, 0.9, 0.95),
    "mixup": (1.6, 3.2, 6.4, 12.8, 25.6),
    "gce": (0.5, 0.7, 0.8, 0.9, 0.95),
    "sam": (0.2, 0.3, 0.5, 0.7, 1.0),
    "asam": (1.0, 2.0, 3.0, 5.0, 10.0),
    "gnp": (0.2, 0.3, 0.5, 0.7, 1.0),
    "fp": (0.03, 0.1, 0.2, 0.4, 0.8),
    "gp_r": (0.01, 0.03, 0.1, 0.2, 0.4),
}
SMALL_C10_TASK: dict[str, Any] = (
    SMALL_C10 | THIRTY_SECOND | {"validation_size": 2000, "test_size": 5000, "seeds": (0, 1, 2)}
)
# SAM was shifted once: with human labels, 0.1 is best and 0.3 and 1 do not train.
C10_VALUES: dict[str, Any] = {
    "smoothing": (0.2, 0.5, 0.8),
    "mixup": (1.6, 6.4, 25.6),
    "gce": (0.5, 0.7, 0.9),
    "elr": (1.0, 3.0, 7.0),
    "sam": (0.03, 0.1, 0.3),
    "asam": (0.5, 2.0, 8.0),
    "gnp": (0.03, 0.1, 0.3),
    "fp": (0.03, 0.1, 0.3),
    "gp_r": (0.01, 0.03, 0.1),
}
# With 50% noise and without a penalty, nine of ten wrong labels are memorised by then.
NOISY_C10 = SMALL_C10_TASK | C10_VALUES | {"num_train": 9984, "epochs": 30}
# The methods that are trained at every noise.
MAIN_METHODS: tuple[Method, ...] = ("baseline", "mixup", "gce", "elr", "sam", "fp", "fp_often")
PRESETS = {
    "demo": {
        "mlp_digits_noise50": AlternativesSetting(
            **NOISY_DIGITS,
            smoothing=(0.6,),
            mixup=(3.2,),
            gce=(0.8,),
            elr=(5.0,),
            sam=(0.5,),
            asam=(5.0,),
            gnp=(0.5,),
            fp=(0.3,),
            gp_r=(0.1,),
        )
    },
    "small": {
        "mlp_digits_noise50": AlternativesSetting(
            **NOISY_DIGITS, **DIGITS_VALUES, seeds=(0, 1, 2, 3, 4)
        ),
        "mlp_digits_small_rate": AlternativesSetting(
            **DIGITS,
            learning_rate=0.001,
            epochs=100,
            steps_per_execution=13,
            seeds=(0, 1, 2, 3, 4),
            methods=SMALL_RATE_METHODS,
        ),
        "simple_cnn_c10_worse": AlternativesSetting(**NOISY_C10, noise_source="worse"),
        "simple_cnn_c10_noise50": AlternativesSetting(**NOISY_C10, noise=0.5),
        "simple_cnn_c10_random1": AlternativesSetting(
            **NOISY_C10, noise_source="random1", methods=MAIN_METHODS
        ),
        "simple_cnn_c10_aggregate": AlternativesSetting(
            **NOISY_C10, noise_source="aggregate", methods=MAIN_METHODS
        ),
        "simple_cnn_c10_noise20": AlternativesSetting(**NOISY_C10, noise=0.2, methods=MAIN_METHODS),
        "simple_cnn_c10_small_rate": AlternativesSetting(
            **SMALL_C10_TASK | C10_VALUES,
            learning_rate=0.003,
            epochs=100,
            methods=SMALL_RATE_METHODS,
        ),
    },
    "paper": {
        "vgg11_c100_noise25": AlternativesSetting(
            **SECTION_4_1["vgg11_c100"], noise=0.25, seeds=(0, 1, 2)
        ),
        "vgg11_c100_noise50": AlternativesSetting(
            **SECTION_4_1["vgg11_c100"], noise=0.5, seeds=(0, 1, 2)
        ),
        "simple_cnn_c10_small_rate": AlternativesSetting(
            **SECTION_4["simple_cnn_c10"],
            learning_rate=0.001,
            methods=SMALL_RATE_METHODS,
            seeds=(0, 1, 2),
        ),
    },
}
RECIPE = Recipe(
    *("alternatives", __doc__ or "", PRESETS, plan, table, figure),
    score=score,
    unfinished=Scores(0.0, 0.0),
)

if __name__ == "__main__":
    main(RECIPE)
