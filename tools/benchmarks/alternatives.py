"""What the methods of `recipes/alternatives.py` cost in training."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.backend import repeat
from benchmarks.measurement import Measurement, Row, Settings, ratio_row, take_turns, time_call

RECIPES = str(Path(__file__).parents[2] / "recipes")
PART, QUICK_PART = "simple_cnn_c10_noise50", "mlp_digits_noise50"
STEPS = 20  # a measurement takes; twice the steps between two computations of the penalty


def alternatives(settings: Settings) -> Iterator[Row]:
    """Training steps of each method over those of cross-entropy, all in this process."""
    if RECIPES not in sys.path:
        sys.path.insert(0, RECIPES)
    from alternatives import PRESETS, WAYS, plan
    from experiment.plan.cost import count_step_cost

    part = QUICK_PART if settings.is_quick else PART
    setting = dataclasses.replace(PRESETS["small"][part], seeds=(0,), steps_per_execution=1)
    runs: dict[Any, Any] = {run.method: run for run in plan(part, setting, {})}
    measurements = [measure_steps(run, settings.is_quick) for run in runs.values()]
    seconds, _ = take_turns(measurements, settings.repeats, f"alternatives, {part}")
    plain = seconds[list(runs).index("baseline")]
    for (method, run), own in zip(runs.items(), seconds, strict=True):
        quantity = f"{WAYS[method].title}: step / cross-entropy"
        yield ratio_row(part, quantity, own, plain, count_step_cost(run))


def measure_steps(run: Any, is_quick: bool) -> Measurement:
    """Returns what times the steps of a run on its first mini-batch."""
    from experiment.run.data import load_data
    from experiment.run.model import build_model

    data = load_data(run)
    model = build_model(run, data)
    first = next(iter(data.make_batches(0)))
    x, y = (np.array(keras.ops.convert_to_numpy(part)) for part in first)
    steps = 2 if is_quick else STEPS
    fit = partial(model.fit, repeat(x, y), steps_per_epoch=steps, shuffle=False, verbose=0)
    return time_call(fit)
