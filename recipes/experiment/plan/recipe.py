"""A recipe: an experiment in presets of several sizes, and the plan of its runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiment.plan.setting import Run

Finished = Mapping[str, Any]  # the score of each finished run, by name


def get_best_accuracy(figures: Mapping[str, Any]) -> float:
    """Returns the best validation accuracy of a finished run."""
    return figures["best"]["validation_accuracy"]


Plan = Callable[[str, Any, Finished], Sequence[Run]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """An experiment.

    Attributes:
        name: The name of its script.
        description: Its description in `--help`.
        presets: The settings of its parts by name, for each size.
        plan: A function from a part, its setting and the finished runs to the part's runs. A run
            may depend on finished ones, for example on those that determine alpha; it is planned
            once they are finished. Further finished runs never remove a run from the plan.
        table: A function from finished runs to Markdown.
        figure: A function that draws finished runs in a picture at a path.
        score: A function from the figures of a finished run to what `plan` chooses values by.
        unfinished: The score that stands in for unknown ones where all future runs are planned.
    """

    name: str
    description: str
    presets: Mapping[str, Mapping[str, Any]]
    plan: Plan
    table: Callable[[pd.DataFrame], str]
    figure: Callable[[pd.DataFrame, Path], None]
    score: Callable[[Mapping[str, Any]], Any] = get_best_accuracy
    unfinished: Any = 0.0

    def plan_runs(self, settings: Mapping[str, Any], finished: Finished) -> list[Run]:
        """Returns all runs that can be planned now, each once."""
        runs = [run for part, s in settings.items() for run in self.plan(part, s, finished)]
        return list({run.name: run for run in runs}.values())

    def plan_all_runs(
        self, settings: Mapping[str, Any], finished: Finished | None = None
    ) -> list[Run]:
        """Returns all runs, with a placeholder for values that are not chosen yet."""
        known = dict(finished or {})
        scores = known
        while True:
            runs = self.plan_runs(settings, scores)
            if all(run.name in scores for run in runs):
                return runs
            scores = dict.fromkeys((run.name for run in runs), self.unfinished) | known


def find_best(candidates: Iterable[Run], finished: Finished) -> Run | None:
    """Returns the run with the best score once all are finished.

    Ties go to the smallest value, as in `tables.choose_values`. Always returns a single candidate.
    """
    candidates = sorted(candidates, key=lambda run: run.value)
    if len(candidates) == 1:
        return candidates[0]
    if any(run.name not in finished for run in candidates):
        return None
    return max(candidates, key=lambda run: finished[run.name])


def tune(
    run: Run,
    values: Sequence[float],
    seeds: Sequence[int],
    finished: Finished,
    sets: str = "alpha",
    factor: float = 1.0,
) -> tuple[list[Run], Run | None]:
    """Plans a run with each value and the first seed, and with the best value and other seeds.

    The paper chooses learning rates and alphas by validation accuracy (appendix G.2).

    Args:
        run: The common settings of all runs.
        values: The values to choose from, for example alphas.
        seeds: The seeds to run.
        finished: The finished runs.
        sets: The field of a run that a value sets; empty for none.
        factor: The factor by which a value is multiplied in that field.

    Returns:
        All runs that can be planned, and the chosen run of the first seed, or `None` while it is
        unknown.
    """

    def change(value: float, seed: int) -> Run:
        own: dict[str, Any] = {sets: value * factor} if sets else {}
        return dataclasses.replace(run, value=value, seed=seed, data_seed=seed, **own)

    runs = [change(value, seeds[0]) for value in values]
    best = find_best(runs, finished)
    if best is not None:
        runs += [change(best.value, seed) for seed in seeds[1:]]
    return runs, best
