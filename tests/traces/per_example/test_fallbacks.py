"""What cannot be taken apart is differentiated one example after another, to the same numbers."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests import reference
from tests.rules import cases
from tests.traces.per_example import loop

tf = pytest.importorskip("tensorflow")

pytestmark = pytest.mark.usefixtures("float64")
TIME, VOCABULARY = 4, 5


def sequential(*kinds):
    return lambda: keras.Sequential([keras.Input((TIME, 3)), *(kind() for kind in kinds)])


class Scaled(layers.Layer):
    """A layer with a weight, a layer inside, an option, and outputs that are not differentiable."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), name="scale")
        self.dense = layers.Dense(2)
        self.dense.build(input_shape)

    def call(self, inputs, power=1):
        return {"x": self.scale * self.dense(inputs) ** power, "any": inputs > 0, "none": None}


class Squared(layers.Dense):
    def call(self, inputs):
        return super().call(inputs) ** 2


class TiedAndSquared(cases.Tied):
    def call(self, inputs):
        return super().call(inputs) ** 2


class Unshaped(keras.Model):
    """A dense layer on an input whose sizes are unknown until the model runs."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(ops.reshape(inputs, (ops.shape(inputs)[0], -1, 6)))


def with_lora():
    """Adapters along an axis of the input, which KerasHub's and Keras's own models do not have."""
    return sequential(
        lambda: layers.EinsumDense("abc,dc->abd", (TIME, 4), lora_rank=2), lambda: layers.Dense(2)
    )()


def tokens(*kinds):
    return lambda: keras.Sequential([keras.Input((TIME,), dtype="int32"), *(k() for k in kinds)])


class InsideADictionary(keras.Model):
    def __init__(self):
        super().__init__()
        self.scaled, self.dense = Scaled(), layers.Dense(2)

    def call(self, inputs):
        return self.dense(self.scaled(inputs, power=2)["x"])


def shared_with_a_rule():
    start, first = keras.Input((TIME, 3)), layers.Dense(3, use_bias=False)
    x = first(start)
    return keras.Model(start, TiedAndSquared(first.kernel)(x))


# The model, and the classes of its layers that have no rule.
LAYERS = {
    "recurrent": (
        tokens(
            lambda: layers.Embedding(VOCABULARY, 3, mask_zero=True),
            lambda: layers.LSTM(3, return_sequences=True),
            lambda: layers.Bidirectional(layers.GRU(2, return_sequences=True)),
            lambda: layers.TimeDistributed(layers.Dense(2)),
        ),
        ["LSTM", "GRU", "TimeDistributed"],
    ),
    "spectral-normalization": (
        sequential(lambda: layers.SpectralNormalization(layers.Dense(3))),
        ["SpectralNormalization"],
    ),
    "one-weight": (
        lambda: keras.Model(x := keras.Input((TIME, 3)), layers.AdditiveAttention()([x, x])),
        ["AdditiveAttention"],
    ),
    "own-weight": (InsideADictionary, ["Scaled"]),
    "lora": (with_lora, ["EinsumDense"]),
    "overridden-call": (sequential(lambda: Squared(3), lambda: layers.Dense(2)), ["Squared"]),
    "kernel-shared-with-a-rule": (shared_with_a_rule, ["TiedAndSquared"]),
    "activation-with-weights": (
        sequential(lambda: layers.Dense(3, activation=layers.PReLU()), lambda: layers.Flatten()),
        ["Dense"],
    ),
}


class Positions(keras.Model):
    """A positional embedding, called on a range."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = layers.Embedding(VOCABULARY, 3), layers.Embedding(TIME, 3)
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(self.tokens(inputs) + self.positions(ops.arange(TIME)))


class OneDense(keras.Model):
    """A dense layer that is used in the way of a subclass."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs):
        if not self.dense.built:
            self.dense.build(inputs.shape)
        return self.use(inputs)


class Folded(OneDense):
    def use(self, inputs):
        return ops.reshape(self.dense(ops.reshape(inputs, (-1, 3))), (-1, TIME, 3))


class Tied(OneDense):
    def use(self, inputs):
        return ops.matmul(ops.tanh(self.dense(inputs)), ops.transpose(self.dense.kernel))


class KernelAlone(OneDense):
    def use(self, inputs):
        return ops.matmul(inputs, self.dense.kernel) + self.dense.bias


class InLoop(OneDense):
    def use(self, inputs):
        return ops.fori_loop(0, 2, lambda i, x: self.dense(x), inputs)


class InBranch(OneDense):
    def use(self, inputs):
        return ops.cond(ops.shape(inputs)[0] > 0, lambda: self.dense(inputs), lambda: inputs)


class InMapOverTime(OneDense):
    def use(self, inputs):
        steps = ops.vectorized_map(self.dense, ops.transpose(inputs, (1, 0, 2)))
        return ops.transpose(steps, (1, 0, 2))


class InMapOverExamples(OneDense):
    def use(self, inputs):
        return ops.vectorized_map(self.dense, inputs)


class InFunction(OneDense):
    def use(self, inputs):
        return tf.function(lambda x: self.dense(x))(inputs)


# The model, and why the whole of it is differentiated one example after another.
MODELS = {
    "positions": (Positions, "layer '.*' has outputs whose first axis is not the batch axis"),
    "time-folded-into-batch": (Folded, "layer 'dense' has outputs whose first axis is not"),
    "kernel-used-outside": (
        Tied,
        "gradient with respect to tied/dense/kernel does not come from recorded calls",
    ),
    "no-layer-called": (KernelAlone, "no layer with trainable weights is called"),
    "loop": (InLoop, "layers with weights are called inside a loop or a branch"),
    "branch": (InBranch, "layers with weights are called inside a loop or a branch"),
    "map-over-time": (InMapOverTime, "layers with weights are called inside a loop or a branch"),
    "map-over-examples": (InMapOverExamples, "layer 'dense' has outputs whose first axis|a loop"),
}
if reference.IS_TENSORFLOW:  # which knows every size, and has no functions of TensorFlow
    LAYERS["unknown-sizes"] = (Unshaped, ["Dense"])
    MODELS["function"] = (InFunction, MODELS["loop"][1])


def made(make, examples=3):
    """The model with random weights, inputs and targets."""
    model = make()
    x = loop.normal(examples, TIME, 3)
    if isinstance(model, Positions) or (model.built and model.inputs[0].dtype == "int32"):
        x = np.random.default_rng(0).integers(1, VOCABULARY, (examples, TIME)).astype("int32")
        x[0, -1] = 0  # which may be masked
    shape = model(x).shape
    return loop.randomise(model), x, loop.normal(*shape, seed=2)


def check(model, x, y, tolerance=1e-10):
    found, messages = loop.measured(model, x, y)
    assert loop.relative_error(found, loop.loop(model, x, y)) < tolerance
    return messages


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_layers_without_a_rule_give_the_same_numbers_and_are_named(name):
    make, classes = LAYERS[name]
    messages = check(*made(make), 1e-6 if name == "lora" else 1e-10)  # adapters are float32
    assert [message.split()[3] for message in messages] == classes
    assert all(message.startswith("Layers of class") for message in messages)


@pytest.mark.matrix
@pytest.mark.parametrize("name", MODELS)
def test_models_that_cannot_be_taken_apart_give_the_same_numbers_and_say_why(name):
    make, reason = MODELS[name]
    [message] = check(*made(make))
    assert message.startswith("Model '")
    assert re.search(reason, message)


def test_a_fallback_is_logged_once():
    with loop.logged() as messages:
        for _ in range(2):
            model, x, y = made(sequential(lambda: Squared(3)))
            loop.SquaredGradientNorms(model, lambda outputs, y: y, loop.half_squares)(x, y)
    assert len(messages) == 1


@pytest.mark.matrix
@pytest.mark.parametrize("mode", ["full", "activations", "larger_than", "list_of_layers"])
def test_recomputed_activations_are_no_reason_for_a_fallback(mode):
    options = {"output_size_threshold": 1, "layer_names": ["recomputed"]}
    with keras.RematScope(mode, **options):
        kinds = [lambda: layers.Dense(4, "tanh", name="recomputed"), lambda: Squared(2)]
        model, x, y = made(sequential(*kinds))
    [message] = check(model, x, y)
    assert message.startswith("Layers of class Squared")  # which has no rule, recomputed or not
    assert model.layers[0]._remat_mode.mode == mode


def test_layers_that_are_not_called_and_weights_that_do_not_matter_count_zero():
    class Unused(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused, self.ignored = (layers.Dense(2) for _ in range(3))

        def call(self, inputs):
            self.ignored(inputs)
            if not self.unused.built:
                self.unused(inputs)
            return self.used(inputs)

    model, x, y = made(Unused)
    found, messages = loop.measured(model, x, y)
    assert not messages
    assert found == pytest.approx(loop.loop(model, x, y), rel=1e-10)
    paths = [weight.path for weight in model.trainable_weights]
    assert [path for path, n in zip(paths, found.sum(axis=0), strict=True) if n > 0] == paths[:2]


def test_what_is_trained_inside_a_frozen_layer_is_no_reason_for_a_fallback():
    inner = keras.Sequential([layers.Dense(4, "tanh"), layers.Dense(3)])
    model, x, y = made(sequential(lambda: layers.Dense(3), lambda: inner, lambda: layers.Dense(2)))
    inner.trainable = False
    inner.layers[0].trainable = True  # as LoRA does in a model that is frozen otherwise
    found, messages = loop.measured(model, x, y)
    assert not messages
    assert found.shape == (3, 6)
    assert loop.relative_error(found, loop.loop(model, x, y)) < 1e-10


class Rotary(keras.layers.Layer):
    """A layer without a rule that is given a table without a batch axis."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x, table):
        return x * self.w * table


class RotaryNet(keras.Model):
    def __init__(self):
        super().__init__()
        self.rotary, self.head = Rotary(), keras.layers.Dense(3)

    def call(self, x, training=None):
        places = keras.ops.arange(1.0, x.shape[1] + 1)
        table = keras.ops.cos(places[:, None] * keras.ops.arange(1.0, x.shape[2] + 1))
        return self.head(keras.ops.sum(self.rotary(x, table=table), axis=1))


def test_a_table_as_long_as_the_batch_has_no_batch_axis():
    length = 6
    model, x, y = RotaryNet(), loop.normal(20, length, 4), loop.normal(20, 3)
    model(x[:1])
    measure = loop.SquaredGradientNorms(
        model, lambda outputs, y: y, lambda y, outputs: loop.half_squares(y, outputs)
    )
    parts = [slice(0, 7), slice(7, 14), slice(14, 14 + length)]  # the third is not compared
    found = np.concatenate([measure(x[part], y[part]) for part in parts])
    np.testing.assert_allclose(found, loop.loop(model, x, y), rtol=1e-4)
