"""Every rule against a float64 loop over single examples, with the same weights and inputs."""

import functools

import keras
import numpy as np
import pytest

from tests.rules import cases, portable
from tests.traces.per_example import loop

pytestmark = pytest.mark.usefixtures("float64")

GROUPS = {**cases.KINDS, **cases.COMBINATIONS, "one-of-each": cases.ONE_OF_EACH}
# float64: rounding alone, so that a slip in a formula shows. float32: what the package promises.
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
# Keras computes adapters in float32 under any policy.
TOLERANCE_OF_LORA = {"float64": 1e-6, "float32": 1e-5}


def use(policy):
    keras.config.set_floatx("float64" if policy == "float64" else "float32")
    keras.config.set_dtype_policy(policy)


@functools.cache
def by_loop(group, examples):
    use("float64")
    with portable.convolutions():
        made = cases.side_by_side(GROUPS[group], examples)
        return loop.loop(made.model, made.x, made.y)


@functools.cache
def by_rules(group, policy, examples):
    """Returns the squared norms, the weights of each case in them, and what was logged."""
    use(policy)
    with portable.convolutions():
        made = cases.side_by_side(GROUPS[group], examples)
        found, fallbacks = loop.measured(made.model, made.x, made.y)
    return found, made.columns, fallbacks


def check(group, case, policy, examples=3):
    expected = by_loop(group, examples)
    found, columns, fallbacks = by_rules(group, policy, examples)
    assert not fallbacks
    weights = columns[case]
    tolerance = TOLERANCE_OF_LORA if "lora" in case else TOLERANCE
    assert loop.relative_error(found[:, weights], expected[:, weights]) < tolerance[policy]


def params(groups):
    pairs = [(group, case) for group in groups for case in groups[group]]
    return [pytest.param(group, case, id=f"{group}-{case}") for group, case in pairs]


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
@pytest.mark.parametrize("policy", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("group", "case"), params(cases.KINDS))
def test_rule_gives_the_squared_norm_of_each_examples_gradient(group, case, policy):
    check(group, case, policy)


@pytest.mark.slow
@pytest.mark.parametrize(("group", "case"), params(cases.COMBINATIONS))
def test_convolutions_are_right_in_every_combination_of_options(group, case):
    check(group, case, "float64", examples=2)


@pytest.mark.slow
@pytest.mark.parametrize("case", cases.ONE_OF_EACH)
def test_traces_are_right_in_mixed_precision(case):
    # bfloat16 rounds by up to 0.4 %, which makes errors of some per cent in single examples.
    expected = by_loop("one-of-each", examples=6)
    found, columns, fallbacks = by_rules("one-of-each", "mixed_bfloat16", examples=6)
    assert not fallbacks
    traces, expected = (np.mean(a[:, columns[case]], axis=0) for a in (found, expected))
    assert loop.relative_error(traces, expected) < 2e-2


def test_convolutions_that_keras_compiles_are_right():
    made = cases.side_by_side({"grouped": cases.BY_XLA}, examples=2)
    found, fallbacks = loop.measured(made.model, made.x, made.y)
    assert not fallbacks
    assert loop.relative_error(found, loop.loop(made.model, made.x, made.y)) < 1e-10


def test_frozen_layers_are_not_measured():
    made = cases.side_by_side({"frozen": cases.DENSE["frozen"]})
    names = [weight.path.split("/")[-1] for weight in made.model.trainable_weights]
    assert names == ["kernel", "bias", "beta", "kernel", "bias"]  # two dense layers and half a norm
    assert loop.measured(made.model, made.x, made.y)[0].shape == (3, 5)
