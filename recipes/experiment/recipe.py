"""A recipe: an experiment of the paper, in presets of several sizes, and the plan of its runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiment.setting import Run

Finished = Mapping[str, float]  # the best validation accuracy of each finished run, by name
Plan = Callable[[str, Any, Finished], Sequence[Run]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """An experiment.

    Attributes:
        name: Of its script.
        description: What `--help` says of it.
        presets: For each size, the settings of its parts by name.
        plan: From a part, its setting and the finished runs: the runs of the part. A run may depend
            on finished ones, such as those that alpha is chosen by; it is planned once they are
            there. More finished runs never take a run out of the plan.
        table: From finished runs, Markdown.
        figure: From finished runs, a picture at a path.
    """

    name: str
    description: str
    presets: Mapping[str, Mapping[str, Any]]
    plan: Plan
    table: Callable[[pd.DataFrame], str]
    figure: Callable[[pd.DataFrame, Path], None]

    def plan_runs(self, settings: Mapping[str, Any], finished: Finished) -> list[Run]:
        """All runs that can be planned now, each once."""
        runs = [run for part, s in settings.items() for run in self.plan(part, s, finished)]
        return list({run.name: run for run in runs}.values())

    def plan_all_runs(self, settings: Mapping[str, Any]) -> list[Run]:
        """All runs there will be, one value standing for those that are not chosen yet."""
        finished: dict[str, float] = {}
        while True:
            runs = self.plan_runs(settings, finished)
            if all(run.name in finished for run in runs):
                return runs
            finished = dict.fromkeys((run.name for run in runs), 0.0)


def find_best(candidates: Iterable[Run], finished: Finished) -> Run | None:
    """The run of best validation accuracy once all are finished; the only one at any time.

    Of several that are best, it is that of the smallest value, as in `tables.choose_values`.
    """
    candidates = sorted(candidates, key=lambda run: run.value)
    if len(candidates) == 1:
        return candidates[0]
    if any(run.name not in finished for run in candidates):
        return None
    return max(candidates, key=lambda run: finished[run.name])


def set_alpha(value: float) -> dict[str, Any]:
    """The change to a run that makes a value its alpha."""
    return {"alpha": value}


def tune(
    run: Run,
    values: Sequence[float],
    seeds: Sequence[int],
    finished: Finished,
    set_value: Callable[[float], Mapping[str, Any]] = set_alpha,
) -> tuple[list[Run], Run | None]:
    """Plans a run with each value under the first seed, and with the best under the other seeds.

    The paper chooses learning rates and alphas by validation accuracy (appendix G.2).

    Args:
        run: What all of them have in common.
        values: Values to choose among, such as of alpha.
        seeds: The seeds to run.
        finished: The finished runs.
        set_value: From a value, what it changes in the run.

    Returns:
        All runs that can be planned, and the chosen one of the first seed, or `None` as long as it
        is not known.
    """

    def change(value: float, seed: int) -> Run:
        changes = {"value": value, "seed": seed, "data_seed": seed, **set_value(value)}
        return dataclasses.replace(run, **changes)

    runs = [change(value, seeds[0]) for value in values]
    best = find_best(runs, finished)
    if best is not None:
        runs += [change(best.value, seed) for seed in seeds[1:]]
    return runs, best
