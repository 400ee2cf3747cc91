"""Appendix A.4: whether a training ends in a wide minimum is settled in its first epochs.

Figure 11: follows Tr(H) for two sets of batch sizes, or of learning rates. The values within a set
are close to each other, and far from those of the other set; set B regularises more than set A.

The text names no network for the figure: ResNet-26, as in appendix G.4, is a choice. It speaks of
the correlation of Tr(H) between any two epochs; here one of the two is always the last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from experiment import picture  # first: it meets Ctrl-C with a sentence

# isort: split
import numpy as np
from experiment.command import main
from experiment.correlation import spearman
from experiment.paper import DIGITS, SECTION_5, SMALL_WATCHED
from experiment.recipe import Recipe, Result
from experiment.results import NOTHING, common, grouped, of, percent, test_accuracy, written
from experiment.setting import Run, Varied, option
from matplotlib.axes import Axes

HESSIAN = "hessian_trace"
COLOURS = {"A and B": "#333333", "A": "#1b6fb5", "B": "#c51b1b"}
STYLES = ("-", "--", ":", "-.")  # values of a set


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trajectories(Varied):
    """A panel of figure 11."""

    set_a: tuple[float, ...] = option("learning rates or batch sizes of low regularisation")
    set_b: tuple[float, ...] = option("the same of high regularisation")
    every_epochs: int = option("epochs from one measurement of Tr(H) to the next", 10)
    num_probes: int = option("probes that Tr(H) is estimated from", 30)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_listed("set_a", "set_b")
        for name in ("set_a", "set_b"):
            self._check(name, at_least=0)
        self._check("every_epochs", at_least=1, below=self.epochs + 1)
        self._check("num_probes", at_least=1)


def plan(part: str, setting: Trajectories, finished: Mapping[str, Result]) -> list[Run]:
    """A run for each seed and value; none waits for another."""
    probes = {"num_probes": setting.num_probes}
    return [
        Run.of(
            setting,
            part=part,
            method=method,
            value=value,
            seed=seed,
            measures={HESSIAN: {"every_epochs": setting.every_epochs, **probes}},
            at_start={HESSIAN: probes},
            **setting.at(value),
        )
        for seed in setting.seeds
        for method, values in (("A", setting.set_a), ("B", setting.set_b))
        for value in values
    ]


# ---- Table and figure ------------------------------------------------------------------------


def trajectory(run: Result) -> np.ndarray:
    """Tr(H) at the start, and each time that it was measured in training."""
    every = _every(run)
    measured = run["history"][HESSIAN][every - 1 :: every]
    return np.array([run["start"][HESSIAN]["value"], *measured], float)


def _every(run: Result) -> int:
    return run["measures"][HESSIAN]["every_epochs"]


def min_loss(run: Result) -> float:
    return np.nanmin(np.array(run["history"]["loss"], float))


def table(results: Sequence[Result]) -> str:
    """What the legend of figure 11 says, and the three observations of appendix A.4."""
    rows = [
        [part, name, *_row(runs)]
        for (part, name, _), runs in grouped(results, "part", "method", "value").items()
    ]
    header = [
        *("setting", "set", "learning rate", "batch size", "least training loss"),
        *("best test accuracy, %", "Tr(H) at first", "Tr(H) at last"),
    ]
    claims = [
        [part, *claim]
        for (part,), runs in grouped(results, "part").items()
        for claim in _claims(runs)
    ]
    note = (
        "The least training loss is of an epoch, weight decay included; Tr(H) at first is that of "
        "the first measurement in training. Below, epochs are those at which Tr(H) is measured in "
        "training. Figure 11 prints losses and test accuracies in its legend; appendix A.4 says "
        "that no loss is above 0.01.\n"
    )
    return (
        f"{picture.markdown(header, rows)}\n{picture.seeds_note(results)} {note}\n"
        f"{picture.markdown(['setting', 'observation', 'here', 'paper'], claims)}"
    )


def _row(runs: Sequence[Result]) -> list[str]:
    return [
        common(runs, "learning_rate"),
        common(runs, "batch_size"),
        written(runs, min_loss, digits=4),
        percent(runs, test_accuracy),
        written(runs, lambda run: trajectory(run)[1]),
        written(runs, lambda run: trajectory(run)[-1]),
    ]


def _claims(runs: Sequence[Result]) -> list[list[str]]:
    """The observations on one setting."""
    sets = by_set(runs)
    if any(not runs for runs in sets.values()):
        return []
    traces = {name: of(runs, trajectory) for name, runs in sets.items()}
    larger = [
        _share_of_pairs(a, b) for a, b in zip(traces["A"].T[1:], traces["B"].T[1:], strict=True)
    ]
    better = _share_of_pairs(of(sets["B"], test_accuracy), of(sets["A"], test_accuracy))
    return [
        [
            "share of pairs with larger Tr(H) in A than in B: least of all epochs",
            f"{min(larger):.0%}",
            "always",
        ],
        ["share of pairs with better test accuracy in B than in A", f"{better:.0%}", "always"],
        *(
            [
                f"rank correlation of Tr(H) with that at last, mean over epochs: {name}",
                _mean(with_the_end(values)),
                "stronger" if name == "A and B" else "weaker",
            ]
            for name, values in traces.items()
        ),
    ]


def by_set(runs: Sequence[Result]) -> dict[str, list[Result]]:
    """The runs of both sets, and of each."""
    return {name: [run for run in runs if run["method"] in name.split()] for name in COLOURS}


def _share_of_pairs(larger: np.ndarray, smaller: np.ndarray) -> float:
    return float(np.mean(larger[:, None] > smaller))


def with_the_end(traces: np.ndarray) -> list[float]:
    """How Tr(H) correlates over runs with what it is at last, from the first measurement on."""
    return [spearman(values, traces[:, -1]) for values in traces.T[1:-1]]


def _mean(numbers: Sequence[float]) -> str:
    return f"{np.mean(numbers):.2f}" if len(numbers) and np.isfinite(numbers).all() else NOTHING


def figure(results: Sequence[Result], path: Path) -> None:
    """Figure 11, a row for each setting, and the rank correlations behind the observations."""
    parts = grouped(results, "part")
    fig, axes = picture.panels(len(parts), 2, width=5.5)
    for row, ((part,), runs) in zip(axes, parts.items(), strict=True):
        _trajectories(row[0], runs)
        _entanglement(row[1], runs)
        picture.label(row[0], part, y=picture.LABELS[HESSIAN])
        picture.label(row[1], part, y="rank correlation with Tr(H) at last")
    picture.save(fig, path)


def _trajectories(axis: Axes, runs: Sequence[Result]) -> None:
    for (name,), of_set in grouped(runs, "method").items():
        for style, group in zip(cycle(STYLES), grouped(of_set, "value").values(), strict=False):
            values = of(group, trajectory)
            epochs = _every(group[0]) * np.arange(values.shape[1])
            picture.band(axis, epochs, values, COLOURS[name], _titled(name, group), style)
    axis.set_yscale("log")
    axis.legend(fontsize=7)


def _titled(name: str, runs: Sequence[Result]) -> str:
    """As the legend of figure 11, where TA is the best test accuracy."""
    return (
        f"{name}: η {common(runs, 'learning_rate')}, S {common(runs, 'batch_size')}, "
        f"loss {of(runs, min_loss).mean():.2g}, TA {of(runs, test_accuracy).mean():.1%}"
    )


def _entanglement(axis: Axes, runs: Sequence[Result]) -> None:
    for name, group in by_set(runs).items():
        correlations = with_the_end(of(group, trajectory))
        epochs = _every(runs[0]) * np.arange(1, len(correlations) + 1)
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
            epochs=16,
            fisher_examples=256,
            varies="learning_rate",
            set_a=(0.0024, 0.003, 0.0036),
            set_b=(0.024, 0.03, 0.036),
            every_epochs=4,
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
