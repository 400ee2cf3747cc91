"""What needs only shapes computes no values with JAX, and so compiles nothing."""

import keras
import numpy as np

from tests import reference

pytestmark = reference.jax_only


def test_an_abstract_run_gives_no_values_and_finds_the_variables_read():
    import jax

    from keras_fisher.backend.jax.stateless import find_read_variables

    net = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()]
    )
    unread = keras.Variable(1.0)
    results = []
    read = find_read_variables(lambda x: results.append(net(x)), np.ones((2, 4), "float32"))
    assert {id(variable) for variable in read} == {id(variable) for variable in net.weights}
    assert id(unread) not in {id(variable) for variable in read}
    assert all(isinstance(result, jax.core.Tracer) for result in results)
    assert results[0].shape == (2, 3)


def test_operations_on_weights_alone_are_abstract_too():
    import jax

    from keras_fisher import backend

    weight, results = keras.Variable(np.ones(3)), []
    backend.run_abstractly(lambda: results.append(keras.ops.sqrt(weight + 1.0)))
    assert isinstance(results[0], jax.core.Tracer)
