"""Small networks of every kind that the penalty must be right for, one table for all tests."""

import functools
import math

import keras
import numpy as np
from keras import layers

from keras_fisher import FisherPenaltyModel
from keras_fisher.likelihoods import Categorical
from tests import reference

BATCH, CLASSES = 6, 3


def dense():
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, activation="tanh"), layers.Dense(CLASSES)]
    )


def batch_norm_cnn(synchronized=False):
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, strides=2, activation="gelu"),
            layers.BatchNormalization(synchronized=synchronized),
            layers.Conv2D(2, 2, activation="tanh"),
            layers.BatchNormalization(synchronized=synchronized),
            layers.Flatten(),
            layers.Dense(CLASSES),
        ]
    )


def group_norm_cnn():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, activation="gelu"),
            layers.GroupNormalization(2),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(CLASSES),
        ]
    )


def attention():
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4)(tokens)
    # With its scores; without, JAX has a softmax in single precision for it.
    attended, _ = layers.MultiHeadAttention(2, 2)(x, x, return_attention_scores=True)
    x = x + attended
    x = layers.LayerNormalization()(x)
    x = layers.Dense(4, activation="gelu")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(tokens, layers.Dense(CLASSES)(x))


def recurrent():
    return keras.Sequential(
        [keras.Input((4, 3)), layers.LSTM(3), layers.LayerNormalization(), layers.Dense(CLASSES)]
    )


def two_inputs():
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    x = layers.Concatenate()([layers.Dense(3, activation="tanh")(left), right])
    return keras.Model({"left": left, "right": right}, layers.Dense(CLASSES)(x))


@keras.saving.register_keras_serializable("keras_fisher_tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(4, activation="softplus")
        self.norm = layers.BatchNormalization()
        self.head = layers.Dense(CLASSES)

    def call(self, inputs, training=None):
        return self.head(self.norm(self.hidden(inputs), training=training))


def dropout():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, activation="tanh"),
            layers.Dropout(0.3, seed=3),
            layers.Dense(CLASSES),
        ]
    )


def pooled_cnn():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 2, activation="tanh"),
            layers.MaxPooling2D(3, 1, "same"),
            layers.Conv2D(4, 1, activation="tanh"),
            layers.Flatten(),
            layers.Dense(CLASSES),
        ]
    )


NETS = {
    "dense": dense,
    "batch_norm_cnn": batch_norm_cnn,
    "group_norm_cnn": group_norm_cnn,
    "pooled_cnn": pooled_cnn,
    "attention": attention,
    "recurrent": recurrent,
    "two_inputs": two_inputs,
    "subclassed": Subclassed,
    "dropout": dropout,
}
if reference.IS_TENSORFLOW:
    NETS["synchronized_cnn"] = functools.partial(batch_norm_cnn, synchronized=True)


class Product(layers.Layer):
    """The linear layer that it is given, as a product with its matrix."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def build(self, input_shape):
        high, wide = input_shape[1:3]
        images = np.eye(high * wide).reshape(-1, high, wide, 1)
        product = array(self.layer(images))
        self.matrix = product.reshape(high, wide, *product.shape[1:3])

    def call(self, inputs):
        matrix = keras.ops.cast(self.matrix, inputs.dtype)
        return keras.ops.einsum("nijc,ijkl->nklc", inputs, matrix)


def build(name, seed=0):
    """Returns the net with its initial weights, built."""
    keras.utils.set_random_seed(seed)
    net = NETS[name]()
    net(keras.tree.map_structure(keras.ops.convert_to_tensor, inputs(name)))
    generator = np.random.default_rng(seed)
    for weight in net.trainable_weights:  # biases, betas and gammas off their special values
        weight.assign(weight + 0.3 * generator.normal(size=weight.shape))
    return net


def inputs(name, batch=BATCH, seed=1):
    """Returns a batch of inputs for the net."""
    generator = np.random.default_rng(seed)
    if name == "attention":
        return generator.integers(0, 7, (batch, 5)).astype("int32")
    floatx = keras.config.floatx()
    if name == "two_inputs":
        return {
            "left": generator.normal(size=(batch, 4)).astype(floatx),
            "right": generator.normal(size=(batch, 3)).astype(floatx),
        }
    shape = (6, 6, 2) if name.endswith("cnn") else (4, 3) if name == "recurrent" else (4,)
    return generator.normal(size=(batch, *shape)).astype(floatx)


def labels(batch=BATCH, seed=2):
    """Returns a batch of integer labels."""
    return np.random.default_rng(seed).integers(0, CLASSES, batch).astype("int32")


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


HELD_LABELS = labels(seed=5)


class HeldLabels(Categorical):
    """Draws HELD_LABELS every time."""

    def sample(self, outputs, seed):
        return keras.ops.convert_to_tensor(HELD_LABELS)[: keras.ops.shape(outputs)[0]]

    sample_uniform = sample


class FromOutputs(Categorical):
    """Draws labels that follow from an example's outputs, wherever it is in the batch."""

    def sample(self, outputs, seed):
        return keras.ops.argmin(outputs, axis=-1)

    def sample_uniform(self, outputs, seed):
        return keras.ops.cast(1e3 * keras.ops.abs(outputs[:, 0]) % CLASSES, "int32")


def plain(name, optimizer="sgd", **compile_args):
    """Returns the net itself, compiled."""
    net = build(name)
    net.compile(optimizer, loss(), **compile_args)
    return net


def compiled(name, optimizer=None, *, compile_args=None, **arguments):
    """Returns the net in a compiled `FisherPenaltyModel`; the optimizer is SGD(1.0) by default."""
    model = FisherPenaltyModel(build(name), **arguments)
    model.compile(optimizer or keras.optimizers.SGD(1.0), loss(), **(compile_args or {}))
    return model


def masked():
    """Returns a compiled net of sequences of tokens, of which those that are 0 are padding."""
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(7, 3, mask_zero=True),
            layers.Dense(4, activation="tanh"),
            layers.Dense(CLASSES),
        ]
    )
    net.compile("sgd", loss())
    return net


def frozen():
    """Returns a net that trains no weights."""
    net = build("dense")
    net.trainable = False
    return net


def two_outputs():
    """Returns a functional model of two outputs."""
    x = keras.Input((4,))
    return keras.Model(x, [layers.Dense(3)(x), layers.Dense(3)(x)])


def dictionary_of_one():
    """Returns a functional model of one output, in a dictionary."""
    x = keras.Input((4,))
    return keras.Model(x, {"classes": layers.Dense(3)(x)})


class TwoOutputs(keras.Model):
    """A subclassed model of two outputs."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs), inputs


LINE_WEIGHT = 0.7
LINE_DATA = (
    np.array([[1.0], [2.0], [-1.0], [0.5]], "float32"),
    np.array([[3.0], [1.0], [0.0], [2.0]], "float32"),
)


def line():
    """Returns a model w x of one number, with w = LINE_WEIGHT, for LINE_DATA."""
    net = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    net.set_weights([np.array([[LINE_WEIGHT]])])
    return net


def array(tensor):
    """Returns a tensor or a variable as an array."""
    return keras.ops.convert_to_numpy(tensor)


def flat(tensors):
    """Returns all numbers of some tensors in one vector."""
    return np.concatenate([np.ravel(array(t)) for t in tensors])


def assign_flat(weights, vector):
    """Gives weights the numbers of one vector, in which `flat` puts them."""
    start = 0
    for weight in weights:
        end = start + math.prod(weight.shape)
        weight.assign(vector[start:end].reshape(weight.shape))
        start = end


def squared_norm_of_gradient(net, x, y, loss, wrt="weights"):
    """Returns the squared norm of the loss's gradient as a function of a shift of the weights."""
    state = [(variable, array(variable)) for variable in net.non_trainable_variables]
    weights, leaves = net.trainable_weights, keras.tree.flatten(x)

    def value_at(*leaves):
        return loss(y, net(keras.tree.pack_sequence_as(x, leaves), training=True))

    if wrt == "inputs":
        gradient = reference.differentiated_at(value_at, leaves, net.variables)
    else:
        gradient = reference.differentiated(lambda: value_at(*leaves), weights)
    start = flat(weights)

    def at(shift):
        for variable, value in state:  # the same draws
            variable.assign(value)
        assign_flat(weights, start + shift)
        return np.sum(flat(gradient()) ** 2)

    return at


def first_penalty(model, loss, x, y, weight=None, **compile_args):
    """Returns the penalty and its kept gradient, of a step that goes nowhere."""
    model.compile(keras.optimizers.SGD(0.0), loss, **compile_args)
    logs = model.train_on_batch(x, y, weight, return_dict=True)
    return logs["penalty"], flat(model._state.gradients)


def penalty_and_gradient(name, optimizer=None, **arguments):
    """Returns the penalty of one batch and its gradient: what a step of SGD(1.0) moved by it."""
    net = plain(name, keras.optimizers.SGD(1.0))
    penalised = compiled(name, optimizer, alpha=1.0, **arguments)
    batch = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs(name))
    for model in (net, penalised):
        model.run_eagerly = not reference.IS_JAX  # a single step: quicker than to trace it
        logs = model.train_on_batch(batch, labels(), return_dict=True)
    weights, weights_penalised = flat(net.trainable_weights), flat(penalised.trainable_weights)
    return float(logs["penalty"]), weights - weights_penalised


def relative_error(measured, expected):
    return np.linalg.norm(measured - expected) / np.linalg.norm(expected)
