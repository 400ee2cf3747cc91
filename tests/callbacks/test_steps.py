"""Where the count of steps starts."""

import keras
import pytest

from keras_fisher.callbacks._base import StepCounter
from tests import nets


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (keras.optimizers.SGD(), 7),
        (keras.optimizers.SGD(gradient_accumulation_steps=3), 7),
        (keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), 7),
        (
            keras.optimizers.LossScaleOptimizer(
                keras.optimizers.SGD(gradient_accumulation_steps=3)
            ),
            7,
        ),
    ],
)
def test_starts_where_the_optimizer_is(optimizer, expected):
    model = nets.plain("dense", optimizer)
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    inner._iterations.assign(7)  # batches, of which `iterations` counts those that updated
    assert StepCounter(model, "epoch").taken == expected


def test_starts_at_0_where_no_optimizer_counts():
    model = nets.plain("dense", None)
    assert StepCounter(model, "epoch").taken == 0
