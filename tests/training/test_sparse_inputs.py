"""Sparse inputs: whole batches are trained on, and what takes a part of one says what it needs."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_fisher as kf
from tests import nets, reference
from tests.traces.measures import MEASURES

tf = pytest.importorskip("tensorflow")
sparse = pytest.importorskip("scipy.sparse")

pytestmark = reference.tensorflow_only
DENSE = np.random.default_rng(0).binomial(1, 0.4, (6, 5)).astype("float32")
X, Y = tf.sparse.from_dense(DENSE), nets.labels(6)
PARTS = [
    {"penalty_batch_size": 2},
    {"penalty_batch_size": 0.5},
    {"micro_batch_size": 2},
    {"penalty": "gp_x"},
]


def net(is_sparse=True):
    inputs = keras.Input((5,), sparse=is_sparse)
    made = keras.Sequential([inputs, layers.Dense(4, "tanh"), layers.Dense(nets.CLASSES)])
    generator = np.random.default_rng(1)
    for weight in made.weights:
        weight.assign(generator.normal(size=weight.shape))
    made.compile("sgd", nets.loss())
    return made


def trained(x, **arguments):
    model = kf.FisherPenaltyModel(net(not isinstance(x, np.ndarray)), 0.1, seed=0, **arguments)
    model.compile("sgd", nets.loss(), run_eagerly=True)
    logs = model.train_on_batch(x, Y, return_dict=True)
    return nets.flat(model.weights), logs["penalty"]


def test_whole_batches_train_as_dense_ones_do():
    for found, expected in zip(trained(X), trained(DENSE), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.matrix
@pytest.mark.parametrize("arguments", PARTS, ids=str)
def test_what_takes_a_part_of_a_batch_asks_for_dense_inputs(arguments):
    with pytest.raises(ValueError, match=r"`x` must be dense .*\. Received: SparseTensor\."):
        trained(X, **arguments)
    trained(DENSE, **arguments)


DATA = {
    "tensor": lambda: (X, Y),
    "inside a dictionary": lambda: ({"x": X}, Y),
    "dataset": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(2),
    "iterable of batches": lambda: iter([(X, Y)]),
    "scipy": lambda: (sparse.csr_matrix(DENSE), Y),
}


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("measure", [*MEASURES, kf.tuning.alpha_range])
def test_measures_ask_for_dense_data(measure, kind):
    message = r"`data` must hold dense arrays.* Received: (Sparse|csr)"
    with pytest.raises(ValueError, match=message):
        measure(net(), DATA[kind]())
