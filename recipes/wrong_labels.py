"""Finding wrong labels: from predictions during training, and by cross-validation.

Trains on wrong labels, without and with the Fisher penalty, and measures how well the scores of
`kf.callbacks.LabelScores` find the wrong ones. It also trains on all parts but one, in turn,
for the predictions that confident learning needs (cleanlab; Northcutt et al., 2021).

Section 4.1 of the paper shows that the penalty keeps a network from memorising wrong labels, and
that the gradients of clean and wrong labels differ. It does not look for the wrong ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from experiment.command import main
from experiment.plan.cost import EVALUATION, FISHER, cost_penalty
from experiment.plan.paper import SECTION_4_1
from experiment.plan.recipe import Finished, Recipe
from experiment.plan.setting import Amount, Fraction, NoiseSource, PenaltySetting, Range, Run
from experiment.plan.small import SMALL_C10, THIRTY_SECOND, WHOLE_DIGITS
from experiment.results import picture, tables
from experiment.run.label_figures import FIGURES

FOLD = "fold_"  # begins the names of the methods that are the parts of the cross-validation
SCORES_COST = 6 * EVALUATION  # of six measurements, in epochs


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSetting(PenaltySetting):
    """A setting with wrong labels to find."""

    noise: Fraction = 0.0  # fraction of labels to replace by uniform draws
    noise_source: NoiseSource = "uniform"  # uniform draws, or people's labels of CIFAR, all of them
    alpha: Amount = 0.3  # alpha of the penalty
    max_penalty_ratio: Amount = 0.7  # the largest ratio of the penalty's gradient to the loss's
    folds: Annotated[int, Range(2)] = 5  # parts of the training examples, for cross-validation


def plan(part: str, setting: LabelSetting, finished: Finished) -> list[Run]:
    """Plans, for each seed, a run with and one without the penalty, and the cross-validation."""
    runs = []
    for seed in setting.seeds:
        shared = {
            "part": part,
            "noise": setting.noise,
            "noise_source": setting.noise_source,
            "seed": seed,
        }
        scored = shared | {"measures": {"label_scores": {}}}
        runs.append(setting.make_run(**scored, method="baseline"))
        penalty = {"alpha": setting.alpha, "max_penalty_ratio": setting.max_penalty_ratio}
        runs.append(setting.make_run(**scored, **penalty, method="fp", value=setting.alpha))
        runs += [
            setting.make_run(
                **shared,
                method=f"{FOLD}{fold}",
                folds=setting.folds,
                fold=fold,
                steps_per_execution=1,  # an epoch has fewer steps than one of the whole data
                measures={"held_out_labels": {}},
            )
            for fold in range(1, setting.folds + 1)
        ]
    return runs


# ---- Table and figure ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to find wrong labels.

    Attributes:
        title: Its name in the table.
        trained: The beginning of the names of its methods; figures are averaged over them.
        keys: The keys of its figures in the logs, in the order of `FIGURES`.
        cost: A function from a run to its cost on top of one plain training, in plain epochs.
        is_at_best: Whether it is judged at the epoch of best validation accuracy, not at the end.
    """

    title: str
    trained: str
    keys: tuple[str, ...]
    cost: Callable[[Any], float]
    is_at_best: bool = False

    def measure(self, runs: pd.DataFrame) -> pd.DataFrame:
        """Returns the figures, a row for each seed."""
        runs = runs[runs["method"].str.startswith(self.trained)]
        rows = []
        for history in runs["history"]:
            curves = pd.DataFrame({key: history[key] for key in self.keys}, dtype=float)
            best = np.argmax(history["val_accuracy"])
            rows.append(curves.iloc[best if self.is_at_best else -1])
        seeds = pd.DataFrame(rows).groupby(runs["seed"].to_numpy())
        return seeds.agg(lambda figures: figures.mean(skipna=False))


def cost_training(run: Any) -> float:
    """Returns the cost of a penalised training on top of a plain one, in plain epochs."""
    return cost_penalty(run) * run.epochs if run.alpha else 0.0


def cost_folds(run: Any) -> float:
    return (run.folds - 1) * run.epochs


WAYS = (
    Way("FP, scores", "fp", FIGURES, lambda run: SCORES_COST + cost_training(run)),
    Way("no penalty, scores", "baseline", FIGURES, lambda run: SCORES_COST),
    Way("FP, loss at the end", "fp", ("loss_auroc",), lambda run: EVALUATION + cost_training(run)),
    Way("no penalty, loss at the end", "baseline", ("loss_auroc",), lambda run: EVALUATION),
    Way(
        "FP, gradient norm at the end",
        "fp",
        ("norm_auroc",),
        lambda run: FISHER + cost_training(run),
    ),
    Way("no penalty, gradient norm at the end", "baseline", ("norm_auroc",), lambda run: FISHER),
    Way("cleanlab, at the end", FOLD, FIGURES, cost_folds),
    Way("cleanlab, at best validation", FOLD, FIGURES, cost_folds, is_at_best=True),
)
HEADER = (
    *("noise", "network", "way", "AUROC", "precision at the number of wrong labels"),
    *("precision of the cut", "recall of the cut", "further epochs"),
)


def table(runs: pd.DataFrame) -> str:
    """Returns how well each way finds wrong labels, and what it costs."""
    rows = []
    for (*noise, part), group in runs.groupby([*tables.NOISE, "part"]):
        for way in WAYS:
            trained = group[group["method"].str.startswith(way.trained)]
            if trained.empty:
                continue
            found = way.measure(group)
            figures = [tables.PercentCell(key)(found) for key in way.keys]
            figures += [tables.NOTHING] * (len(FIGURES) - len(figures))
            cost = f"{way.cost(trained.iloc[0]):.1f}"
            rows.append([tables.write_noise(*noise), part, way.title, *figures, cost])
    note = (
        "AUROC: the probability that a wrong label is ranked before a correct one. The next column "
        "is the precision of the first labels of the ranking, as many as are wrong. The cut is the "
        "set of labels that the way calls wrong, without a precision where it is empty for a seed. "
        "Further epochs are those on top of one training, "
        "in plain epochs. cleanlab is judged within each part that is held out, with its "
        "defaults.\n"
    )
    return f"{tables.write_markdown(HEADER, rows)}\nPercent. {tables.write_seeds(runs)} {note}"


AUROC = "label_auroc"
CURVES = (
    ("fp", "FP, scores so far", picture.COLOURS["fp"], "-"),
    ("baseline", "no penalty, scores so far", picture.COLOURS["baseline"], ":"),
    (FOLD, "cleanlab, predictions of the epoch", picture.COLOURS["gp_r"], "--"),
)


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Draws how well the labels are ranked after each epoch, a panel for each setting."""
    groups = runs.groupby("part")
    fig, axes = picture.make_panels(1, len(groups))
    for axis, (part, group) in zip(axes.flat, groups, strict=True):
        for method, name, colour, style in CURVES:
            trained = average_folds(group[group["method"].str.startswith(method)])
            picture.draw_curve(axis, trained, AUROC, colour, name, style)
        picture.label_axes(axis, str(part), y="AUROC")
    picture.draw_legend(fig, axes.flat)
    picture.save(fig, path)


def average_folds(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the mean curve over the runs of each seed."""
    seeds = [own for _, own in runs.groupby("seed")]
    curves = [picture.get_histories(own, AUROC).mean(axis=0) for own in seeds]
    return pd.DataFrame({"history": [{AUROC: curve} for curve in curves]})


# ---- Presets ---------------------------------------------------------------------------------

SMALL_DIGITS: dict[str, Any] = WHOLE_DIGITS | {"steps_per_execution": 34, "seeds": (0, 1, 2)}
SMALL_CIFAR: dict[str, Any] = (
    SMALL_C10
    | THIRTY_SECOND
    | {"validation_size": 2000, "learning_rate": 0.01, "epochs": 50, "seeds": (0, 1, 2)}
)
PRESETS = {
    "demo": {
        "mlp_digits": LabelSetting(**SMALL_DIGITS | {"seeds": (0,)}, noise=0.5, folds=2),
    },
    "small": {
        **{
            f"mlp_digits_noise{100 * noise:.0f}": LabelSetting(**SMALL_DIGITS, noise=noise)
            for noise in (0.2, 0.5)
        },
        **{
            f"simple_cnn_c10_noise{100 * noise:.0f}": LabelSetting(**SMALL_CIFAR, noise=noise)
            for noise in (0.2, 0.5)
        },
        "simple_cnn_c10_worse": LabelSetting(**SMALL_CIFAR, noise_source="worse"),
    },
    "paper": {
        f"vgg11_c100_noise{100 * noise:.0f}": LabelSetting(
            **SECTION_4_1["vgg11_c100"] | {"seeds": (0, 1, 2)}, learning_rate=0.01, noise=noise
        )
        for noise in (0.25, 0.5)
    },
}
RECIPE = Recipe("wrong_labels", __doc__ or "", PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
