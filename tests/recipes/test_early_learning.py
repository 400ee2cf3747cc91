"""Steps of early-learning regularisation, against steps written out in numpy."""

import keras
import numpy as np
import pytest
from experiment.methods.early_learning import EarlyLearningModel

import keras_fisher as kf

X = np.array([[1.0, 2.0, -1.0], [0.5, -1.0, 0.25], [2.0, 0.0, 1.0], [-1.0, 1.5, 0.5]])
Y = np.array([0, 1, 1, 0])
ROWS = np.array([5, 2, 0, 3])  # of the examples among six
KERNEL = np.array([[0.3, -0.2], [0.1, 0.4], [-0.5, 0.2]])
RATE, STRENGTH, MOMENTUM = 0.5, 3.0, 0.7


def build(kind=EarlyLearningModel, **options):
    layer = keras.layers.Dense(2, use_bias=False)
    backbone = keras.Sequential([keras.Input((3,)), layer])
    backbone.set_weights([KERNEL])
    model = kind(backbone, seed=0, **options)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE), cross_entropy, metrics=["accuracy"])
    return model


def build_elr(alpha=0.0):
    options = {"strength": STRENGTH, "momentum": MOMENTUM, "examples": 6, "update_freq": 1}
    return build(alpha=alpha, **options)


LABELS = np.stack([Y, ROWS], axis=1)


def test_steps_are_those_of_the_paper(float64):
    model = build_elr()
    kernel, targets = KERNEL, np.zeros((6, 2))
    for _ in range(3):
        logs = model.train_on_batch(X, LABELS, return_dict=True)
        p = np.exp(X @ kernel)
        p /= p.sum(axis=1, keepdims=True)
        targets[ROWS] = MOMENTUM * targets[ROWS] + (1 - MOMENTUM) * p
        t = targets[ROWS]
        s = np.sum(t * p, axis=1, keepdims=True)
        # d s / d logit_j = p_j (t_j - s)
        by_logits = p - np.eye(2)[Y] - STRENGTH * p * (t - s) / (1 - s)
        loss = np.mean(-np.log(p[np.arange(4), Y]) + STRENGTH * np.log(1 - s[:, 0]))
        np.testing.assert_allclose(logs["loss"], loss, rtol=1e-6)
        model.reset_metrics()
        kernel = kernel - RATE * X.T @ by_logits / 4
        np.testing.assert_allclose(model.backbone.get_weights()[0], kernel, rtol=1e-10)
    kept = keras.ops.convert_to_numpy(model.predictions.targets)
    np.testing.assert_allclose(kept, targets, rtol=1e-10)
    np.testing.assert_array_equal(kept[[1, 4]], 0)


def test_a_penalty_adds_its_own_gradient(float64):
    models = {
        "plain": build(kf.FisherPenaltyModel, alpha=0.0, update_freq=1),
        "fp": build(kf.FisherPenaltyModel, alpha=0.2, update_freq=1),
        "elr": build_elr(),
        "fp_elr": build_elr(alpha=0.2),
    }
    found = {}
    for name, model in models.items():
        model.train_on_batch(X, LABELS if "elr" in name else Y)
        found[name] = model.backbone.get_weights()[0]
    assert np.abs(found["fp"] - found["plain"]).max() > 1e-3
    np.testing.assert_allclose(
        found["fp_elr"] - found["elr"], found["fp"] - found["plain"], rtol=1e-8
    )


@pytest.mark.parametrize("alpha", [0.0, 0.2])
def test_evaluation_has_no_regularisation(alpha):
    model, plain = build_elr(alpha), build(kf.FisherPenaltyModel)
    np.testing.assert_allclose(
        model.evaluate(X, Y, verbose=0), plain.evaluate(X, Y, verbose=0), rtol=1e-6
    )


def test_targets_are_saved(tmp_path):
    model, other = build_elr(), build_elr()
    model.train_on_batch(X, LABELS)
    model.save_weights(tmp_path / "saved.weights.h5")
    other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / "saved.weights.h5")
    np.testing.assert_array_equal(
        *(keras.ops.convert_to_numpy(m.predictions.targets) for m in (model, other))
    )
