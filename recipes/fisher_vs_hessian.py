"""Appendix F: Tr(F) and Tr(H) rise and fall together during training.

Figure 18: tracks Tr(H), the trace of the Hessian, and Tr(F^B), the squared norm of the mini-batch
gradient, for DenseNet, ResNet-56 and SimpleCNN. The figure labels Tr(F^B) as Tr(F). Tr(F) itself is
an addition: it is close to Tr(H), while Tr(F^B) is smaller by a factor of about the mini-batch
size.

The paper states no settings here. The paper preset uses those of section 4 for DenseNet and
SimpleCNN, and those of section 3 on CIFAR-10 for ResNet-56, with learning rates of 0.1, 0.0316 and
0.02, and measures on 1280 training examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from experiment.command import main
from experiment.plan.paper import SECTION_3, SECTION_4
from experiment.plan.recipe import Finished, Recipe
from experiment.plan.setting import Count, Run, Setting
from experiment.plan.small import SMALL_C10, WIDE_DIGITS
from experiment.results import picture, tables
from experiment.results.curvature import HESSIAN

COLOURS = {
    HESSIAN: "#333333",
    "fisher_trace": "#c51b1b",
    "minibatch_fisher_trace": "#1b6fb5",
}
FISHER = tuple(COLOURS)[1:]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traces(Setting):
    """A network of figure 18."""

    num_probes: Count = 30  # probes to estimate Tr(H) from


def plan(part: str, setting: Traces, finished: Finished) -> list[Run]:
    """Plans an independent run for each seed; all traces are measured on the same examples."""
    measures: dict[str, dict[str, Any]] = {
        "fisher_trace": {},
        "minibatch_fisher_trace": {},
        HESSIAN: {"num_probes": setting.num_probes},
    }
    return [
        setting.make_run(part=part, method="baseline", seed=seed, measures=measures)
        for seed in setting.seeds
    ]


# ---- Table and figure ------------------------------------------------------------------------


CELLS = {
    "Pearson, of logarithms": tables.MeanCell("pearson", digits=2),
    "Spearman": tables.MeanCell("spearman", digits=2),
    "median ratio to Tr(H)": tables.MeanCell("ratio", digits=3),
    "epochs with Tr(H) at most 0": tables.MeanCell("negative", digits=1),
}


def table(runs: pd.DataFrame) -> str:
    """Returns how Tr(F) and Tr(F^B) relate to Tr(H) over the epochs."""
    rows = [
        [part, name, *tables.fill_cells(compare_with_hessian(group, key), CELLS)]
        for part, group in runs.groupby("part")
        for key, name in zip(FISHER, ("Tr(F)", "Tr(F^B)"), strict=True)
    ]
    note = (
        "Correlations with Tr(H) over the epochs at whose end Tr(H) is above 0. The paper prints "
        "no coefficient: it finds Tr(F^B) smaller than Tr(H) and extremely well correlated.\n"
    )
    header = ["setting", "trace", *CELLS]
    return f"{tables.write_markdown(header, rows)}\n{tables.write_seeds(runs)} {note}"


def compare_with_hessian(runs: pd.DataFrame, key: str) -> pd.DataFrame:
    """Adds the comparison of a trace with Tr(H) to runs."""

    def compute(figure: Callable[[np.ndarray, np.ndarray], float]) -> pd.Series:
        return runs["history"].map(lambda history: figure(*get_positive(history, key)))

    return runs.assign(
        pearson=compute(tables.correlate_logarithms),
        spearman=compute(lambda trace, hessian: tables.correlate(trace, hessian, "spearman")),
        ratio=compute(lambda trace, hessian: float(np.median(trace / hessian))),
        negative=runs["history"].map(
            lambda history: int(np.sum(np.array(history[HESSIAN], float) <= 0))
        ),
    )


def get_positive(history: dict[str, Any], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns a trace and Tr(H), at the epochs where Tr(H) is above 0."""
    trace, hessian = (np.array(history[name], float) for name in (key, HESSIAN))
    return trace[hessian > 0], hessian[hessian > 0]


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Draws figure 18, a row for each network: the traces over epochs, and against Tr(H)."""
    parts = runs.groupby("part")
    fig, axes = picture.make_panels(len(parts), 2, width=5.5)
    for (curves, scatter), (part, group) in zip(axes, parts, strict=True):
        for key, colour in COLOURS.items():
            picture.draw_curve(curves, group, key, colour, picture.LABELS[key])
        for key in FISHER:
            pairs = (picture.get_histories(group, name).T for name in (HESSIAN, key))
            scatter.plot(*pairs, "o", ms=3, color=COLOURS[key], label=picture.LABELS[key])
        is_positive = picture.get_histories(group, HESSIAN).min() > 0
        scale = "log" if is_positive else "symlog"
        curves.set_yscale(scale)
        scatter.set_xscale(scale)
        scatter.xaxis.set_minor_formatter("")  # minor labels would overlap
        scatter.set_yscale("log")
        limits = scatter.get_xlim()
        scatter.plot(limits, limits, color="#333333", ls=":", lw=1, label="equal to Tr(H)")
        picture.label_axes(curves, part, y="trace")
        picture.label_axes(scatter, f"{part}, all epochs", x="Tr(H)", y="trace")
    picture.draw_legend(fig, axes.flat)
    picture.save(fig, path)


# ---- Presets ---------------------------------------------------------------------------------

PRESETS = {
    "demo": {
        "mlp_digits": Traces(
            **WIDE_DIGITS,
            learning_rate=0.01,
            fisher_examples=320,
        )
    },
    "small": {
        # No DenseNet: its epochs take over a minute each on two cores.
        "resnet8_c10": Traces(
            **SMALL_C10 | {"network": "resnet8", "width": 0},
            epochs=100,
            seeds=(0, 1, 2),
            learning_rate=0.02,
            fisher_examples=256,
            num_probes=10,
        ),
        "simple_cnn_c10": Traces(
            **SMALL_C10,
            epochs=100,
            seeds=(0, 1, 2),
            learning_rate=0.03,
            fisher_examples=256,
        ),
    },
    "paper": {
        "densenet_c100": Traces(
            **SECTION_4["densenet_c100"], learning_rate=0.1, fisher_examples=1280
        ),
        "resnet56_c10": Traces(
            **SECTION_3["cifar10"] | {"network": "resnet56", "fisher_examples": 1280},
            learning_rate=0.02,
        ),
        "simple_cnn_c10": Traces(
            **SECTION_4["simple_cnn_c10"], learning_rate=0.0316, fisher_examples=1280
        ),
    },
}
RECIPE = Recipe("fisher_vs_hessian", __doc__, PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
