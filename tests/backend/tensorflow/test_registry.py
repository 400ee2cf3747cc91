"""What TensorFlow's registry of gradients holds, and for how long."""

import gc

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets, reference

tf = pytest.importorskip("tensorflow")
from tensorflow.python.framework.func_graph import FuncGraph  # noqa: E402

from keras_fisher.backend.private_api.tensorflow import (  # noqa: E402
    list_gradients,
    look_up_gradient,
)
from keras_fisher.backend.tensorflow import registry  # noqa: E402
from keras_fisher.backend.tensorflow.registry import free_with_graphs  # noqa: E402

pytestmark = reference.tensorflow_only


def kept():
    """How many gradients TensorFlow has, and how many graphs are in memory."""
    gc.collect()
    graphs = sum(isinstance(found, FuncGraph) for found in gc.get_objects())
    return len(list_gradients()), graphs


def trained():
    model = nets.compiled("dense", keras.optimizers.Adam(), alpha=0.1)
    x, y = nets.inputs("dense"), nets.labels()
    model.fit(x, y, verbose=0)
    model.evaluate(x, y, verbose=0)


def measured(measure, **arguments):
    net = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3), keras.layers.Flatten()]
    )
    data = np.ones((2, 4, 4, 1)), np.array([0, 1])
    measure(net, data, likelihood=kf.likelihoods.Categorical(), **arguments)


USES = {
    "a penalty": trained,
    "fisher_trace": lambda: measured(kf.fisher_trace),
    "hessian_trace": lambda: measured(kf.hessian_trace, num_probes=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", USES)
def test_a_model_that_is_done_with_leaves_nothing(name):
    USES[name]()  # what is made once and for all
    before = kept()
    USES[name]()
    assert kept() == before


def silu_in_a_loop():
    """A function with custom gradients in a loop, and what differentiates it in another graph."""

    @tf.function
    def inner(x):
        body = lambda index, value: (index + 1, tf.nn.silu(2.0 * value))  # noqa: E731
        return tf.nn.silu(tf.while_loop(lambda index, _: index < 3, body, (0, x))[1])

    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = inner(x)
        return tape.gradient(value, x)

    return slope


def test_custom_gradients_live_as_long_as_the_graphs_that_they_are_in():
    x = tf.constant(1.0)
    expected = float(tf.function(silu_in_a_loop())(x))
    before = kept()
    slope = silu_in_a_loop()
    with free_with_graphs():
        assert float(tf.function(slope)(x)) == expected
    assert kept()[0] == before[0] + 2  # the graph of `inner` is still there
    assert float(tf.function(slope)(x)) == expected
    del slope
    assert kept() == before


def test_other_registrations_are_as_ever():
    with free_with_graphs():

        @tf.RegisterGradient("KerasFisherTest")
        def gradient(op, g):
            return g

    assert look_up_gradient("KerasFisherTest") is gradient
    del list_gradients()["KerasFisherTest"]


def test_kernels_are_freed_when_a_model_has_ended(monkeypatch):
    cleared = []
    monkeypatch.setattr(registry, "clear_kernel_cache", lambda: cleared.append(True))
    cache, first, second = registry.KernelCache(), keras.Model(), keras.Model()
    cache.free_with(first)
    cache.free_with(second)
    assert cleared == []
    del first
    gc.collect()
    for _ in range(2):
        cache.free_with(second)
    assert cleared == [True]
