"""Half precision, and layers whose gradients are sparse or loops."""

import keras
import numpy as np
import pytest

from keras_fisher import FisherPenaltyModel
from keras_fisher.utils.messages import warn_once
from tests import nets, reference

HALF = {"mixed_bfloat16": 0.05, "mixed_float16": 0.01}
GRADIENTS = ("exact", "finite_difference")


def penalty_and_gradient(policy, name, penalty, size):
    keras.config.set_dtype_policy(policy)
    optimizer = sgd(1.0, policy)
    return nets.penalty_and_gradient(name, optimizer, penalty=penalty, micro_batch_size=size)


def sgd(learning_rate, policy, initial_scale=2.0**8):
    """SGD, for float16 with a loss scale at which these small nets' gradients do not overflow."""
    optimizer = keras.optimizers.SGD(learning_rate)
    if policy != "mixed_float16":
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=initial_scale)


@pytest.mark.matrix
@pytest.mark.parametrize(("policy", "tolerance"), HALF.items())
@pytest.mark.parametrize(
    ("name", "penalty", "size"),
    [
        ("dense", "gp", None),
        ("batch_norm_cnn", "gp", None),
        ("recurrent", "gp", None),
        ("dense", "gp", 2),
        ("dense", "gp_x", 2),
    ],
)
def test_half_precision_gives_about_the_float32_penalty(name, penalty, size, policy, tolerance):
    value, gradient = penalty_and_gradient("float32", name, penalty, size)
    half_value, half_gradient = penalty_and_gradient(policy, name, penalty, size)
    assert half_value == pytest.approx(value, rel=tolerance)
    assert nets.relative_error(half_gradient, gradient) < 5 * tolerance


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("policy", "penalty", "gradient"),
    [
        ("mixed_float16", "fp", "exact"),
        ("mixed_float16", "gp_x", "finite_difference"),
        ("mixed_bfloat16", "gp_x", "exact"),
        ("mixed_bfloat16", "fp", "finite_difference"),
    ],
)
def test_half_precision_trains(policy, penalty, gradient):
    keras.config.set_dtype_policy(policy)
    arguments = {"penalty": penalty, "gradient": gradient, "update_freq": 2, "alpha": 0.01}
    model = nets.compiled("batch_norm_cnn", sgd(0.05, policy), **arguments)
    x, y = nets.inputs("batch_norm_cnn"), nets.labels()
    logs = [model.train_on_batch(x, y, return_dict=True) for _ in range(8)]
    assert np.all(np.isfinite([list(entry.values()) for entry in logs]))
    assert logs[-1]["loss"] < logs[0]["loss"]
    assert logs[0]["penalty"] > 0


@pytest.mark.matrix
@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_half_precision_sigmoids_of_classes_are_penalised_as_the_compiled_loss(loss):
    # Keras's loss casts them to float32, and its TensorFlow backend loses sight of their logits.
    keras.config.set_dtype_policy("mixed_bfloat16")
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="sigmoid")])
    net.layers[0].kernel.assign(np.random.default_rng(0).normal(size=(4, 3)))
    x, y = nets.inputs("dense"), nets.labels()
    y = np.eye(3)[y] if loss == "categorical_crossentropy" else y
    compiled = keras.losses.get(loss)

    def value():
        return keras.ops.mean(compiled(y, keras.ops.cast(net(x), "float32")))

    expected = np.sum(nets.flat(reference.gradients(value, net.weights)) ** 2)
    model = FisherPenaltyModel(net, penalty="gp")
    model.compile("sgd", loss)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["penalty"] == pytest.approx(expected, rel=0.02)


def loss_scale_after(steps, **arguments):
    keras.config.set_dtype_policy("mixed_float16")
    model = nets.compiled("dense", keras.optimizers.SGD(0.05), seed=0, **arguments)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    x, y = nets.inputs("dense", batch=steps * 6), nets.labels(steps * 6)
    model.fit(x, y, batch_size=6, verbose=0)
    return float(model.optimizer.dynamic_scale)


@pytest.mark.matrix
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_loss_scale_does_not_collapse(gradient):
    assert loss_scale_after(200, alpha=0.1, gradient=gradient) == 2.0**15


@pytest.mark.matrix
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_an_overflowing_loss_scale_heals(gradient):
    keras.config.set_dtype_policy("mixed_float16")
    arguments = {"penalty": "gp", "alpha": 0.01, "gradient": gradient}
    model = nets.compiled("dense", sgd(0.1, "mixed_float16", 2.0**22), **arguments)
    x, y = nets.inputs("dense"), nets.labels()
    before = nets.flat(model.backbone.weights)
    logs = model.train_on_batch(x, y, return_dict=True)
    np.testing.assert_array_equal(nets.flat(model.backbone.weights), before)  # a skipped step
    for _ in range(20):
        logs = model.train_on_batch(x, y, return_dict=True)
    weights = nets.flat(model.backbone.weights)
    assert np.all(np.isfinite([*logs.values(), *weights]))
    assert np.all(weights != before)


def test_small_penalty_gradients_do_not_underflow():
    # Confident predictions: gradients of about 1e-6, and of 1e-11 for the penalty.
    def confident(policy):
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(0)
        net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(nets.CLASSES)])
        net.layers[0].set_weights([4.0 * np.eye(4)[:, :3], np.array([6.0, 0.0, 0.0])])
        model = FisherPenaltyModel(net, alpha=2.0**20, penalty="gp")
        before = nets.flat(net.weights)
        model.compile(keras.optimizers.SGD(1.0), nets.loss())
        x = np.abs(nets.inputs("dense")) * [1.0, 0.1, 0.1, 1.0]
        model.train_on_batch(x.astype("float16").astype("float32"), np.zeros(nets.BATCH, "int32"))
        return nets.flat(net.weights) - before

    half, single = confident("mixed_float16"), confident("float32")
    assert np.any(single != 0)
    assert nets.relative_error(half, single) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "penalty", "gradient"),
    [
        ("recurrent", "gp_x", "exact"),
        ("recurrent", "fp", "finite_difference"),
        ("attention", "gp_r", "exact"),
        ("attention", "gp", "finite_difference"),
    ],
)
def test_recurrent_embedding_and_attention_layers_train(name, penalty, gradient):
    arguments = {"penalty": penalty, "gradient": gradient, "update_freq": 2, "alpha": 0.01}
    model = nets.compiled(name, keras.optimizers.SGD(0.1), **arguments)
    x, y = nets.inputs(name), nets.labels()
    logs = [model.train_on_batch(x, y, return_dict=True) for _ in range(5)]
    assert np.all(np.isfinite([list(entry.values()) for entry in logs]))
    assert logs[-1]["loss"] < logs[0]["loss"]


def test_a_difference_in_half_precision_is_warned_of_once(caplog):
    keras.config.set_dtype_policy("mixed_bfloat16")
    warn_once.cache_clear()
    for _ in range(2):
        nets.compiled("dense", gradient="finite_difference")
    nets.compiled("dense")
    assert [record.getMessage()[:28] for record in caplog.records] == [
        "gradient='finite_difference'"
    ]
