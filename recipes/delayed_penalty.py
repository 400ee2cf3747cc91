"""Section 4: does a Fisher penalty that starts late close the gap?

Figure 4: at the small learning rate, starts the Fisher penalty after a number of epochs, and
compares the test accuracy with the baseline and with the best learning rate eta*. eta* and alpha
are chosen as in `suboptimal_lr.py`, with the penalty from the beginning.

The paper does not name the networks of the figure, one on CIFAR-10 and one on CIFAR-100; here they
are SimpleCNN and VGG-11. Runs with a limit on the penalty, `max_penalty_ratio`, are an addition.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

import pandas as pd
import suboptimal_lr
from experiment.command import main
from experiment.plan.paper import SECTION_4
from experiment.plan.recipe import Finished, Recipe, find_best
from experiment.plan.setting import Choices, Positive, Range, Run
from experiment.plan.small import WIDE_DIGITS
from experiment.results import picture, tables
from suboptimal_lr import RateSetting

Method = Literal["eta_star", "baseline", "fp"]
METHODS = get_args(Method)
CELLS = {
    "test accuracy at the end, %": tables.PercentCell("final_test_accuracy"),
    "test accuracy at best validation, %": tables.PercentCell("test_accuracy"),
}
FROM_BEGINNING = "FP from the beginning"
COMPARED = (tables.TITLES["baseline"], FROM_BEGINNING)  # what every way is compared with


@dataclasses.dataclass(frozen=True, kw_only=True)
class DelaySetting(RateSetting):
    """A setting of figure 4."""

    methods: Choices[Method] = METHODS  # methods to compare
    starts: Annotated[tuple[int, ...], Range(1)] = (1, 2, 4, 8, 16, 32, 64, 128)
    """epochs after which the penalty starts"""
    limited: Annotated[tuple[int, ...], Range(1)] = ()  # starts to train with a limit, too
    max_penalty_ratio: Positive = 0.7  # the limit: the largest ratio of gradients

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("starts", "limited"):
            Range(1, below=self.epochs).check(name, getattr(self, name))


def plan(part: str, setting: DelaySetting, finished: Finished) -> list[Run]:
    """Plans the runs of `suboptimal_lr.py`, and runs that use the chosen alpha from an epoch on."""
    runs = list(suboptimal_lr.plan(part, setting, finished))
    penalised = [run for run in runs if run.method == "fp"]
    first = [run for run in penalised if run.seed == setting.seeds[0]]
    best = find_best(first, finished) if first else None
    if best is None:
        return runs
    ways = [("fp", start, 0.0) for start in setting.starts]
    ways += [("limited", start, setting.max_penalty_ratio) for start in setting.limited]
    late = [
        dataclasses.replace(
            run,
            method=f"{name}_from_{start}",
            value=0.0,
            penalty_from=start,
            max_penalty_ratio=limit,
        )
        for name, start, limit in ways
        for run in penalised
        if run.alpha == best.alpha
    ]
    return [*runs, *late]


# ---- Table and figure ------------------------------------------------------------------------


def table(runs: pd.DataFrame) -> str:
    """Returns a row for each way to train; the paper states no numbers for figure 4."""
    rows = []
    for part, methods in tables.choose_values(runs).groupby("part"):
        groups = name_groups(methods)
        cells = [
            tables.DifferenceCell("final_test_accuracy", groups.get(name, methods.iloc[:0]))
            for name in COMPARED
        ]
        rows += [
            [part, name, *tables.fill_cells(group, CELLS), *(cell(group) for cell in cells)]
            for name, group in groups.items()
        ]
    differences = [f"at the end, minus {name}, points" for name in COMPARED]
    header = ["setting", "trained with", *CELLS, *differences]
    note = (
        "In figure 4 the accuracy falls the later the penalty starts, and only a penalty from the "
        "beginning reaches that of η*."
    )
    note = f"{tables.write_seeds(runs)} {tables.DIFFERENCES_NOTE} {note}\n"
    return f"{tables.write_markdown(header, rows)}\n{note}{tables.write_edges(runs)}"


def name_groups(runs: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    """Returns the runs at eta*, the baseline, and the penalised runs by start and limit."""
    plain = {
        tables.TITLES[method]: runs[runs["method"] == method]
        for method in ("eta_star", "baseline")
        if (runs["method"] == method).any()
    }
    return plain | {name_penalty(*key): group for key, group in group_penalised(runs)}


def group_penalised(runs: pd.DataFrame) -> list[tuple[tuple[int, float], pd.DataFrame]]:
    """Returns the penalised runs by first penalised epoch, counted from 0, and by limit."""
    return list(runs[runs["alpha"] > 0].groupby(["penalty_from", "max_penalty_ratio"]))


def name_penalty(start: int, limit: float) -> str:
    """Returns the name of a penalty's start and limit in tables and legends."""
    limited = f", max_penalty_ratio={limit:g}" if limit else ""
    return f"FP after {start} epoch{'s' * (start > 1)}{limited}" if start else FROM_BEGINNING


def figure(runs: pd.DataFrame, path: Path) -> None:
    """Draws figure 4 and Tr(F), a row for each setting."""
    parts = tables.choose_values(runs).groupby("part")
    fig, axes = picture.make_panels(len(parts), 2, width=5.5)
    for (left, right), (part, group) in zip(axes, parts, strict=True):
        late = group_penalised(group)
        for (_, limit), some in late:
            accuracy, colour = 100 * some["final_test_accuracy"], picture.COLOURS["fp"]
            name = f"FP from there on{f', max_penalty_ratio={limit:g}' * (limit > 0)}"
            if limit:
                colour = picture.COLOURS["gp_r"]
            picture.draw_point(left, some["penalty_from"] + 1, accuracy, colour, name)
        for method in ("eta_star", "baseline"):
            plain, colour = group[group["method"] == method], picture.COLOURS[method]
            if not plain.empty:
                accuracy = 100 * plain["final_test_accuracy"].mean()
                left.axhline(accuracy, color=colour, ls="--", label=tables.TITLES[method])
            picture.draw_curve(right, plain, "fisher_trace", colour)
        for colour, (key, some) in zip(picture.pick_shades(len(late))[::-1], late, strict=True):
            picture.draw_curve(right, some, "fisher_trace", colour, name_penalty(*key))
        left.set_xscale("log", base=2)
        right.set_yscale("log")
        picture.label_axes(
            left, part, "first epoch under the penalty", "test accuracy at the end, %"
        )
        picture.label_axes(right, part, y=picture.LABELS["fisher_trace"])
    picture.draw_legend(fig, axes.flat)
    picture.save(fig, path)


# ---- Presets ---------------------------------------------------------------------------------

PRESETS = {
    "demo": {
        "mlp_digits": DelaySetting(
            **WIDE_DIGITS,
            learning_rates=(0.1,),
            slower=30,
            fp=(0.1,),
            starts=(2, 8, 32),
        )
    },
    "small": {
        "simple_cnn_c10": DelaySetting(
            **suboptimal_lr.SMALL, starts=(1, 4, 16, 32, 64), limited=(64,)
        ),
    },
    "paper": {part: DelaySetting(**SECTION_4[part]) for part in ("simple_cnn_c10", "vgg11_c100")},
}
RECIPE = Recipe("delayed_penalty", __doc__ or "", PRESETS, plan, table, figure)

if __name__ == "__main__":
    main(RECIPE)
