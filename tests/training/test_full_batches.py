"""The expected penalty of a step does not depend on how many examples its batch has."""

import itertools

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets

FULL = 4
X = np.random.default_rng(0).normal(size=(FULL, 2)).astype("float32")


def net():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])


def model_after_a_full_batch(**arguments):
    """Its weights do not move."""
    model = kf.FisherPenaltyModel(net(), penalty="gp", update_freq=1, **arguments)
    model.compile(keras.optimizers.SGD(0.0), nets.loss())
    model.train_on_batch(X, np.zeros(FULL, int))
    return model


def expected_penalty(model, examples):
    """The sum over all labels that `fp` could draw of their probability and their penalty."""
    p = keras.ops.convert_to_numpy(keras.ops.softmax(model.backbone(X[:examples])))
    total = 0.0
    for labels in itertools.product((0, 1), repeat=examples):
        logs = model.train_on_batch(X[:examples], np.array(labels), return_dict=True)
        total += np.prod(p[np.arange(examples), labels]) * logs["penalty"]
    return total


def trace(examples):
    likelihood = kf.likelihoods.Categorical()
    return kf.fisher_trace(net(), (X[:examples], None), labels="expected", likelihood=likelihood)


@pytest.mark.matrix
@pytest.mark.parametrize("parts", [None, 2])
@pytest.mark.parametrize(
    ("size", "taken", "full"),
    [
        (None, {1: 1, 2: 2, 3: 3, 4: 4}, FULL),
        (0.5, {1: 1, 2: 1, 3: 2, 4: 2}, FULL),
        (2, {1: 1, 2: 2, 3: 2, 4: 2}, 2),
        (9, {1: 1, 3: 3, 4: 4}, FULL),
    ],
)
def test_the_expected_penalty_is_that_of_a_full_batch(size, taken, full, parts):
    model = model_after_a_full_batch(penalty_batch_size=size, micro_batch_size=parts)
    for examples, of_those in taken.items():
        expected = trace(of_those).value / full
        assert expected_penalty(model, examples) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_the_size_of_a_full_batch_is_saved(tmp_path):
    model = model_after_a_full_batch()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    last = (X[:1], np.zeros(1, int))
    expected = model.train_on_batch(*last, return_dict=True)["penalty"]
    assert again.train_on_batch(*last, return_dict=True)["penalty"] == expected


def test_every_fit_has_its_own_full_batch():
    def penalty(*sizes):
        model = kf.FisherPenaltyModel(net(), penalty="gp", update_freq=1)
        model.compile(keras.optimizers.SGD(0.0), nets.loss())
        for size in sizes:
            x, y = X[:size], np.zeros(size, int)
            history = model.fit(x, y, batch_size=size, verbose=0).history
        return history["penalty"][-1]

    assert penalty(FULL, 2) == penalty(2)


def test_alpha_range_takes_no_smaller_batch_for_a_full_one():
    model = net()
    model.compile("sgd", nets.loss())
    data = (X, np.arange(FULL) % 2)
    with pytest.raises(ValueError, match="num_batches=2 and 1 mini-batches"):
        kf.tuning.alpha_range(model, data, num_batches=2, batch_size=3)
