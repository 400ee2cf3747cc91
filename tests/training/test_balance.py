"""The ratio of the penalty's gradient to the loss's, its limit, and the warning of a large one."""

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets
from tests.callbacks.test_non_finite_guard import (
    BATCH,
    examples,
    fit,
    model_of,
    poison_at,
    warnings_of,
)

(X, Y), W, RATE = nets.LINE_DATA, nets.LINE_WEIGHT, 0.01
# Of a model w x with the loss (w x - y)^2, and of its penalty "gp": the square of the first.
OF_LOSS = float(np.mean(2 * X * (W * X - Y)))
OF_PENALTY = 2 * OF_LOSS * float(np.mean(2 * X**2))


def line(alpha, optimizer=None, **arguments):
    model = kf.FisherPenaltyModel(nets.line(), alpha, penalty="gp", update_freq=2, **arguments)
    model.compile(optimizer or keras.optimizers.SGD(RATE), "mse")
    return model


def take_steps(model, number=1):
    for _ in range(number):
        model.train_on_batch(X, Y)
    return float(model.get_weights()[0][0, 0])


@pytest.mark.matrix
@pytest.mark.parametrize(
    "arguments", [{}, {"penalty_batch_size": 1.0, "micro_batch_size": 2}, {"gradient": "exact"}]
)
def test_the_ratio_is_alpha_times_the_ratio_of_the_norms(arguments):
    model = line(0.3, **arguments)
    take_steps(model)
    assert model.penalty_ratio == pytest.approx(0.3 * abs(OF_PENALTY / OF_LOSS), rel=1e-5)


def test_the_ratio_follows_alpha_at_once_and_is_0_without_a_penalty():
    model = line(0.3)
    assert model.penalty_ratio == 0.0  # nothing is measured yet
    take_steps(model)
    before = model.penalty_ratio
    model.alpha = 0.6
    assert model.penalty_ratio == pytest.approx(2 * before)
    model.alpha = 0.0
    assert model.penalty_ratio == 0.0


def test_means_of_both_norms_forget_a_tenth_with_each_computation():
    model = line(0.3, max_penalty_ratio=None)
    norms, w = [], W
    for step in range(4):
        of_loss = float(np.mean(2 * X * (w * X - Y)))
        if step % 2 == 0:
            norms.append((abs(of_loss), abs(2 * of_loss * float(np.mean(2 * X**2)))))
        w = take_steps(model)
    (first_loss, first_penalty), (loss, penalty) = norms
    expected = 0.3 * (0.9 * first_penalty + penalty) / (0.9 * first_loss + loss)
    assert model.penalty_ratio == pytest.approx(expected, rel=1e-5)


@pytest.mark.matrix
@pytest.mark.parametrize("limit", [0.5, 2.0])
def test_a_limit_reduces_the_alpha_of_the_step_to_the_largest_ratio(limit):
    model = line(1e3, max_penalty_ratio=limit)
    moved = take_steps(model) - W
    assert moved == pytest.approx(-RATE * OF_LOSS * (1 + limit), rel=1e-4)
    assert model.penalty_ratio == limit
    assert model.alpha == 1e3


def test_a_kept_gradient_keeps_the_alpha_of_its_limit():
    model = line(1e3, max_penalty_ratio=1.0)
    first = take_steps(model)
    moved = take_steps(model) - first
    of_loss = float(np.mean(2 * X * (first * X - Y)))
    assert moved == pytest.approx(-RATE * (of_loss + OF_LOSS), rel=1e-3)


def test_a_limit_that_is_not_reached_changes_no_bit():
    plain, limited = line(0.01), line(0.01, max_penalty_ratio=1.0)
    assert take_steps(plain, 5) == take_steps(limited, 5)


def test_a_penalty_without_a_gradient_has_no_limit():
    model = line(1.0, max_penalty_ratio=1.0)
    model.backbone.set_weights([np.sum(X * Y, keepdims=True) / np.sum(X**2, keepdims=True)])
    take_steps(model, 3)  # both gradients are about 0
    assert np.isfinite(take_steps(model))


@pytest.mark.usefixtures("eagerly")
def test_a_loss_scale_changes_neither_ratio_nor_limit():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(RATE), initial_scale=64.0)
    plain, other = line(1e3, max_penalty_ratio=0.5), line(1e3, scaled, max_penalty_ratio=0.5)
    assert take_steps(other) == pytest.approx(take_steps(plain), rel=1e-5)
    assert line_ratio(scaled=True) == pytest.approx(line_ratio(scaled=False), rel=1e-5)


def line_ratio(scaled):
    optimizer = keras.optimizers.SGD(RATE)
    model = line(0.3, keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer)
    take_steps(model)
    return model.penalty_ratio


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["recurrent", "subclassed"])
@pytest.mark.usefixtures("eagerly")
def test_any_kind_of_gradient_has_a_norm(name):
    model = nets.compiled(name, seed=0)
    model.train_on_batch(nets.inputs(name), nets.labels())
    assert 0.0 < model.penalty_ratio < np.inf


@pytest.mark.usefixtures("eagerly")
def test_a_resumed_training_goes_on_with_its_ratio_and_its_limit(tmp_path):
    model, other = (line(1e3, max_penalty_ratio=0.5) for _ in range(2))
    take_steps(model)
    model.save_weights(tmp_path / "model.weights.h5")
    take_steps(other, 3)
    other.load_weights(tmp_path / "model.weights.h5")
    assert other.penalty_ratio == model.penalty_ratio
    assert take_steps(other, 3) == take_steps(model, 3)


def test_the_limit_is_in_the_configuration():
    model = line(0.1, max_penalty_ratio=2)
    assert kf.FisherPenaltyModel.from_config(model.get_config()).max_penalty_ratio == 2.0
    with pytest.raises(ValueError, match="`max_penalty_ratio` must be positive"):
        line(0.1, max_penalty_ratio=0)


# ---- The warning ---------------------------------------------------------------------------------

DOMINATES = "the penalty dominates"


@pytest.mark.matrix
def test_a_penalty_that_dominates_is_reported_with_an_alpha_that_would_not(caplog):
    model = model_of(alpha=50.0, penalty="fp", rate=1e-5)
    fit(model, examples(10 * BATCH))
    (message,) = warnings_of(caplog)
    assert message.startswith(f"At step 9 (counted from 0) {DOMINATES}")
    balanced = float(message.split("An alpha of ")[1].split(" ")[0])
    model.alpha = balanced
    assert model.penalty_ratio == pytest.approx(1.0, rel=0.05)


def test_a_large_ratio_is_no_failure_once_the_loss_has_fallen(caplog):
    x, y = examples(12 * BATCH)
    model = model_of(keras.layers.Dense(16, activation="tanh"), alpha=1e9, rate=1e-30)
    model.backbone.layers[-1].kernel.assign(3.0 * model.backbone.layers[-1].kernel)
    y[BATCH:] = np.argmax(model.predict(x, verbose=0), axis=-1)[BATCH:]
    y[:BATCH] = np.argmin(model.predict(x, verbose=0), axis=-1)[:BATCH]  # a large first loss
    fit(model, (x, y))
    assert model.penalty_ratio > 2.0
    assert warnings_of(caplog) == []


def test_a_limit_keeps_the_penalty_from_dominating(caplog):
    model = kf.FisherPenaltyModel(
        model_of().backbone, 50.0, update_freq=1, max_penalty_ratio=1.0, seed=0
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-5), loss)
    fit(model, examples(), epochs=3)
    assert warnings_of(caplog) == []


@pytest.mark.slow
def test_a_more_serious_failure_is_reported_after_it(caplog):
    model = model_of(alpha=50.0, penalty="fp", rate=1e-5)
    guard = kf.callbacks.NonFiniteGuard()
    fit(model, examples(), guard, poison_at(2), epochs=4)
    first, second = warnings_of(caplog)
    assert DOMINATES in first
    assert "the loss became NaN" in second
