"""Private APIs of other packages do what is asked of them."""

import pathlib
import re

import keras
import numpy as np
import pytest

import keras_fisher
from keras_fisher.backend.private_api import keras as private_keras
from tests import reference

PACKAGE = pathlib.Path(keras_fisher.__file__).parent
SHELF = PACKAGE / "backend" / "private_api"
PRIVATE = re.compile(r"\bkeras\.src\b|\btensorflow\.python\b|_getframe|\._flatten_layers\b")


def dense(*inside):
    return keras.Sequential([keras.Input((2,)), *inside, keras.layers.Dense(2, name="head")])


def test_nothing_else_uses_private_modules():
    users = [p for p in PACKAGE.rglob("*.py") if PRIVATE.search(p.read_text())]
    assert {path.parent for path in users} == {SHELF}


def test_the_layout_of_a_variable_is_that_it_was_made_with():
    layout = None
    if reference.IS_JAX:
        devices = keras.distribution.list_devices()[:1]
        mesh = keras.distribution.DeviceMesh((1,), ["batch"], devices)
        layout = keras.distribution.TensorLayout(["batch"], mesh)
    variable = keras.Variable("zeros", (2,), layout=layout)
    assert private_keras.get_layout(variable) is layout


def test_a_mask_is_found_on_the_tensor_that_was_given_it():
    tensor, mask = keras.ops.ones((2, 3)), keras.ops.ones((2,), "bool")
    assert private_keras.get_mask(tensor) is None
    private_keras.set_mask(tensor, mask)
    assert private_keras.get_mask(tensor) is mask


def test_the_calling_layer_is_the_outermost():
    found = []

    class Asks(keras.layers.Layer):
        def call(self, x):
            found.append(private_keras.find_calling_layer())
            return x

    model = dense(dense(Asks()))
    found.clear()
    model(np.ones((1, 2)))
    assert found == [model]
    assert private_keras.find_calling_layer() is None


def test_every_step_is_counted_also_those_that_only_accumulate():
    model = dense()
    model.compile(keras.optimizers.SGD(gradient_accumulation_steps=3), "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 2)), batch_size=1, verbose=0)
    assert int(private_keras.get_step_variable(model.optimizer)) == 4
    assert private_keras.get_step_variable(None) == 0


def test_a_stateless_call_is_known_as_one():
    assert not private_keras.is_stateless()
    with keras.StatelessScope():
        assert private_keras.is_stateless()


class Asking(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.found = private_keras.find_callback_list(self)


def test_the_calling_list_is_that_of_the_fit():
    model, first, second = dense(), Asking(), Asking()
    model.compile("sgd", "mse")
    model.fit(np.ones((2, 2)), np.ones((2, 2)), callbacks=[first, second], verbose=0)
    assert first.found is second.found
    assert first.found.callbacks[:2] == [first, second]
    assert private_keras.find_callback_list(first) is None


def test_the_unseeded_generator_is_the_one_that_draws():
    assert private_keras.find_unseeded_generator(create=False) is None
    generator = private_keras.find_unseeded_generator(create=True)
    before = np.array(generator.state)
    keras.random.normal((2,))
    assert np.any(np.array(generator.state) != before)
    assert private_keras.find_unseeded_generator(create=False) is generator


def test_layers_are_listed_at_every_depth():
    inner = dense()
    model = keras.Sequential([keras.Input((3, 2)), keras.layers.TimeDistributed(inner)])
    names = [layer.name for layer in private_keras.list_all_layers(model)]
    assert "head" in names
    assert private_keras.list_inner_layers(model.layers[0]) == [inner]


def test_losses_of_the_latest_call_come_back():
    model = dense(keras.layers.ActivityRegularization(1.0))
    model(np.ones((1, 2)))
    before = [float(loss) for loss in model.losses]
    with private_keras.preserve_losses(model):
        model(np.full((1, 2), 3.0))
        assert [float(loss) for loss in model.losses] != before
    assert [float(loss) for loss in model.losses] == before


def test_a_variables_own_value_is_not_that_of_the_scope():
    variable = keras.Variable([1.0])
    with keras.StatelessScope([(variable, keras.ops.ones((1,)) * 2.0)]):
        assert float(variable.value[0]) == 2.0
        assert float(private_keras.read_own_value(variable)[0]) == 1.0


def test_build_waits_for_call():
    order = []

    class Late(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = keras.layers.Dense(2)

        @private_keras.build_after_call
        def build(self, shape):
            order.append("build")

        def call(self, x):
            order.append("call")
            return self.inner(x)

    Late()(np.ones((1, 2)))
    assert order[0] == "call"


@reference.tensorflow_only
def test_the_gradient_registry_is_the_one_that_tapes_read(monkeypatch):
    import tensorflow as tf

    from keras_fisher.backend.private_api import tensorflow as private_tensorflow

    entries = private_tensorflow.list_gradients()
    assert entries["Square"]["type"] is private_tensorflow.look_up_gradient("Square")
    monkeypatch.setitem(entries["Square"], "type", lambda op, g: 7.0 * g)
    x = tf.constant(1.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.square(x)
    assert float(tape.gradient(y, x)) == 7.0
    with pytest.raises(LookupError):
        private_tensorflow.look_up_gradient("NoSuchOperation")


@reference.tensorflow_only
def test_a_recorded_operation_has_the_gradient_that_was_given():
    import tensorflow as tf

    from keras_fisher.backend.private_api.tensorflow import record_operation, stop_recording

    x = tf.constant(2.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        with stop_recording():
            y = x * x
        record_operation("Example", [y], [x], lambda g: [5.0 * g])
    assert float(tape.gradient(y, x)) == 5.0


@reference.tensorflow_only
def test_functions_run_after_the_kernel_cache_was_cleared():
    import tensorflow as tf

    from keras_fisher.backend.private_api.tensorflow import FuncGraph, clear_kernel_cache

    double = tf.function(lambda x: 2.0 * x)
    assert float(double(tf.constant(1.0))) == 2.0
    clear_kernel_cache()
    assert float(double(tf.constant(3.0))) == 6.0
    assert isinstance(double.get_concrete_function(tf.constant(1.0)).graph, FuncGraph)
