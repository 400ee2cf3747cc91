"""A batch that would take too much memory is measured in parts."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_fisher.traces.per_example import SquaredGradientNorms, norms
from tests.traces.per_example import loop

BATCH = 11


@pytest.fixture
def parts(monkeypatch):
    """The numbers of examples that are measured at a time."""
    sizes, compiled = [], norms.backend.compile_function

    def counting(function):
        measure = compiled(function)

        def call(x, *arguments):
            sizes.append(len(x))
            return measure(x, *arguments)

        return call

    monkeypatch.setattr(norms.backend, "compile_function", counting)
    return sizes


def made():
    """A model whose layers keep some hundreds of numbers for each example, inputs and targets."""
    model = keras.Sequential(
        [keras.Input((100, 10)), layers.Dense(2), layers.Flatten(), layers.Dense(20)]
    )
    return loop.randomise(model), loop.normal(BATCH, 100, 10), loop.normal(BATCH, 20, seed=2)


def in_parts(parts):
    """Measures twice; returns the norms and how the second batch was split."""
    model, x, y = made()
    measure = SquaredGradientNorms(model, lambda outputs, y: y, loop.half_squares)
    measure(x, y)
    parts.clear()
    return measure(x, y), list(parts)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("limit", "numbers"), [("_MOST_KEPT", 20_000), ("_MOST_TEMPORARY", 5_000)])
def test_a_batch_that_would_not_fit_is_split_and_gives_the_same(parts, monkeypatch, limit, numbers):
    whole, sizes = in_parts(parts)
    assert sizes == [BATCH]
    monkeypatch.setattr(norms, limit, numbers)
    split, sizes = in_parts(parts)
    assert sum(sizes) == BATCH
    assert 1 < max(sizes) < BATCH
    assert max(sizes) - min(sizes) <= 1
    assert split == pytest.approx(whole, rel=1e-12)


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("limit", ["_MOST_KEPT", "_MOST_TEMPORARY"])
def test_the_less_memory_the_smaller_the_parts(parts, monkeypatch, limit):
    largest = []
    for numbers in (1, 5_000, 10_000, 2**30):
        monkeypatch.setattr(norms, limit, numbers)
        largest.append(max(in_parts(parts)[1]))
    assert largest == sorted(largest)
    assert largest[0] == 1  # an example that does not fit is measured all the same
    assert len(set(largest)) > 2


@pytest.mark.usefixtures("float64")
def test_a_batch_is_never_larger_than_what_its_numbers_allow(parts, monkeypatch):
    # Each example keeps the inputs and outputs of both layers: 1000 + 200 + 200 + 20 numbers at
    # least, and as many gradients of outputs.
    monkeypatch.setattr(norms, "_MOST_KEPT", 6_000)
    assert max(in_parts(parts)[1]) <= 6_000 // (1_420 + 220)


@pytest.mark.usefixtures("float64")
def test_examples_of_one_batch_do_not_change_those_of_another():
    model, x, y = made()
    measure = SquaredGradientNorms(model, lambda outputs, y: y, loop.half_squares)
    whole = measure(x, y)
    for start, end in ((0, 1), (1, 4), (4, BATCH)):
        assert measure(x[start:end], y[start:end]) == pytest.approx(whole[start:end], rel=1e-12)
    assert np.all(whole > 0)
