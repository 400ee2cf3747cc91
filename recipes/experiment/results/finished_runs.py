"""Finished runs, read from their folders and from archives."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiment.files import name_damage, read_json
from experiment.plan.setting import Run, describe, from_json, get_run
from experiment.results.comparison import check_comparable

ARCHIVE = ".jsonl"  # written by `archive.py`
ARCHIVED = {"name", "versions", "seconds", "history", "best", "start", "curves", "final"}
Result = dict[str, Any]  # a finished run: its name, settings, versions, figures and seconds


def read(folders: Iterable[Path]) -> list[Result]:
    """Returns all finished runs in the folders and archives, sorted by name.

    Raises:
        SettingsError: if files are damaged, or as in `check_comparable`.
    """
    runs: list[Result] = []
    for out in folders:
        if out.suffix == ARCHIVE:
            runs += read_archive(out)
        else:
            runs += [read_run(path.parent) for path in out.glob("*/results.json")]
    runs.sort(key=lambda run: run["name"])
    check_comparable(runs)
    return list({run["name"]: run for run in runs}.values())


def read_run(folder: Path) -> Result:
    """Returns a finished run: its name, settings, versions, figures and seconds.

    Raises:
        SettingsError: if its files have other content.
    """
    path = folder / "settings.json"
    settings = read_json(path, "run", "versions")
    with name_damage(path):
        run = from_json(settings["run"])
    path = folder / "results.json"
    figures = read_json(path, "history", "best", "final")
    with name_damage(path):
        check_figures(run, figures)
    seconds = read_json(folder / "time.json", "seconds")
    return {**describe(run), "versions": settings["versions"], **figures, **seconds}


def read_archive(path: Path) -> list[Result]:
    """Returns the finished runs of an archive.

    Raises:
        SettingsError: if the file has other content.
    """
    with name_damage(path):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            check_figures(get_run(line), line)
            if missing := sorted(ARCHIVED - {*line}):
                raise ValueError(f"a run lacks {', '.join(missing)}")
        return [{**describe(get_run(line)), **line} for line in lines]


def check_figures(run: Run, figures: Mapping[str, Any]) -> None:
    """Raises a `ValueError` or similar unless `figures` are valid for the run."""
    lengths = {len(values) for values in figures["history"].values()}
    if lengths - {run.epochs}:
        found = ", ".join(map(str, sorted(lengths)))
        raise ValueError(f"figures of {found} epochs, where the settings have {run.epochs}")
    for key in ("validation_accuracy", "test_accuracy"):
        float(figures["best"][key])


def make_frame(runs: Sequence[Result]) -> pd.DataFrame:
    """Returns a row for each finished run, with the figures of most tables as columns."""
    frame = pd.DataFrame(runs)
    best, final = pd.DataFrame(list(frame["best"])), pd.DataFrame(list(frame["final"]))
    return frame.assign(
        # A count must not become a share, as in a column that has both.
        penalty_batch_size=pd.Series([run["penalty_batch_size"] for run in runs], dtype=object),
        validation_accuracy=best["validation_accuracy"],
        test_accuracy=best["test_accuracy"],  # at the best validation point, as in table 3
        final_test_accuracy=final["test_accuracy"],
        # Since the end of the first epoch (appendix A.2).
        max_fisher_trace=final.get("fisher_trace_peak", pd.Series(dtype=float)),
    )
