"""Appendix A.4: whether a training ends in a wide minimum is settled in its first epochs.

Figure 11: tracks Tr(H) for two sets of batch sizes, or of learning rates. The values within a set
are close to each other, and far from those of the other set; set B regularises more than set A.

The paper does not name the network of the figure: ResNet-26, as in appendix G.4, is a choice. It
mentions the correlation of Tr(H) between any two epochs; here one of them is always the last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from experiment.command import main
from experiment.plan.paper import SECTION_5
from experiment.plan.recipe import Finished, Recipe
from experiment.plan.setting import Amounts, Count, Range, Run, VariedSetting
from experiment.plan.small import DIGITS, SMALL_WATCHED
from experiment.results import picture, tables
from experiment.results.curvature import HESSIAN, add_traces_at_loss, get_measured
from matplotlib.axes import Axes

COLOURS = {"A and B": "#333333", "A": "#1b6fb5", "B": "#c51b1b"}
STYLES = ("-", "--", ":", "-.")  # one for each value of a set


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trajectories(VariedSetting):
    """A panel of figure 11."""

    set_a: Amounts  # learning rates or batch sizes with low regularisation
    set_b: Amounts  # learning rates or batch sizes with high regularisation
    every_epochs: Count = 10  # epochs between two measurements of Tr(H)
    num_probes: Count = 30  # probes to estimate Tr(H) from

    def __post_init__(self) -> None:
        super().__post_init__()
        Range(1, below=self.epochs + 1).check("every_epochs", self.every_epochs)


def plan(part: str, setting: Trajectories, finished: Finished) -> list[Run]:
    """Plans a run for each seed and value; the runs are independent."""
    probes = {"num_probes": setting.num_probes}
    measures = {HESSIAN: {"every_epochs": setting.every_epochs, **probes}}
    shared: dict[str, Any] = {"part": part, "measures": measures, "at_start": {HESSIAN: probes}}
    return [
        setting.make_run(
            **shared, method=method, value=value, seed=seed, **setting.set_value(value)
        )
        for seed in setting.seeds
        for method, values in (("A", setting.set_a), ("B", setting.set_b))
        for value in values
    ]


# ---- Table and figure ------------------------------------------------------------------------


CELLS = {
    "learning rate": tables.SettingCell("learning_rate"),
    "batch size": tables.SettingCell("batch_size"),
    "least training loss": tables.MeanCell("least_loss", digits=4),
    "best test accuracy, %": tables.PercentCell("test_accuracy"),
    "Tr(H) at first": tables.MeanCell("first_trace"),
    "Tr(H) at last": tables.MeanCell("last_trace"),
    "Tr(H) at equal loss": tables.MeanCell("trace_at_loss"),
}


def table(runs: pd.DataFrame) -> str:
    """Returns the legend of figure 11, and the three observations of appendix A.4."""
    runs = pd.concat([add_traces_at_loss(group) for _, group in runs.groupby("part")])
    traces = [get_trajectory(run) for run in runs.to_dict("records")]
    runs = runs.assign(
        least_loss=runs["history"].map(find_least_loss),
        first_trace=[trace[1] for trace in traces],
        last_trace=[trace[-1] for trace in traces],
    )
    rows = [
        [part, name, *tables.fill_cells(group, CELLS)]
        for (part, name, _), group in runs.groupby(["part", "method", "value"])
    ]
    claims = [
        [part, *claim] for part, group in runs.groupby("part") for claim in check_claims(group)
    ]
    note = (
        "The least training loss is of an epoch, weight decay included. Tr(H) at first is that of "
        "the first measurement in training; at equal loss, that at the least training loss which "
        "all runs of a setting reach. Below, epochs are those at which Tr(H) is measured. Figure "
        "11 prints losses and test accuracies in its legend; appendix A.4 says that no loss is "
        "above 0.01. A correlation over A and B together also reflects that the sets differ.\n"
    )
    header = ["setting", "set", *CELLS]
    return (
        f"{tables.write_markdown(header, rows)}\n{tables.write_seeds(runs)} {note}\n"
        f"{tables.write_markdown(['setting', 'observation', 'here', 'paper'], claims)}"
    )


def get_trajectory(run: dict[str, Any]) -> np.ndarray:
    """Returns Tr(H) at the start and at each measurement during training."""
    return np.array([run["start"][HESSIAN]["value"], *get_measured(run, HESSIAN)], float)


def get_trajectories(runs: pd.DataFrame) -> np.ndarray:
    """Returns the trajectories of runs, an array of shape (runs, measurements)."""
    return np.array([get_trajectory(run) for run in runs.to_dict("records")])


def find_least_loss(history: dict[str, Any]) -> float:
    return np.nanmin(np.array(history["loss"], float))


def check_claims(runs: pd.DataFrame) -> list[list[str]]:
    """Returns the observations on one setting."""
    sets = split_sets(runs)
    if any(group.empty for group in sets.values()):
        return []
    traces = {name: get_trajectories(group) for name, group in sets.items()}
    larger = [
        compare_pairs(a, b) for a, b in zip(traces["A"].T[1:], traces["B"].T[1:], strict=True)
    ]
    at_loss = compare_pairs(*(sets[name]["trace_at_loss"].to_numpy() for name in "AB"))
    better = compare_pairs(*(sets[name]["test_accuracy"].to_numpy() for name in "BA"))
    return [
        [
            "share of pairs with larger Tr(H) in A than in B: least of all epochs",
            write_share(min(larger, key=lambda found: found.mean() if found.count() else -1.0)),
            "always",
        ],
        [
            "share of pairs with larger Tr(H) in A than in B: at equal training loss",
            write_share(at_loss),
            tables.NOTHING,
        ],
        [
            "share of pairs with better test accuracy in B than in A",
            write_share(better),
            "always",
        ],
        *(
            [
                f"rank correlation of Tr(H) with that at last, mean over epochs: {name}",
                write_mean(correlate_with_end(values)),
                "stronger" if name == "A and B" else "weaker",
            ]
            for name, values in traces.items()
        ),
    ]


def split_sets(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Returns the runs of both sets together, and of each set."""
    return {name: runs[runs["method"].isin(name.split())] for name in COLOURS}


def compare_pairs(larger: np.ndarray, smaller: np.ndarray) -> np.ma.MaskedArray:
    """Returns whether the first of each pair is larger, masked where one of them is NaN."""
    is_larger = larger[:, None] > smaller
    return np.ma.array(is_larger, mask=np.isnan(larger[:, None]) | np.isnan(smaller))


def write_share(is_larger: np.ma.MaskedArray) -> str:
    """Returns the share of pairs, and the number of pairs if some are not measured."""
    known, pairs = is_larger.count(), is_larger.size
    if not known:
        return tables.NOTHING
    return f"{is_larger.mean():.0%}" + (f" ({known} of {pairs} pairs)" if known < pairs else "")


def correlate_with_end(traces: np.ndarray) -> list[float]:
    """Returns the correlation over runs of Tr(H) at each measurement with the last Tr(H)."""
    return [tables.correlate(values, traces[:, -1], "spearman") for values in traces.T[1:-1]]


def write_mean(numbers: Sequence[float]) -> str:
    return (
        f"{np.mean(numbers):.2f}" if len(numbers) and np.isfinite(numbers).all() else tables.NOTHING
    )


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Draws figure 11, a row for each setting, and the rank correlations of the observations."""
    parts = runs.groupby("part")
    fig, axes = picture.make_panels(len(parts), 2, width=5.5)
    for (left, right), (part, group) in zip(axes, parts, strict=True):
        draw_trajectories(left, group)
        draw_entanglement(right, group)
        picture.label_axes(left, part, y=picture.LABELS[HESSIAN])
        picture.label_axes(right, part, y="rank correlation with Tr(H) at last")
    picture.save(fig, path)


def draw_trajectories(axis: Axes, runs: pd.DataFrame) -> None:
    for name, runs_of_set in runs.groupby("method"):
        for style, (_, group) in zip(cycle(STYLES), runs_of_set.groupby("value"), strict=False):
            values = get_trajectories(group)
            epochs = count_epochs_between(group) * np.arange(values.shape[1])
            picture.draw_band(axis, epochs, values, COLOURS[name], write_name(name, group), style)
    axis.set_yscale("log")
    axis.legend(fontsize=7)


def count_epochs_between(runs: pd.DataFrame) -> int:
    return runs["measures"].iloc[0][HESSIAN]["every_epochs"]


def write_name(name: str, runs: pd.DataFrame) -> str:
    """Returns a legend entry as in figure 11, where TA is the best test accuracy."""
    rate, batch_size = (CELLS[column](runs) for column in ("learning rate", "batch size"))
    return (
        f"{name}: η {rate}, S {batch_size}, "
        f"loss {runs['history'].map(find_least_loss).mean():.2g}, "
        f"TA {runs['test_accuracy'].mean():.1%}"
    )


def draw_entanglement(axis: Axes, runs: pd.DataFrame) -> None:
    for name, group in split_sets(runs).items():
        if not group.empty:
            correlations = correlate_with_end(get_trajectories(group))
            epochs = count_epochs_between(runs) * np.arange(1, len(correlations) + 1)
            axis.plot(epochs, correlations, "o-", ms=3, color=COLOURS[name], label=name)
    axis.set_ylim(-1.05, 1.05)
    axis.legend(fontsize=8)


# ---- Presets ---------------------------------------------------------------------------------

PRESETS = {
    "demo": {
        "mlp_digits": Trajectories(
            **DIGITS | {"validation_size": 0},
            width=64,
            epochs=25,
            steps_per_execution=13,
            fisher_examples=200,
            varies="learning_rate",
            set_a=(0.0024, 0.003, 0.0036),
            set_b=(0.024, 0.03, 0.036),
            every_epochs=5,
        )
    },
    "small": {
        "simple_cnn_c10": Trajectories(
            **SMALL_WATCHED,
            epochs=100,
            seeds=(0, 1, 2),
            fisher_examples=256,
            varies="learning_rate",
            set_a=(0.0024, 0.003, 0.0036),
            set_b=(0.024, 0.03, 0.036),
            every_epochs=10,
        )
    },
    "paper": {
        "cifar10": Trajectories(
            **SECTION_5["cifar10"],
            seeds=tuple(range(32)),
            varies="batch_size",
            set_a=(480, 500, 520),
            set_b=(80, 100, 120),
        ),
        "cifar100": Trajectories(
            **SECTION_5["cifar100"],
            seeds=tuple(range(32)),
            varies="learning_rate",
            set_a=(0.0008, 0.001, 0.0012),
            set_b=(0.008, 0.01, 0.012),
        ),
    },
}
RECIPE = Recipe("curvature_trajectory", __doc__, PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
