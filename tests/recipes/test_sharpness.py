"""Steps of SAM, ASAM and GNP, against steps written out in numpy."""

import keras
import numpy as np
import pytest
from experiment.methods.sharpness import SharpnessAwareModel

X = np.array([[1.0, 2.0, -1.0], [0.5, -1.0, 0.25], [2.0, 0.0, 1.0], [-1.0, 1.5, 0.5]])
Y = np.array([0, 1, 1, 0])
KERNEL = np.array([[0.3, -0.2], [0.1, 0.4], [-0.5, 0.2]])
BIAS = np.array([0.1, -0.3])
RATE, RADIUS = 0.5, 0.7


def loss(kernel, bias):
    logits = X @ kernel + bias
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(4), Y])


def gradient(kernel, bias, x=X):
    """Softmax regression: X^T (p - y) / B, and the mean of p - y."""
    p = np.exp(x @ kernel + bias)
    error = p / p.sum(axis=1, keepdims=True) - np.eye(2)[Y]
    return x.T @ error / 4, error.mean(axis=0)


def build(layers, **options):
    model = SharpnessAwareModel(keras.Sequential([keras.Input((3,)), *layers]), **options)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE), cross_entropy, metrics=["accuracy"])
    return model


@pytest.mark.parametrize(
    ("adaptive", "share"), [(False, 1.0), (True, 1.0), (False, 0.8)], ids=["sam", "asam", "gnp"]
)
def test_a_step_is_that_of_the_paper(float64, adaptive, share):
    model = build([keras.layers.Dense(2)], radius=RADIUS, adaptive=adaptive, share=share)
    model.backbone.set_weights([KERNEL, BIAS])
    logs = model.train_on_batch(X, Y, return_dict=True)

    of_kernel, of_bias = gradient(KERNEL, BIAS)
    scale = np.abs(KERNEL) + 0.01 if adaptive else np.ones_like(KERNEL)
    norm = np.sqrt(np.sum((scale * of_kernel) ** 2) + np.sum(of_bias**2))
    there = gradient(KERNEL + RADIUS * scale**2 * of_kernel / norm, BIAS + RADIUS * of_bias / norm)
    expected = [
        weight - RATE * ((1 - share) * here + share * above)
        for weight, here, above in zip((KERNEL, BIAS), (of_kernel, of_bias), there, strict=True)
    ]
    for weight, value in zip(model.backbone.get_weights(), expected, strict=True):
        np.testing.assert_allclose(weight, value, rtol=1e-12)
    # The logs are of the weights before the step, of one pass.
    np.testing.assert_allclose(logs["loss"], loss(KERNEL, BIAS), rtol=1e-6)


def test_both_passes_drop_the_same_units(float64):
    dropout, same = (keras.layers.Dropout(0.5, seed=3) for _ in range(2))
    model = build([dropout, keras.layers.Dense(2)], radius=RADIUS)
    model.backbone.set_weights([KERNEL, BIAS])
    model.train_on_batch(X, Y)
    x = keras.ops.convert_to_numpy(same(X, training=True))
    assert 0 < np.sum(x == 0) < x.size
    here = gradient(KERNEL, BIAS, x)
    norm = np.sqrt(sum(np.sum(g**2) for g in here))
    there = gradient(KERNEL + RADIUS * here[0] / norm, BIAS + RADIUS * here[1] / norm, x)
    np.testing.assert_allclose(model.backbone.get_weights()[0], KERNEL - RATE * there[0])
    states = [layer.seed_generator.state for layer in (dropout, same)]
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, states))


def test_moving_statistics_are_those_of_one_pass():
    normalisation = keras.layers.BatchNormalization()
    model = build([keras.layers.Dense(4), normalisation, keras.layers.Dense(2)], radius=RADIUS)
    before = model.backbone.get_weights()
    model.train_on_batch(X, Y)
    mean = (X @ before[0] + before[1]).mean(axis=0)
    moving = keras.ops.convert_to_numpy(normalisation.moving_mean)
    np.testing.assert_allclose(moving, 0.01 * mean, rtol=1e-4, atol=1e-7)


def test_without_a_radius_it_trains_as_plain_keras():
    backbone = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    backbone.set_weights([KERNEL, BIAS])
    backbone.compile(
        keras.optimizers.SGD(RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model = build([keras.layers.Dense(2)], radius=0.0)
    model.backbone.set_weights([KERNEL, BIAS])
    for trained in (backbone, model):
        trained.fit(X, Y, batch_size=2, epochs=3, shuffle=False, verbose=0)
    for plain, own in zip(backbone.get_weights(), model.backbone.get_weights(), strict=True):
        np.testing.assert_allclose(own, plain, rtol=1e-5)
