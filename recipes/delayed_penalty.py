"""Section 4: a Fisher penalty that starts late does not close the gap.

Figure 4: at the small learning rate, starts the Fisher penalty after a number of epochs, and
compares the test accuracy with that of the baseline and of the best learning rate eta*. eta* and
alpha are chosen as in `suboptimal_lr.py`, with a penalty from the beginning.

The paper does not name the networks of the figure, one on CIFAR-10 and one on CIFAR-100: here they
are SimpleCNN and VGG-11.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import suboptimal_lr
from experiment import picture
from experiment.command import main
from experiment.paper import DIGITS, SECTION_4, SMALL_C10
from experiment.recipe import Recipe, Result, best_of
from experiment.results import by_method, final, grouped, of, percent, test_accuracy
from experiment.setting import Run, option
from suboptimal_lr import Rates

METHODS = ("eta_star", "baseline", "fp")
FIGURES = {
    "test accuracy at the end, %": final("test_accuracy"),
    "test accuracy at best validation, %": test_accuracy,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delayed(Rates):
    """A setting of figure 4."""

    methods: tuple[str, ...] = option("methods to compare", METHODS, METHODS)
    starts: tuple[int, ...] = option(
        "epochs after which the penalty starts", (1, 2, 4, 8, 16, 32, 64, 128)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("starts", at_least=1, below=self.epochs)


def plan(part: str, setting: Delayed, finished: Mapping[str, Result]) -> list[Run]:
    """The runs of `suboptimal_lr.py`, and those with the chosen alpha from a later epoch on."""
    runs = list(suboptimal_lr.plan(part, setting, finished))
    penalised = [run for run in runs if run.method == "fp"]
    first = [run for run in penalised if run.seed == setting.seeds[0]]
    best = best_of(first, finished) if first else None
    if best is None:
        return runs
    late = [
        dataclasses.replace(run, method=f"fp_from_{start}", value=0.0, penalty_from=start)
        for start in setting.starts
        for run in penalised
        if run.alpha == best.alpha
    ]
    return [*runs, *late]


def table(results: Sequence[Result]) -> str:
    """A row for each way to train; the paper gives figure 4 without numbers."""
    rows = []
    for (part,), runs in grouped(results, "part").items():
        rows += [
            [part, name, *(percent(group, accuracy) for accuracy in FIGURES.values())]
            for name, group in by_start(runs).items()
        ]
    note = (
        "In figure 4 the accuracy falls the later the penalty starts, and only a penalty from the "
        "beginning reaches that of η*."
    )
    header = ["setting", "trained with", *FIGURES]
    return f"{picture.markdown(header, rows)}\n{picture.seeds_note(results)} {note}\n"


def by_start(runs: Sequence[Result]) -> dict[str, list[Result]]:
    """The runs at eta*, the baseline, and those under the penalty by its first epoch."""
    methods = by_method(runs)
    names = {
        picture.TITLES[name]: methods[name] for name in ("eta_star", "baseline") if name in methods
    }
    return names | {delay(start): late for start, late in penalised(methods).items()}


def delay(start: int) -> str:
    """How tables and legends call a penalty that starts after a number of epochs."""
    return f"FP after {start} epoch{'s' * (start > 1)}" if start else "FP from the beginning"


def penalised(methods: Mapping[str, list[Result]]) -> dict[int, list[Result]]:
    """The runs under the penalty by its first epoch; 0 is the beginning."""
    starts = {runs[0]["penalty_from"]: runs for runs in methods.values() if runs[0]["alpha"]}
    return dict(sorted(starts.items()))


def first_epoch(run: Result) -> int:
    return run["penalty_from"] + 1


def percent_at_end(run: Result) -> float:
    return 100 * run["final"]["test_accuracy"]


def figure(results: Sequence[Result], path: Path) -> None:
    """Figure 4, and Tr(F) beside it: a row for each setting."""
    parts = grouped(results, "part")
    fig, axes = picture.panels(len(parts), 2, width=5.5)
    for row, ((part,), runs) in zip(axes, parts.items(), strict=True):
        methods = by_method(runs)
        late = penalised(methods)
        for group in late.values():
            picture.point(
                row[0],
                group,
                first_epoch,
                percent_at_end,
                picture.COLOURS["fp"],
                "FP from there on",
            )
        for method in ("eta_star", "baseline"):
            group, colour = methods.get(method, []), picture.COLOURS[method]
            if group:
                accuracy = of(group, percent_at_end).mean()
                row[0].axhline(accuracy, color=colour, ls="--", label=picture.TITLES[method])
            picture.curve(row[1], group, "fisher_trace", colour)
        for colour, group in zip(picture.shades(len(late))[::-1], late.values(), strict=True):
            name = delay(group[0]["penalty_from"])
            picture.curve(row[1], group, "fisher_trace", colour, name)
        row[0].set_xscale("log", base=2)
        row[1].set_yscale("log")
        picture.label(row[0], part, "first epoch under the penalty", "test accuracy at the end, %")
        picture.label(row[1], part, y=picture.LABELS["fisher_trace"])
    picture.legend(fig, axes.flat)
    picture.save(fig, path)


PRESETS = {
    "demo": {
        "mlp_digits": Delayed(
            **DIGITS,
            width=128,
            epochs=40,
            steps_per_execution=13,
            learning_rates=(0.1,),
            slower=30,
            fp=(0.1,),
            starts=(2, 8, 32),
        )
    },
    "small": {
        "simple_cnn_c10": Delayed(
            **SMALL_C10 | {"drops": (80,)},
            epochs=100,
            learning_rates=(0.01,),
            fp=(0.003,),
            starts=(4, 32),
        )
    },
    "paper": {part: Delayed(**SECTION_4[part]) for part in ("simple_cnn_c10", "vgg11_c100")},
}
RECIPE = Recipe("delayed_penalty", __doc__ or "", PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
