"""The settings that runs must share to be averaged, or compared in a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from experiment.errors import SettingsError
from experiment.plan.setting import Run

# Fields that averaged runs have in common ...
IDENTITY = ["part", "noise", "noise_source", "method", "value"]
OF_A_SEED = ("seed", "data_seed", "initial")  # ... and those that may differ.
# The fields that a value may set: one of these differs between the values of a method.
SET_BY_VALUE = (
    *("alpha", "learning_rate", "mixup_beta", "batch_size"),
    *("label_smoothing", "gce_q", "elr", "radius"),
)
# Fields that all runs of a part have in common, except the epochs of continued runs.
OF_A_PART = (
    *("network", "width", "dataset", "num_train", "validation_size", "test_size", "augment"),
    *("optimizer", "weight_decay", "epochs", "drops", "drop_factor", "fisher_examples"),
    "steps_per_epoch",
)


def check_comparable(runs: Iterable[Mapping[str, Any]]) -> None:
    """Raises if runs that a table averages or compares differ in undeclared settings.

    Raises:
        SettingsError: if runs of one part differ in data, network, epochs or similar settings, or
            runs of one method differ in more than their seeds and the fields that a value sets.
    """
    frame = pd.DataFrame(list(runs))
    if frame.empty:
        return
    settings = [field.name for field in dataclasses.fields(Run) if field.name not in OF_A_SEED]
    for _, group in frame.groupby(["part", frame["initial"] != ""]):
        check_same(group, OF_A_PART, "have the same task to be compared")
    for _, group in frame.groupby(IDENTITY):
        check_same(group, settings, "differ only in their seeds to be averaged")
    for _, group in frame.groupby(["part", "noise", "noise_source", "method"]):
        varied = next((name for name in SET_BY_VALUE if group[name].nunique() > 1), "value")
        others = [name for name in settings if name not in ("value", varied)]
        check_same(group, others, f"differ only in {varied} to be compared")


def check_same(runs: pd.DataFrame, settings: Iterable[str], must: str) -> None:
    """Raises unless runs agree in the given settings."""
    first = runs.iloc[0]
    for name in settings:
        for run, found in zip(runs["name"], runs[name], strict=True):
            if found != first[name]:
                raise SettingsError(
                    f"{first['name']} and {run} must {must}. {name} is {first[name]} and {found}. "
                    "Give them separate folders."
                )
