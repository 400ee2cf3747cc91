"""Both ways to z^T H z give the same, for every kind of layer."""

import logging

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_fisher as kf
from keras_fisher import backend
from keras_fisher.traces import HessianTraceMeter, quadratic_forms
from keras_fisher.utils.messages import warn_once
from tests import nets, reference

IMAGES = (6, 6, 4)


def chain(shape, *middle, dtype=None):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *middle, layers.Dense(nets.CLASSES)])


def attention():
    x = keras.Input((4, 5))
    y = layers.Flatten()(layers.MultiHeadAttention(2, 3)(x, x))
    return keras.Model(x, layers.Dense(nets.CLASSES)(y))


def shared_and_added():
    x, twice = keras.Input((4,)), layers.Dense(4, "relu")
    once = twice(x)
    return keras.Model(x, layers.Dense(nets.CLASSES)(layers.Add()([once, twice(once)])))


def partly_frozen():
    net = chain((5,), layers.Dense(4, "relu"), layers.Dense(4, "relu"), layers.Dense(4, "tanh"))
    net.layers[1].trainable = False
    return net


class Squared(layers.Dense):
    """Linear in its input, but not in its kernel."""

    def call(self, inputs):
        return ops.matmul(inputs, ops.square(self.kernel))


CASES = {
    "dense": lambda: chain((5,), layers.Dense(4, "tanh"), layers.Dense(4, "relu", use_bias=False)),
    "einsum": lambda: chain(
        (5, 4),
        layers.EinsumDense("abc,cd->abd", (5, 6), bias_axes="d", activation="relu"),
        layers.Flatten(),
    ),
    "conv1d": lambda: chain(
        (6, 2), layers.Conv1D(3, 2, padding="causal", activation="relu"), layers.GlobalMaxPool1D()
    ),
    "conv2d": lambda: chain(
        IMAGES,
        layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(4, 3, activation="leaky_relu"),
        layers.Flatten(),
    ),
    "conv3d": lambda: chain(
        (4, 4, 4, 2),
        layers.Conv3D(3, 2, activation="relu"),
        layers.Flatten(),
    ),
    "dilated and transposed": lambda: chain(
        IMAGES,
        layers.Conv2D(4, 3, dilation_rate=2, activation="gelu"),
        layers.Conv2DTranspose(4, 3, strides=2),
        layers.LeakyReLU(),
        layers.Flatten(),
    ),
    "depthwise and separable": lambda: chain(
        IMAGES,
        layers.DepthwiseConv2D(3, activation="tanh"),
        layers.SeparableConv2D(4, 3),
        layers.Flatten(),
    ),
    "batch_norm and group_norm": lambda: chain(
        IMAGES,
        layers.Conv2D(4, 3),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(4, 3),
        layers.GroupNormalization(2),
        layers.ReLU(),
        layers.Flatten(),
    ),
    "layer_norm, prelu and softmax": lambda: chain(
        (5,),
        layers.Dense(4, "tanh"),
        layers.LayerNormalization(),
        layers.Dense(4),
        layers.PReLU(),
        layers.Dense(4, "softmax"),
        layers.Dense(4, "relu"),
    ),
    "embedding": lambda: chain(
        (5,), layers.Embedding(7, 4, mask_zero=True), layers.GlobalAveragePooling1D(), dtype="int32"
    ),
    "time_distributed": lambda: chain(
        (5, 3), layers.TimeDistributed(layers.Dense(4, "relu")), layers.Flatten()
    ),
    "attention": attention,
    "shared": shared_and_added,
    "frozen": partly_frozen,
}


def forms(net, *, by_layer, batch_size):
    """The same three forms over five examples, the second way or the first."""
    generator = np.random.default_rng(0)
    start = net.inputs[0]
    x = generator.normal(size=(5, *start.shape[1:]))
    if start.dtype == "int32":
        x = generator.integers(0, 7, x.shape)
    y = generator.integers(0, nets.CLASSES, len(x))
    return kf.hessian_trace(
        net,
        (x, y),
        num_probes=3,
        batch_size=batch_size,
        by_layer=by_layer,
        likelihood=kf.likelihoods.Categorical(),
        seed=1,
    )


def assert_same(net, batch_size=5, rel=1e-9):
    along, twice = (forms(net, by_layer=way, batch_size=batch_size) for way in (False, True))
    assert along.value == pytest.approx(twice.value, rel=rel)
    assert along.stderr == pytest.approx(twice.stderr, rel=rel)
    assert twice.value != 0


@pytest.fixture(autouse=True)
def second_way_at_once(monkeypatch):
    monkeypatch.setattr(quadratic_forms, "FORMS_BEFORE_COMPILING", 0)


@pytest.fixture
def warnings(caplog):
    warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, "keras_fisher"):
        yield caplog


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CASES)
def test_the_sum_of_a_form_is_found_without_its_parts(name, warnings):
    keras.utils.set_random_seed(1)
    # JAX computes the softmax of attention in single precision.
    is_single = reference.IS_JAX and name == "attention"
    assert_same(CASES[name](), rel=1e-5 if is_single else 1e-9)
    assert warnings.messages == []


@reference.tensorflow_only  # it checks its second way
def test_few_forms_do_not_compile_the_second_way(monkeypatch):
    monkeypatch.setattr(quadratic_forms, "FORMS_BEFORE_COMPILING", 4)
    second, along = [], quadratic_forms.QuadraticForms._differentiate_forward

    def spy(*arguments):
        second.append(meter)
        return along(*arguments)

    monkeypatch.setattr(quadratic_forms.QuadraticForms, "_differentiate_forward", spy)
    net, y = chain((5,), layers.Dense(4, "tanh")), np.zeros(4, int)
    meter = HessianTraceMeter(net, likelihood=kf.likelihoods.Categorical(), num_probes=2, seed=1)
    compiled = []
    for _ in range(5):
        meter((np.ones((4, 5), "float32"), y))
        compiled.append(len(second))
    assert compiled == [0, 0, 1, 1, 1]  # and once for any number of probes


@reference.jax_only
@pytest.mark.usefixtures("float64")
def test_an_operation_without_forward_derivative_falls_back_with_one_warning(warnings):
    import jax

    @jax.custom_vjp
    def square(x):
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, g: (2.0 * x * g,))
    assert_same(chain((5,), layers.Dense(4, "tanh"), layers.Activation(square)))
    assert len(warnings.messages) == 1
    assert "cannot differentiate an operation forward" in warnings.messages[0]


@reference.jax_only
def test_forward_mode_takes_five_products_with_each_kernel():
    import jax

    net = chain((5,), layers.Dense(4, "tanh"), layers.Dense(4, "tanh"), layers.Dense(4, "tanh"))
    x, weights = np.ones((2, 5), "float32"), net.trainable_weights
    compute = (backend.compute_quadratic_forms, backend.compute_summed_forms)

    def count_products(compute):
        def measure(probes, seed):
            return compute(lambda: ops.mean(ops.square(net(x))), weights, probes, True, seed)

        compiled = jax.jit(measure).lower(np.arange(1), np.arange(2)).compile()
        return compiled.as_text().count(" dot(")

    by_weight, summed = map(count_products, compute)
    # The input of the first layer does not move: W x and z x alone.
    assert summed <= 5 * len(net.layers) - 3 < by_weight


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_batches_may_be_of_several_sizes():
    assert_same(CASES["conv2d"](), batch_size=3)


@pytest.mark.usefixtures("float64")
def test_the_second_way_may_begin_at_a_later_batch(monkeypatch):
    monkeypatch.setattr(quadratic_forms, "FORMS_BEFORE_COMPILING", 4)  # of 3 probes
    assert_same(CASES["dense"](), batch_size=1)


@pytest.mark.slow
@reference.tensorflow_only  # it checks its second way
@pytest.mark.usefixtures("float64")
def test_a_layer_in_a_loop_falls_back_with_one_warning(warnings):
    assert_same(chain((2, 3), layers.SimpleRNN(2)))
    assert len(warnings.messages) == 1
    assert "cannot differentiate" in warnings.messages[0]


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_a_convolution_in_a_loop_is_measured_as_that_out_of_it():
    def measured(unroll):
        keras.utils.set_random_seed(1)
        lstm = layers.ConvLSTM2D(1, 3, padding="same", unroll=unroll)
        return forms(chain((2, 3, 3, 1), lstm, layers.Flatten()), by_layer=True, batch_size=5)

    looped, unrolled = measured(unroll=False), measured(unroll=True)
    assert looped.value == pytest.approx(unrolled.value, rel=1e-9)
    assert looped.stderr == pytest.approx(unrolled.stderr, rel=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("by_layer", [False, True])
def test_bilinear_resizing_bends_as_a_product_with_its_matrix(by_layer):
    def measured(as_layer):
        keras.utils.set_random_seed(1)
        net = chain(
            IMAGES,
            layers.Conv2D(2, 3, activation="tanh"),
            as_layer(layers.UpSampling2D(2, interpolation="bilinear")),
            layers.Conv2D(2, 3, activation="tanh"),
            layers.Flatten(),
        )
        return forms(net, by_layer=by_layer, batch_size=5).value

    # It is computed in single precision.
    assert measured(lambda layer: layer) == pytest.approx(measured(nets.Product), rel=1e-5)


@reference.tensorflow_only  # it checks its second way
@pytest.mark.usefixtures("float64")
def test_a_wrong_form_is_noticed(warnings, monkeypatch):
    monkeypatch.setattr(quadratic_forms, "_PRODUCTS", (*quadratic_forms._PRODUCTS, Squared))
    assert_same(chain((5,), Squared(4, "relu")))
    assert len(warnings.messages) == 1
    assert "cannot be followed" in warnings.messages[0]


class Hidden(layers.Layer):
    """Multiplies what it computes in a graph of its own, traced before, by a weight."""

    def build(self, input_shape):
        self.inner = layers.Dense(4, "tanh")
        self.inner.build(input_shape)
        self.scale = self.add_weight(shape=(), initializer="zeros")
        self.graph = pytest.importorskip("tensorflow").function(self.inner)

    def call(self, inputs):
        return inputs + self.scale * self.graph(inputs)


@reference.tensorflow_only  # it checks its second way
@pytest.mark.usefixtures("float64")
def test_what_shows_only_after_training_is_noticed_then(warnings):
    keras.utils.set_random_seed(1)
    net = chain((4,), Hidden())
    x, y = np.random.default_rng(0).normal(size=(5, 4)), np.array([0, 1, 2, 0, 1])
    net.layers[-1].kernel.assign(np.zeros((4, 3)))
    net(x)
    meter = HessianTraceMeter(net, likelihood=kf.likelihoods.Categorical(), num_probes=3, seed=1)
    exact = HessianTraceMeter(net, likelihood=kf.likelihoods.Categorical(), num_probes=3, seed=1)
    for weight in (0.0, 0.7):
        net.layers[0].scale.assign(weight)
        net.layers[-1].kernel.assign(weight + np.arange(12.0).reshape(4, 3))
        expected = exact((x, y), by_layer=True).value
        assert meter((x, y)).value == pytest.approx(expected, rel=1e-5)
    assert len(warnings.messages) == 1


@reference.tensorflow_only  # it checks its second way
@pytest.mark.usefixtures("float64")
def test_nan_weights_give_nan_and_cost_no_check_at_every_batch(monkeypatch):
    net = chain((4,), layers.Dense(4))
    net.layers[0].kernel.assign(np.full((4, 4), np.nan))
    checks = []
    check = quadratic_forms.QuadraticForms._check
    monkeypatch.setattr(
        quadratic_forms.QuadraticForms, "_check", lambda *args: (checks.append(1), check(*args))
    )
    x, y = np.ones((16, 4)), np.zeros(16, int)
    categorical = kf.likelihoods.Categorical()
    trace = kf.hessian_trace(net, (x, y), num_probes=1, batch_size=1, likelihood=categorical)
    assert np.isnan(trace.value)
    assert len(checks) == 5  # at batches 1, 2, 4, 8 and 16


def test_a_layer_that_is_never_called_does_no_harm():
    class Unused(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused = layers.Dense(3), layers.Dense(3)

        def call(self, inputs):
            return self.used(inputs)

    net = Unused()
    x, y = np.ones((4, 2), "float32"), np.zeros(4, int)
    categorical = kf.likelihoods.Categorical()
    found = [
        kf.hessian_trace(net, (x, y), by_layer=by_layer, likelihood=categorical, seed=1).value
        for by_layer in (False, True)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_half_precision_takes_the_way_that_needs_no_comparison(warnings, monkeypatch):
    monkeypatch.setattr(quadratic_forms.backend, "Line", None)
    keras.utils.set_random_seed(1)
    net = chain((5,), layers.Dense(4, "tanh", dtype="mixed_bfloat16"))
    found = [forms(net, by_layer=way, batch_size=5).value for way in (False, True)]
    assert found[0] == pytest.approx(found[1])
    assert warnings.messages == []
