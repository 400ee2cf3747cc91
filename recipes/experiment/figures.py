"""What the files of a run hold beside its settings: figures, each of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiment.kinds import MEASURED, NUMBER, fault
from experiment.setting import Run

ESTIMATE = {"value": MEASURED, "stderr": MEASURED, "count": int}
BEST = {"validation_accuracy": NUMBER, "test_accuracy": NUMBER}
NAMES = ("nan", "inf", "-inf")  # of numbers that JSON does not have, in the state of a callback
# What a run logs beside what its measures are called.
BESIDE = {"fisher_trace": ("fisher_trace_peak",)}
MONITORED = (
    *("clean_accuracy", "noisy_accuracy", "clean_gradient_norm", "noisy_gradient_norm"),
    "gradient_norm_ratio",
)


HISTORY = {"history": dict[str, list[MEASURED]]}


def figures_of(run: Run, epochs: int) -> dict[str, Any]:
    """The kinds of the figures of a finished run, after its epochs."""
    final = dict.fromkeys(logged(run), MEASURED)
    figures: dict[str, Any] = {
        "history": history_of(run, epochs),
        "best": BEST | dict.fromkeys(run.at_best, ESTIMATE),
        "final": {**final, "test_accuracy": NUMBER, ...: MEASURED},
    }
    if run.at_start:
        figures["start"] = start_of(run)
    if run.measures:
        figures["curves"] = curves_of(run)
    return figures


def progress_of(run: Run, epochs: int) -> dict[str, Any]:
    """The kinds of what is known of a run after some epochs."""

    def is_epoch(value: Any) -> bool:
        return not fault(value, int) and 0 <= value < epochs

    state = {
        "history": history_of(run, epochs),
        "best": BEST | {"epoch": is_epoch},
        "start": start_of(run),
    }
    return {"state": state, "curves": curves_of(run)}


def history_of(run: Run, epochs: int) -> dict[Any, Any]:
    """A value for each epoch."""

    def is_logged(values: Any) -> bool:
        return not fault(values, list[MEASURED]) and len(values) == epochs

    return {**dict.fromkeys(logged(run), is_logged), ...: is_logged}


def logged(run: Run) -> list[str]:
    """What a run logs because of its settings."""
    measured = [name for key in run.measures for name in (key, *BESIDE.get(key, ()))]
    monitored = MONITORED if run.monitored else ()
    return [*(key for key in measured if key != "batch_accuracy"), *monitored]


def epochs_of(history: Mapping[str, Any]) -> int:
    """How many epochs a history has."""
    return max((len(values) for values in history.values()), default=0)


def start_of(run: Run) -> dict[str, Any]:
    """What is measured before the first epoch."""
    return dict.fromkeys(run.at_start, ESTIMATE)


def curves_of(run: Run) -> dict[str, Any]:
    """The states of the callbacks that measure."""
    curve = {"history": [is_point], "random_state": is_random_state}
    states: dict[str, Any] = {
        "fisher_trace": curve | {"peak": is_number, "early": is_number},
        "early_fisher_trace": {"is_ahead": bool | None, "crossing": is_crossing},
        "batch_accuracy": {"history": [is_point]},
        "gradient_norm": {"history": [is_point]},
    }
    return {key: states.get(key, curve) for key in run.measures}


def is_point(values: Any) -> bool:
    """Whether a value is a point of a curve, `[step, value, ...]`."""
    return isinstance(values, list) and len(values) > 1 and not fault(values, [is_number])


def is_crossing(values: Any) -> bool:
    return values is None or is_point(values)


def is_number(value: Any) -> bool:
    """Whether a value is a number, or null or a name for one that JSON does not have."""
    return value in NAMES if isinstance(value, str) else not fault(value, MEASURED)


def is_random_state(values: Any) -> bool:
    """Whether a value is the state of Keras's generators."""
    return not fault(values, list[int]) and len(values) == 2 and all(0 <= v < 2**32 for v in values)
