"""Forward passes of a step whose layers do not read their weights as usual."""

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets, reference

tf = pytest.importorskip("tensorflow")
pytestmark = reference.tensorflow_only

X, Y = nets.inputs("dense"), nets.labels()
OPTIONS = [
    {},
    {"penalty_batch_size": nets.BATCH},
    {"micro_batch_size": 2},
    {"gradient": "finite_difference"},
    {"micro_batch_size": 2, "gradient": "finite_difference"},
]


class Scaling(keras.layers.Layer):
    """A layer of the user."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return keras.ops.tanh(x * self.scale)


class Traced(Scaling):
    """The same, traced when the functional model is built."""

    call = tf.function(Scaling.call)


def kept_gradient(net, **options):
    model = kf.FisherPenaltyModel(net, 1.0, penalty="gp", update_freq=1, **options)
    return nets.first_penalty(model, nets.loss(), X, Y)[1]


def deep(layer=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(5, "tanh")(inputs)
    x = x if layer is None else layer()(x)
    return keras.Model(inputs, keras.layers.Dense(nets.CLASSES)(x))


def in_scope(mode, make):
    with keras.RematScope(mode):
        return make()


# In a graph, Keras itself fails to compute a whole `Dense` again.
AGAIN = {"full": Scaling, "activations": lambda: keras.layers.Dense(5, "tanh")}


@pytest.mark.parametrize("mode", AGAIN)
@pytest.mark.parametrize("options", OPTIONS)
def test_layers_that_compute_again_count_in_the_penalty(mode, options):
    found = kept_gradient(deep(lambda: in_scope(mode, AGAIN[mode])), **options)
    expected = kept_gradient(deep(AGAIN[mode]), **options)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS[1:])
def test_a_traced_layer_is_refused_where_it_would_be_left_out(options):
    with pytest.raises(NotImplementedError, match=r"traced/scale'.*gradient='exact' without"):
        kept_gradient(deep(lambda: Traced(name="traced")), **options)


def test_a_traced_layer_counts_in_a_single_pass():
    found, expected = (kept_gradient(deep(layer)) for layer in (Traced, Scaling))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
