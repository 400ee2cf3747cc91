"""The penalties and their gradients against float64 central differences of first-order ones."""

import contextlib
import functools

import keras
import numpy as np
import pytest

from keras_fisher import FisherPenaltyModel, hessian_trace
from tests import nets, reference

PENALTIES = ("fp", "gp", "gp_x", "gp_r")
# The penalties on weights differ in their labels alone, and that on inputs in what it is taken with
# respect to, so a quick run takes one for most nets.
QUICK = ("dense", "two_inputs")
QUICK_ON_INPUTS = (*QUICK, "batch_norm_cnn")


def _is_quick(name, penalty):
    if penalty == "fp":
        return name != "synchronized_cnn"
    return name in (QUICK_ON_INPUTS if penalty == "gp_x" else QUICK)


CASES = [
    pytest.param(*(name, penalty), marks=[] if _is_quick(name, penalty) else [pytest.mark.slow])
    for name in nets.NETS
    for penalty in PENALTIES
    if (name, penalty) != ("attention", "gp_x")  # its inputs are integers
    and (penalty != "gp_r" or name in QUICK)
]
NORMALISED = ("batch_norm_cnn", "group_norm_cnn", "attention", "recurrent", "subclassed")


@functools.cache
def central_differences(name, labels_seed, wrt, examples):
    """Returns the squared norm of the plain gradient, random directions and the slopes there."""
    net = nets.build(name)
    x = keras.tree.map_structure(lambda a: a[:examples], nets.inputs(name))
    y = nets.labels(seed=labels_seed)[:examples]
    squared_norm = nets.squared_norm_of_gradient(net, x, y, nets.loss(), wrt)
    size = len(nets.flat(net.trainable_weights))
    directions, h = np.random.default_rng(0).normal(size=(8, size)), 1e-5
    slopes = [(squared_norm(h * d) - squared_norm(-h * d)) / (2 * h) for d in directions]
    return squared_norm(np.zeros(size)), directions, np.array(slopes)


def errors(name, penalty, examples=None, **arguments):
    """Returns the relative errors of the penalty's value and of its slopes."""
    labels_seed = 2 if penalty in ("gp", "gp_x") else 5
    value, directions, slopes = central_differences(
        name, labels_seed, "inputs" if penalty == "gp_x" else "weights", examples
    )
    measured, gradient = nets.penalty_and_gradient(
        name,
        penalty=penalty,
        penalty_batch_size=examples,
        likelihood=nets.HeldLabels(),
        **arguments,
    )
    return abs(measured - value) / value, nets.relative_error(directions @ gradient, slopes)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "penalty"), CASES)
def test_exact_gradient_agrees_with_central_differences(name, penalty):
    assert max(errors(name, penalty)) < 1e-5


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", ["batch_norm_cnn", "two_inputs"])
@pytest.mark.parametrize("gradient", ["exact", "finite_difference"])
def test_penalty_batch_size_takes_the_first_examples_alone(name, penalty, gradient):
    assert max(errors(name, penalty, examples=3, gradient=gradient)) < 1e-5


@pytest.mark.matrix
@reference.tensorflow_only
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", NORMALISED)
def test_tensorflows_own_moments_would_be_silently_wrong(name, monkeypatch):
    monkeypatch.setattr(
        "keras_fisher.backend.tensorflow.tapes.replace_moments", contextlib.nullcontext
    )
    value_error, gradient_error = errors(name, "fp")
    assert value_error < 1e-5
    assert gradient_error > 1e-5


# "gp" and "gp_r" differ from "fp" in their labels alone.
@pytest.mark.matrix
@pytest.mark.parametrize(
    ("name", "penalty"), [case for case in CASES if case.values[1] in ("fp", "gp_x")]
)
def test_finite_difference_agrees_with_exact_in_float32(name, penalty):
    # The labels of "fp" are drawn: both gradients must be taken at the same ones.
    arguments = {"penalty": penalty, "seed": 4}
    value, exact = nets.penalty_and_gradient(name, **arguments)
    value_by_difference, by_difference = nets.penalty_and_gradient(
        name, gradient="finite_difference", **arguments
    )
    assert value_by_difference == pytest.approx(value, rel=1e-5)
    # Batch normalisation of 6 examples is rougher where XLA joins its operations.
    bound = 2e-2 if reference.IS_JAX and name == "batch_norm_cnn" else 1e-2
    assert nets.relative_error(by_difference, exact) < bound


@pytest.mark.usefixtures("float64")
def test_gp_is_the_squared_norm_of_the_masked_losss_gradient():
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input((4, 3)), keras.layers.Masking(), keras.layers.Dense(3)])
    generator = np.random.default_rng(0)
    x = generator.normal(size=(5, 4, 3))
    x[0, 2:] = x[3] = 0.0
    y = generator.integers(0, 3, (5, 4))
    loss = nets.loss()(y, net(x, training=True))
    found = reference.gradients(lambda: nets.loss()(y, net(x, training=True)), net.weights)
    # The fourth of the five examples holds no data: the penalty of a smaller batch.
    expected = np.sum(nets.flat(found) ** 2) * 4 / 5
    model = FisherPenaltyModel(net, penalty="gp")
    model.compile("sgd", nets.loss())
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["penalty"] == pytest.approx(expected, rel=1e-6)
    assert logs["loss"] == pytest.approx(float(loss), rel=1e-6)


def kept_gradient(net, x, y, penalty="gp", **arguments):
    """The gradient of the penalty of a first batch."""
    model = FisherPenaltyModel(net, 1.0, penalty=penalty, **arguments)
    return nets.first_penalty(model, nets.loss(), x, y)[1]


def slope_along_gradient(net, x, y):
    """Twice the derivative of the plain gradient along itself, from its values at two points."""

    def gradient():
        return reference.gradients(
            lambda: nets.loss()(y, net(x, training=True)), net.trainable_weights
        )

    here, h = gradient(), 1e-6
    for weight, g in zip(net.trainable_weights, here, strict=True):
        weight.assign(weight + h * g)
    return 2 * (nets.flat(gradient()) - nets.flat(here)) / h


def self_normalising():
    """A net whose first layer assigns its own kernel in each forward pass."""
    keras.utils.set_random_seed(1)
    first = keras.layers.SpectralNormalization(keras.layers.Dense(8, activation="tanh"))
    return keras.Sequential([keras.Input((4,)), first, keras.layers.Dense(nets.CLASSES)])


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "arguments",
    [
        {"gradient": "finite_difference"},
        {"penalty_batch_size": nets.BATCH},
        {"micro_batch_size": 4},
        {"micro_batch_size": 4, "gradient": "finite_difference"},
    ],
)
def test_every_forward_pass_sees_the_weights_that_a_layer_assigned_in_the_first(arguments):
    x, y = nets.inputs("dense"), nets.labels()
    # With JAX a difference follows the layer's singular vectors, where it stops the gradient.
    is_other = reference.IS_JAX and "gradient" in arguments
    expected = (slope_along_gradient if is_other else kept_gradient)(self_normalising(), x, y)
    found = kept_gradient(self_normalising(), x, y, **arguments)
    assert nets.relative_error(found, expected) < (1e-5 if is_other else 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_alpha_0_trains_a_layer_that_assigns_its_weights_as_the_plain_model(run_eagerly):
    def trained(wrapped):
        net = self_normalising()
        model = FisherPenaltyModel(net, 0.0) if wrapped else net
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), nets.loss(), run_eagerly=run_eagerly)
        model.fit(nets.inputs("dense"), nets.labels(), batch_size=2, epochs=4, verbose=0)
        return nets.flat(net.weights)

    np.testing.assert_array_equal(trained(True), trained(False))


def with_units_on_their_kink():
    """A net and inputs that put ReLUs at 0, by zeros beside other numbers, or far from it."""
    net = keras.Sequential(
        [
            keras.Input((4, 1)),
            keras.layers.Conv1D(3, 2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    net.layers[0].kernel.assign([[[1.0, -1.0, 0.5]], [[0.5, 1.0, 1.0]]])
    net.layers[2].kernel.assign(np.linspace(-1.0, 1.0, 18).reshape(9, 2) ** 3)
    x = [[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 2.0, -3.0], [-1.0, 3.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0]]
    return net, np.array(4 * x, "float32")[..., None], np.array([0, 1, 1, 0] * 4)


@pytest.mark.slow
@pytest.mark.parametrize("penalty", ["gp", "gp_x"])
@pytest.mark.parametrize("parts", [None, 8])
def test_a_difference_that_begins_on_a_kink_takes_one_side_of_it(penalty, parts):
    net, x, y = with_units_on_their_kink()
    found = kept_gradient(net, x, y, penalty, gradient="finite_difference", micro_batch_size=parts)
    # The oracle is beside the kink, where the difference takes both of its gradients.
    by_weights = reference.gradients(lambda: nets.loss()(y, net(x)), net.trainable_weights)
    by_inputs = reference.gradients_at(lambda x: nets.loss()(y, net(x)), [x])[0]
    if penalty == "gp":
        for weight, g in zip(net.trainable_weights, by_weights, strict=True):
            weight.assign(weight + 1e-3 * g)
    else:
        x = x + 1e-3 * by_inputs
    # Some of the units have another gradient on the kink, which the direction is taken at.
    assert nets.relative_error(found, kept_gradient(net, x, y, penalty)) < 0.5


def test_gp_x_takes_numpy_batches_when_run_eagerly():
    model = nets.compiled("two_inputs", penalty="gp_x", compile_args={"run_eagerly": True})
    logs = model.train_on_batch(nets.inputs("two_inputs"), nets.labels(), return_dict=True)
    assert logs["penalty"] > 0


@pytest.mark.slow
@reference.tensorflow_only  # with JAX, Keras refuses such a draw
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("parts", [None, nets.BATCH])
def test_both_gradients_see_the_same_noise_where_it_is_drawn_without_a_seed(parts, run_eagerly):
    class Noisy(keras.layers.Layer):
        def call(self, x, training=None):
            return x * (1.0 + keras.random.normal((1,))) if training else x

    def kept(gradient):
        keras.utils.set_random_seed(0)
        dense = keras.layers.Dense(nets.CLASSES)
        net = keras.Sequential([keras.Input((4,)), Noisy(), dense])
        model = FisherPenaltyModel(
            net, 1.0, penalty="gp", gradient=gradient, micro_batch_size=parts
        )
        before = nets.flat(net.weights)
        model.compile(keras.optimizers.SGD(1.0), nets.loss(), run_eagerly=run_eagerly)
        model.train_on_batch(nets.inputs("dense"), nets.labels())
        return nets.flat(net.weights) - before

    assert nets.relative_error(kept("finite_difference"), kept("exact")) < 1e-5


def penalty_and_norm_of_loss(net, loss, x, y):
    """The "gp" of a batch, and the squared norm of the compiled loss's own gradient."""

    def value():
        return keras.ops.mean(keras.losses.get(loss)(y, net(x)))

    expected = np.sum(nets.flat(reference.gradients(value, net.weights)) ** 2)
    model = FisherPenaltyModel(net, penalty="gp")
    model.compile("sgd", loss)
    return model.train_on_batch(x, y, return_dict=True)["penalty"], expected


@reference.tensorflow_only  # with JAX, Keras's losses do not see what the activation was given
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("activation", "loss"),
    [("softmax", "sparse_categorical_crossentropy"), ("sigmoid", "binary_crossentropy")],
)
def test_gp_of_a_saturated_activation_is_that_of_the_compiled_loss(activation, loss):
    units = 3 if activation == "softmax" else 1
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(units, activation=activation)])
    net.layers[0].kernel.assign(50.0 * np.arange(2 * units).reshape(2, units))
    x, y = np.ones((4, 2)), np.zeros((4, 1), "int32")

    penalty, expected = penalty_and_norm_of_loss(net, loss, x, y)
    assert expected > 0.1
    assert penalty == pytest.approx(expected, rel=1e-6)


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("head", ["sigmoid", "softplus"])
@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_gp_of_probabilities_that_do_not_sum_to_one_is_that_of_the_compiled_loss(head, loss):
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation=head)])
    generator = np.random.default_rng(0)
    for weight in net.weights:
        weight.assign(generator.normal(size=weight.shape))
    x, y = nets.inputs("dense"), nets.labels()
    y = np.eye(3)[y] if loss == "categorical_crossentropy" else y

    penalty, expected = penalty_and_norm_of_loss(net, loss, x, y)
    assert penalty == pytest.approx(expected, rel=1e-6)


def resized_cnn(as_layer):
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            as_layer(keras.layers.Resizing(4, 5)),
            keras.layers.Conv2D(3, 2, activation="tanh"),
            as_layer(keras.layers.UpSampling2D(2, interpolation="bilinear")),
            keras.layers.Conv2D(2, 3, activation="tanh"),
            keras.layers.Flatten(),
            keras.layers.Dense(nets.CLASSES),
        ]
    )


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("parts", [None, 3])
@pytest.mark.parametrize("penalty", ["gp", "gp_x"])
def test_bilinear_resizing_is_as_exact_as_a_product_with_its_matrix(penalty, parts, monkeypatch):
    monkeypatch.setitem(nets.NETS, "resized_cnn", lambda: resized_cnn(lambda layer: layer))
    monkeypatch.setitem(nets.NETS, "multiplied_cnn", lambda: resized_cnn(nets.Product))
    arguments = {"penalty": penalty, "micro_batch_size": parts}
    found = nets.penalty_and_gradient("resized_cnn", **arguments)
    expected = nets.penalty_and_gradient("multiplied_cnn", **arguments)
    # It is computed in single precision.
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert nets.relative_error(found[1], expected[1]) < 1e-5


class Hues(keras.layers.Layer):
    """Has a derivative that TensorFlow does not know."""

    def call(self, inputs):
        import tensorflow as tf

        return inputs + tf.image.hsv_to_rgb(keras.ops.sigmoid(inputs))


class Quantised(keras.layers.Layer):
    def call(self, inputs):
        return keras.quantizers.fake_quant_with_min_max_vars(inputs, -0.5, 0.7)


@pytest.mark.matrix
@reference.tensorflow_only
@pytest.mark.parametrize("parts", [None, 3])
@pytest.mark.parametrize(
    ("layer", "operation"),
    [(Hues, "HSVToRGB"), (Quantised, "FakeQuantWithMinMaxVarsGradient")],
)
def test_an_operation_that_is_registered_as_not_differentiable_is_named(layer, operation, parts):
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), layer()])
    x, y = nets.inputs("dense"), nets.labels()
    model = FisherPenaltyModel(net, micro_batch_size=parts)
    model.compile("sgd", nets.loss())
    with pytest.raises(NotImplementedError, match=rf"finite_difference[\s\S]*{operation}"):
        model.fit(x, y, verbose=0)
    with pytest.raises(NotImplementedError, match=operation):
        hessian_trace(net, (x, y), likelihood=nets.HeldLabels())
    model = FisherPenaltyModel(net, gradient="finite_difference", micro_batch_size=parts)
    model.compile("sgd", nets.loss())
    assert np.isfinite(model.fit(x, y, verbose=0).history["penalty"][0])


def rotating(*before):
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            *before,
            keras.layers.RandomRotation(0.3, seed=0),
            keras.layers.Flatten(),
            keras.layers.Dense(nets.CLASSES),
        ]
    )


@reference.tensorflow_only  # JAX's gradient is right
@pytest.mark.parametrize("gradient", ["exact", "finite_difference"])
@pytest.mark.parametrize("penalty", ["gp", "gp_x"])
def test_an_operation_whose_first_derivative_is_wrong_is_named(penalty, gradient):
    before = [keras.layers.Conv2D(2, 1)] if penalty == "gp" else []
    model = FisherPenaltyModel(rotating(*before), penalty=penalty, gradient=gradient)
    model.compile("sgd", nets.loss(), run_eagerly=True)
    with pytest.raises(NotImplementedError, match=r"ImageProjectiveTransformV3[\s\S]*before all"):
        model.train_on_batch(nets.inputs("batch_norm_cnn"), nets.labels())


@pytest.mark.matrix
@pytest.mark.parametrize("gradient", ["exact", "finite_difference"])
def test_augmentation_before_all_weights_is_not_refused(gradient):
    model = FisherPenaltyModel(rotating(), gradient=gradient)
    model.compile("sgd", nets.loss())
    logs = model.train_on_batch(nets.inputs("batch_norm_cnn"), nets.labels(), return_dict=True)
    assert logs["penalty"] > 0


class Switched(keras.layers.Layer):
    """Comparisons, casts and positions, which have no derivative, on the way of what has one."""

    def call(self, inputs):
        ops = keras.ops
        largest = ops.one_hot(ops.argmax(inputs, axis=-1), inputs.shape[-1], dtype=inputs.dtype)
        is_positive = ops.cast(ops.greater(inputs, 0.1), inputs.dtype)
        return inputs * (largest + is_positive + ops.sign(inputs)) + ops.zeros_like(inputs)


@pytest.mark.usefixtures("float64")
def test_operations_that_carry_no_gradient_are_not_refused(monkeypatch):
    def switched():
        dense = keras.layers.Dense(5, activation="tanh")
        last = keras.layers.Dense(nets.CLASSES)
        return keras.Sequential([keras.Input((4,)), dense, Switched(), last])

    monkeypatch.setitem(nets.NETS, "switched", switched)
    assert max(errors("switched", "fp")) < 1e-5


@pytest.mark.parametrize("eager", [False, True])
def test_further_passes_repeat_what_layers_draw_with_the_random_numbers_of_python(eager):
    x = np.random.default_rng(0).uniform(size=(12, 8, 8, 3)).astype("float32")
    y = np.arange(12) % nets.CLASSES

    def norm(**arguments):
        keras.utils.set_random_seed(1)
        augment = keras.layers.AugMix(value_range=(0, 1), seed=2)
        hidden = keras.layers.Dense(8, "tanh", bias_initializer="ones")
        head = keras.layers.Dense(nets.CLASSES)
        kinds = [keras.Input((8, 8, 3)), augment, keras.layers.Flatten(), hidden, head]
        net = keras.Sequential(kinds)
        model = FisherPenaltyModel(net, 0.1, penalty="gp", update_freq=1, **arguments)
        model.compile(keras.optimizers.SGD(0.0), nets.loss(), run_eagerly=eager)
        model.train_on_batch(x, y)
        return float(model._state.penalty_gradient_norm)

    exact = norm()
    assert norm(micro_batch_size=12) == pytest.approx(exact, rel=1e-5)
    assert norm(penalty_batch_size=12) == pytest.approx(exact, rel=1e-5)
    assert norm(gradient="finite_difference") == pytest.approx(exact, rel=0.02)
