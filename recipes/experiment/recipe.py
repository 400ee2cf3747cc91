"""A recipe: an experiment of the paper, in presets of several sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiment.setting import Run

Result = dict[str, Any]  # a finished run: its fields, and its figures
Plan = Callable[[str, Any, Mapping[str, Result]], Sequence[Run]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """An experiment.

    Attributes:
        name: Of its script.
        description: What `--help` says of it.
        presets: For each size, the settings of its parts by name.
        plan: From a part, its setting and the results that are there, by run: the runs of the part.
            A run may depend on results, such as those that alpha is chosen by; it is planned once
            they are there. More results never take a run out of the plan.
        table: From results, Markdown.
        figure: From results, a picture at a path.
    """

    name: str
    description: str
    presets: Mapping[str, Mapping[str, Any]]
    plan: Plan
    table: Callable[[Sequence[Result]], str]
    figure: Callable[[Sequence[Result], Path], None]

    def runs(self, settings: Mapping[str, Any], finished: Mapping[str, Result]) -> list[Run]:
        """All runs that can be planned with these results."""
        return [run for part, s in settings.items() for run in self.plan(part, s, finished)]

    def all_runs(self, settings: Mapping[str, Any]) -> list[Run]:
        """All runs there will be, one value standing for those that are not chosen yet."""
        finished: dict[str, Result] = {}
        while True:
            runs = self.runs(settings, finished)
            if all(run.name in finished for run in runs):
                return runs
            finished = {run.name: as_result(run, validation_accuracy=0.0) for run in runs}


def as_result(run: Run, validation_accuracy: float) -> Result:
    """What the plan of further runs needs to know of a finished one."""
    return dataclasses.asdict(run) | {"best": {"validation_accuracy": validation_accuracy}}


def best_of(candidates: Iterable[Run], finished: Mapping[str, Result]) -> Run | None:
    """The run of best validation accuracy once all are finished; the only one at any time.

    Of several that are best, it is that of the smallest value, as in `results.chosen`.
    """
    candidates = list(candidates)
    if len(candidates) == 1:
        return candidates[0]
    if any(run.name not in finished for run in candidates):
        return None
    candidates.sort(key=lambda run: run.value)
    return max(candidates, key=lambda run: finished[run.name]["best"]["validation_accuracy"])


def as_alpha(value: float) -> dict[str, Any]:
    """The change to a run that makes a value its alpha."""
    return {"alpha": value}


def tuned(
    run: Run,
    values: Sequence[float],
    seeds: Sequence[int],
    finished: Mapping[str, Result],
    changes: Callable[[float], Mapping[str, Any]] = as_alpha,
) -> tuple[list[Run], Run | None]:
    """A run with the value that is best under the first seed (appendix G.2), as the paper chooses
    learning rates, and with this one under the other seeds.

    Args:
        run: What all of them have in common.
        values: Values to choose among, such as of alpha.
        seeds: The seeds to run.
        finished: The results that are there, by run.
        changes: From a value, what it changes in the run.

    Returns:
        All runs that can be planned, and the chosen one of the first seed, or `None` as long as it
        is not known.
    """

    def with_(value: float, seed: int) -> Run:
        return dataclasses.replace(run, value=value, seed=seed, data_seed=seed, **changes(value))

    runs = [with_(value, seeds[0]) for value in values]
    best = best_of(runs, finished)
    if best is not None:
        runs += [with_(best.value, seed) for seed in seeds[1:]]
    return runs, best
