"""Choosing alpha: the accuracy that ways to choose it lose, and the training runs that they take.

Trains each setting with ten alphas, whose best is the yardstick, and without a penalty. All ways to
choose are computed from these runs: a search that drops alphas early sees of them what its
budget pays for. Appendix G.2 trains all ten to the end.

Alphas are also trained with `max_penalty_ratio`, the guard against an alpha that is far too large.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from experiment.command import main
from experiment.plan.paper import SECTION_4, SECTION_4_1
from experiment.plan.recipe import Finished, Recipe
from experiment.plan.setting import Fraction, PenaltySetting, Positive, Positives, Run
from experiment.plan.small import QUARTER, SMALL_C10, SPLIT_DIGITS, THIRTY_SECOND
from experiment.results import picture, tables
from experiment.results.choice import FIND_ALPHA, WAYS, Case, Way, get_curve
from matplotlib.axes import Axes

from keras_fisher.training.health import DOMINANT, UNTRAINED
from keras_fisher.tuning.alpha_plan import score

ALPHAS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlphaSetting(PenaltySetting):
    """A setting to choose alpha for."""

    noise: Fraction = 0.0  # fraction of labels to replace by uniform draws
    alphas: Positives = ALPHAS  # alphas to choose from
    limited: Positives = (0.03, 0.3, 3.0, 10.0)  # alphas to train with max_penalty_ratio, too
    max_penalty_ratio: Positive = 0.7  # the largest ratio of gradients in these runs


def plan(part: str, setting: AlphaSetting, finished: Finished) -> list[Run]:
    """Plans the plain run, those with all alphas, and those with a limit, seed by seed."""
    measures: dict[str, dict[str, Any]] = {"penalty_ratio": {}, "fisher_trace": {}}
    if setting.noise:
        measures["noisy_val_accuracy"] = {}
    shared = {"part": part, "noise": setting.noise}
    runs = []
    for seed in setting.seeds:
        plain = measures | {"proposed_alpha": {}}
        runs.append(setting.make_run(**shared, method="baseline", seed=seed, measures=plain))
        groups = {
            "fp": (setting.alphas, 0.0),
            "limited": (setting.limited, setting.max_penalty_ratio),
        }
        runs += [
            setting.make_run(
                **shared,
                method=method,
                seed=seed,
                value=alpha,
                alpha=alpha,
                max_penalty_ratio=limit,
                measures=measures,
            )
            for method, (alphas, limit) in groups.items()
            for alpha in alphas
        ]
    return runs


# ---- Tables and figure -----------------------------------------------------------------------

KEYS = {"clean": "val_accuracy", "noisy": "noisy_val_accuracy"}  # validation labels
PREDICTORS = {
    "validation accuracy": lambda run, epochs: score(
        get_curve(run, "val_accuracy")[:epochs], epochs
    ),
    "its slope": lambda run, epochs: extrapolate(get_curve(run, "val_accuracy")[:epochs]),
    "training minus validation accuracy": lambda run, epochs: (
        -score((get_curve(run, "accuracy") - get_curve(run, "val_accuracy"))[:epochs], epochs)
    ),
    "Tr(F)": lambda run, epochs: -score(get_curve(run, "fisher_trace")[:epochs], epochs),
}
FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 2 / 3)  # of the epochs, at which alphas are ranked


def list_cases(runs: pd.DataFrame, key: str) -> dict[str, list[Case]]:
    """Returns the complete cases of each setting, if their logs have this accuracy."""
    alphas, limited_alphas = (
        runs[runs["method"] == method]["value"].nunique() for method in ("fp", "limited")
    )
    cases: dict[str, list[Case]] = {}
    for (part, _), group in runs.groupby(["part", "seed"]):
        plain, penalised, limited = (
            {run["value"]: run for _, run in group[group["method"] == method].iterrows()}
            for method in ("baseline", "fp", "limited")
        )
        has_all = (len(penalised), len(limited)) == (alphas, limited_alphas)
        is_complete = plain and penalised and limited and has_all
        if is_complete and key in plain[0.0]["history"]:
            cases.setdefault(str(part), []).append(Case(plain[0.0], penalised, limited, key))
    return cases


def table(runs: pd.DataFrame) -> str:
    """Returns the regret of each way, the accuracies of each setting, and what predicts the end."""
    return "\n".join(
        [write_regrets(runs), write_settings(runs), write_predictors(runs), write_guard(runs)]
    )


def write_regrets(runs: pd.DataFrame) -> str:
    cases = {name: list_cases(runs, key) for name, key in KEYS.items()}
    rows = []
    for title, way in WAYS.items():
        row = [name_way(title, runs)]
        for name, of_parts in cases.items():
            regrets = {part: average_regret(way, some) for part, some in of_parts.items()}
            values = pd.Series(regrets, dtype=float).dropna()
            worst = values.idxmax() if len(values) else ""
            row += [
                tables.write_mean(values),
                f"{values.max():.1f} ({worst})" if worst else tables.NOTHING,
            ]
            if name == "clean":
                costs = [way(case).cost for some in of_parts.values() for case in some]
                row.insert(1, f"{np.mean(costs):.1f}" if costs else tables.NOTHING)
        rows.append(row)
    header = ["way to choose alpha", "training runs"]
    for name in KEYS:
        header += [f"regret, {name} validation labels", "worst setting"]
    seeds = sorted({len(some) for some in cases["clean"].values()})
    note = (
        "Regret: test accuracy at the end, in points below the best of all alphas with the same "
        "seed; the mean over settings, with its standard error. The columns of noisy validation "
        "labels cover only the settings with noise. Trainings are counted in epochs. An alpha that "
        "was not trained is replaced by the nearest one. The rule rate / (1 - momentum) / 4 is "
        "that of SGD: its row leaves out settings with another optimizer. "
        f"Settings: {len(cases['clean'])}. Seeds of a setting: {' to '.join(map(str, seeds))}.\n"
    )
    return f"{tables.write_markdown(header, rows)}\n{note}"


def name_way(title: str, runs: pd.DataFrame) -> str:
    """Returns the title of a way with the alphas and the limit of the runs."""
    limited = runs[runs["method"] == "limited"]
    return title.format(
        count=runs[runs["method"] == "fp"]["value"].nunique(),
        largest=limited["value"].max(),
        limit=limited["max_penalty_ratio"].max(),
    )


def average_regret(way: Way, cases: Sequence[Case]) -> float:
    """Returns the mean regret over the seeds of a setting, in points."""
    return 100 * float(np.mean([case.best - way(case).accuracy for case in cases]))


def write_settings(runs: pd.DataFrame) -> str:
    """Returns the accuracies of each setting."""
    complete = list_cases(runs, KEYS["clean"])
    rows = []
    for part, own in runs.groupby("part"):
        plain, best = own[own["method"] == "baseline"], choose_best(own[own["method"] == "fp"])
        cases = complete.get(str(part), [])
        middles = sorted(case.get_middle() for case in cases)
        regret = average_regret(WAYS[FIND_ALPHA], cases) if cases else None
        rows.append(
            [
                str(part),
                tables.PercentCell("final_test_accuracy")(plain),
                tables.PercentCell("test_accuracy")(plain),
                tables.PercentCell("final_test_accuracy")(best),
                tables.DifferenceCell("final_test_accuracy", plain)(best),
                f"{best['value'].iloc[0]:g}" if len(best) else tables.NOTHING,
                " ".join(f"{middle:.2g}" for middle in middles) or tables.NOTHING,
                tables.NOTHING if regret is None else f"{regret:.1f}",
            ]
        )
    header = [
        *("setting", "plain", "plain, best validation epoch", "best alpha's", "minus plain"),
        *("best alpha", "middle of `alpha_range`", "regret of `find_alpha`"),
    ]
    note = (
        f"Test accuracy in percent, at the end unless stated otherwise. {tables.write_seeds(runs)} "
        "The best alpha is the one of best mean test accuracy, a yardstick and not a choice that a "
        "user could make.\n"
    )
    return f"{tables.write_markdown(header, rows)}\n{note}"


def choose_best(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the runs with the alpha of best mean test accuracy."""
    means = runs.groupby("value")["final_test_accuracy"].mean()
    return runs[runs["value"] == means.idxmax()] if means.notna().any() else runs.iloc[:0]


def write_predictors(runs: pd.DataFrame) -> str:
    """Returns the rank correlations between figures at a part of the training and its end."""
    cases = [case for some in list_cases(runs, KEYS["clean"]).values() for case in some]
    rows = []
    for title, predict in PREDICTORS.items():
        row = [title]
        for fraction in FRACTIONS:
            found = [
                tables.correlate(
                    [
                        predict(run, max(1, round(fraction * case.epochs)))
                        for run in case.penalised.values()
                    ],
                    [run["final_test_accuracy"] for run in case.penalised.values()],
                    "spearman",
                )
                for case in cases
            ]
            known = [value for value in found if not np.isnan(value)]
            row.append(f"{np.mean(known):.2f}" if known else tables.NOTHING)
        rows.append(row)
    header = ["ranked by", *(f"after {fraction:.0%}" for fraction in FRACTIONS)]
    note = (
        "Spearman's rank correlation with the test accuracy at the end, over the alphas of a "
        "setting and seed; the mean over these. Tr(F) and the gap count as better when smaller.\n"
    )
    return f"{tables.write_markdown(header, rows)}\n{note}"


def extrapolate(values: np.ndarray) -> float:
    """Returns the mean of the second half plus its rise since the first half."""
    first, second = values[: len(values) // 2], values[len(values) // 2 :]
    return float(2 * second.mean() - first.mean()) if len(first) else float(second.mean())


def write_guard(runs: pd.DataFrame) -> str:
    """Returns the effect of the warning and the limit, by the regret of alpha."""
    found = pd.DataFrame(
        [
            [part, *judged]
            for part, cases in list_cases(runs, KEYS["clean"]).items()
            for case in cases
            for judged in judge_alphas(case)
        ],
        columns=["part", "lost", "is_dominated", "gained"],
    )
    rows = []
    for name in LOSSES:
        own = found[found["lost"] == name]
        warned = f"{own['is_dominated'].mean():.0%}" if len(own) else tables.NOTHING
        gained = own[own["gained"].notna()].groupby("part")["gained"].mean()
        rows.append([name, f"{len(own)}", warned, tables.write_mean(gained, sign="+")])
    gain = name_way("gain by `max_penalty_ratio={limit:g}`", runs)
    header = ["test accuracy", "runs", "the penalty dominates before the model has learnt", gain]
    note = (
        "Points below the best alpha of the same setting and seed. The penalty dominates where the "
        f"mean ratio of gradients in an epoch is above {DOMINANT:g}, and the loss above "
        f"{UNTRAINED:.0%} of that of the first epoch; `fit` warns by the same rule, but at single "
        "steps. The gain, in points, is over the runs that were repeated with the limit: the mean "
        "over settings, with its standard error.\n"
    )
    return f"{tables.write_markdown(header, rows)}\n{note}"


def judge_alphas(case: Case) -> list[tuple[str, bool, float]]:
    """Returns each alpha's loss of accuracy, whether it dominates, and what the limit gains."""
    best = max(case.penalised, key=lambda a: case.penalised[a]["final_test_accuracy"])
    judged = []
    for alpha, run in case.penalised.items():
        accuracy, limited = run["final_test_accuracy"], case.limited.get(alpha)
        gained = np.nan if limited is None else 100 * (limited["final_test_accuracy"] - accuracy)
        lost = name_loss(alpha > best, 100 * (case.best - accuracy))
        judged.append((lost, is_dominated(run), gained))
    return judged


LOSSES = (
    "within 1 point",
    "1 to 5 points below, alpha larger than the best",
    "more than 5 points below, alpha larger than the best",
    "more than 1 point below, alpha smaller than the best",
)


def name_loss(is_larger: bool, points: float) -> str:
    if points <= 1:
        return LOSSES[0]
    return LOSSES[1 + (points > 5)] if is_larger else LOSSES[3]


def is_dominated(run: pd.Series) -> bool:
    """Whether the penalty dominates in an epoch before the model has learnt."""
    loss, ratio = get_curve(run, "loss"), get_curve(run, "penalty_ratio")
    return bool(((ratio > DOMINANT) & (loss >= UNTRAINED * loss[0])).any())


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Draws the test accuracy over alpha, with the range that `alpha_range` proposes."""
    complete, parts = list_cases(runs, KEYS["clean"]), runs.groupby("part")
    columns = min(3, len(parts))
    fig, axes = picture.make_panels(-(-len(parts) // columns), columns)
    for axis, (part, own) in zip(axes.flat, parts, strict=False):
        for method, style in {"fp": "-", "limited": ":"}.items():
            draw_alphas(axis, own[own["method"] == method], style)
        plain = 100 * own[own["method"] == "baseline"]["final_test_accuracy"].mean()
        axis.axhline(plain, color=picture.COLOURS["baseline"], ls="--", label="no penalty")
        if cases := complete.get(str(part)):
            middle = np.exp(np.mean([np.log(case.get_middle()) for case in cases]))
            axis.axvspan(middle / 10, 10 * middle, color="#009e73", alpha=0.1, label="alpha_range")
        axis.set_xscale("log")
        picture.label_axes(axis, str(part), "alpha", "test accuracy at the end, %")
    for axis in axes.flat[len(parts) :]:
        axis.set_visible(False)
    picture.draw_legend(fig, axes.flat)
    picture.save(fig, path)


NAMES = {"fp": "FP", "limited": "FP, max_penalty_ratio={limit:g}"}


def draw_alphas(axis: Axes, runs: pd.DataFrame, style: str) -> None:
    """Draws the mean accuracy over alpha, with bars of one standard deviation."""
    if runs.empty:
        return
    method = runs["method"].iloc[0]
    accuracy = 100 * runs.groupby("value")["final_test_accuracy"].agg(["mean", "std"]).fillna(0)
    colour = picture.COLOURS["fp" if method == "fp" else "gp_r"]
    axis.errorbar(
        accuracy.index,
        accuracy["mean"],
        yerr=accuracy["std"],
        color=colour,
        ls=style,
        marker="o",
        ms=4,
        label=name_way(NAMES[method], runs),
    )


# ---- Presets ---------------------------------------------------------------------------------

SEEDS: dict[str, Any] = {"seeds": (0, 1, 2)}
SMALL_DIGITS: dict[str, Any] = SPLIT_DIGITS | QUARTER | SEEDS | {"fisher_examples": 512}
SMALL_CIFAR: dict[str, Any] = (
    SMALL_C10 | THIRTY_SECOND | SEEDS | {"validation_size": 2000, "fisher_examples": 512}
)
SMALL = {
    **{
        f"{network}_digits{f'_noise{100 * noise:.0f}' * (noise > 0)}": AlphaSetting(
            **SMALL_DIGITS | {"network": network}, noise=noise
        )
        for network in ("mlp", "resnet8_bn")
        for noise in (0.0, 0.5)
    },
    "bert_sentences_noise40": AlphaSetting(
        **QUARTER | SEEDS,
        network="bert",
        dataset="sentences",
        num_train=1184,
        validation_size=300,
        batch_size=32,
        optimizer="adam",
        learning_rate=0.001,
        drops=(),
        noise=0.4,
        epochs=20,
        fisher_examples=128,
    ),
    "simple_cnn_c10": AlphaSetting(**SMALL_CIFAR, learning_rate=0.003, epochs=50),
    "simple_cnn_c10_large_batch": AlphaSetting(
        **SMALL_CIFAR | {"batch_size": 1248, "penalty_batch_size": 128},
        learning_rate=0.01,
        epochs=100,
    ),
    "simple_cnn_c10_noise50": AlphaSetting(
        **SMALL_CIFAR | {"num_train": 9984}, learning_rate=0.01, noise=0.5, epochs=40
    ),
    "simple_cnn_c100_noise50": AlphaSetting(
        **SMALL_CIFAR | {"num_train": 9984, "dataset": "cifar100"},
        learning_rate=0.01,
        noise=0.5,
        epochs=40,
    ),
}
PRESETS = {
    "demo": {
        "mlp_digits_noise50": dataclasses.replace(
            SMALL["mlp_digits_noise50"], alphas=(0.001, 0.01, 0.1, 1.0, 10.0), seeds=(0,)
        )
    },
    "small": SMALL,
    "paper": {
        "simple_cnn_c10": AlphaSetting(
            **SECTION_4["simple_cnn_c10"] | SEEDS, learning_rate=0.001, fisher_examples=512
        ),
        "vgg11_c100_noise50": AlphaSetting(
            **SECTION_4_1["vgg11_c100"] | SEEDS, learning_rate=0.01, noise=0.5, fisher_examples=512
        ),
    },
}
RECIPE = Recipe("choosing_alpha", __doc__ or "", PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
