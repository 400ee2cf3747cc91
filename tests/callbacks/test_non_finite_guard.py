import logging

import keras
import numpy as np
import pytest
from keras import ops

import keras_fisher as kf
from keras_fisher.callbacks import NonFiniteGuard
from tests import nets, reference

BATCH = 8
WHAT = {
    "loss": "the loss became NaN or infinite",
    "penalty": "the penalty or its gradient became NaN or infinite",
    "outputs": "the model's outputs had been the same for all examples",
}


def examples(count=64):
    generator = np.random.default_rng(0)
    return generator.normal(size=(count, 6)).astype("float32"), generator.integers(0, 3, count)


def poisoned(batch):
    """Examples of which one, in a batch, is NaN."""
    x, y = examples()
    x[batch * BATCH + 3, 2] = np.nan
    return x, y


def poison_at(epoch):
    """Makes the last bias NaN before an epoch."""

    def poison(model):
        bias = model.backbone.layers[-1].bias
        bias.assign(bias * np.nan)

    return reference.call_at("epoch_begin", epoch, poison)


def model_of(
    *layers,
    alpha=0.01,
    update_freq=1,
    penalty="gp",
    gradient="exact",
    rate=0.1,
    seed=0,
    **arguments,
):
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    hidden = layers or (dense(16, activation="tanh"), keras.layers.BatchNormalization())
    backbone = keras.Sequential([keras.Input((6,)), *hidden, dense(3)])
    model = kf.FisherPenaltyModel(
        backbone, alpha, update_freq=update_freq, penalty=penalty, gradient=gradient, seed=seed
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss, **arguments)
    return model


def with_weights_of_numpy(model):
    """The model with weights that are the same on every backend."""
    generator = np.random.default_rng(3)
    for weight in model.trainable_weights:
        weight.assign(generator.normal(scale=0.3, size=weight.shape))
    return model


def fit(model, data, *callbacks, **arguments):
    given = {"batch_size": BATCH, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(*data, callbacks=list(callbacks), **given)


def warnings_of(caplog):
    return [record.message for record in caplog.records if record.name == "keras_fisher"]


def steps_taken(model):
    return int(ops.convert_to_numpy(model.optimizer.iterations))


@pytest.mark.matrix
@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        pytest.param({"jit_compile": True}, marks=reference.traced_only),
        pytest.param({"steps_per_execution": 4}, marks=reference.several_steps_only),
    ],
)
def test_a_loss_that_becomes_nan_is_told_with_its_step(caplog, alpha, arguments):
    model = model_of(alpha=alpha, **arguments)
    fit(model, poisoned(batch=5))
    (message,) = warnings_of(caplog)
    assert message.startswith(f"At step 5 (counted from 0) {WHAT['loss']}.")
    assert f"Loss nan, alpha {alpha:g}, penalty ||g||^2" in message


def infinite_slope(x):
    return ops.sqrt(0.0 * x)


@pytest.mark.filterwarnings("ignore:.*Lambda")
def test_a_penalty_that_becomes_infinite_is_told_while_the_loss_is_finite(caplog):
    model = model_of(keras.layers.Dense(4), keras.layers.Lambda(infinite_slope))
    fit(model, examples(BATCH))
    (message,) = warnings_of(caplog)
    assert message.startswith(f"At step 0 (counted from 0) {WHAT['penalty']}.")
    assert message.endswith("gradient='finite_difference' takes none.")


@reference.jax_only  # TensorFlow's function has a second derivative there
@pytest.mark.parametrize("gradient", ["exact", "finite_difference"])
def test_a_difference_is_finite_where_a_second_derivative_is_nan(caplog, gradient):
    hidden = keras.layers.Dense(4, activation="relu"), keras.layers.UnitNormalization()
    model = model_of(*hidden, gradient=gradient)
    x, y = examples(BATCH)
    x[3] = 0.0  # its units are 0
    fit(model, (x, y))
    assert [WHAT["penalty"] in message for message in warnings_of(caplog)] == (
        [True] if gradient == "exact" else []
    )
    assert np.isfinite(nets.flat(model.weights)).all() == (gradient == "finite_difference")


def test_an_alpha_far_too_large_is_told_where_it_leaves_a_constant_predictor(caplog):
    layers = [keras.layers.Dense(32, activation="relu") for _ in range(2)]
    model = with_weights_of_numpy(model_of(*layers, alpha=1e3, penalty="fp", seed=3))
    history = fit(model, examples(), epochs=20).history
    assert np.isfinite(history["loss"]).all()
    (message,) = warnings_of(caplog)
    assert WHAT["outputs"] in message
    assert "alpha 1000" in message


@pytest.mark.slow
def test_a_nan_after_constant_outputs_is_told_and_stopped_at(caplog):
    layers = [keras.layers.Dense(32, activation="relu") for _ in range(2)]
    model = with_weights_of_numpy(model_of(*layers, alpha=1e3, penalty="fp", seed=3))
    fit(model, examples(), NonFiniteGuard(), poison_at(19), epochs=21)
    first, second = warnings_of(caplog)
    assert WHAT["outputs"] in first
    assert second.startswith(f"At step {19 * 8} (counted from 0) {WHAT['loss']}")
    assert steps_taken(model) == 19 * 8 + 1


def test_nothing_is_told_of_a_training_that_goes_well(caplog):
    x, y = examples(4 * BATCH + 1)  # the last batch has one example
    model = model_of(alpha=0.1)
    model.backbone.layers[-1].kernel.assign(np.zeros((16, 3)))  # constant at the start
    fit(model, (x, y), epochs=5)
    assert warnings_of(caplog) == []


@pytest.mark.slow
def test_predictions_that_are_sure_and_right_are_no_trouble(caplog):
    softmax = keras.layers.Dense(3, activation="softmax")
    model = kf.FisherPenaltyModel(keras.Sequential([keras.Input((6,)), softmax]), alpha=1e-9)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy())
    softmax.bias.assign([0.0, 1.0, 0.0])
    x, _ = examples()
    fit(model, (x, np.ones(64, int)))
    softmax.bias.assign([0.0, 99.0, 0.0])  # saturated: all outputs are the same
    fit(model, (x, np.ones(64, int)), NonFiniteGuard(), epochs=3)
    assert steps_taken(model) == 4 * 8
    assert warnings_of(caplog) == []


@pytest.mark.slow
def test_an_interrupted_skipping_fit_does_not_skip_on():
    model, interrupted = model_of(), reference.call_at("epoch_end", 0, reference.interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(model, examples(), NonFiniteGuard("skip"), interrupted)
    fit(model, poisoned(batch=0))
    assert np.isnan(model.get_weights()[0]).all()


@reference.jax_only  # whose steps cannot fail
@pytest.mark.parametrize("alpha", [0.0, 0.1])
@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_makes_the_loss_nan(caplog, label, alpha):
    x, y = examples(BATCH)
    y[4] = label
    model_of(alpha=alpha).fit(reference.batches(x, y, BATCH), verbose=0)
    assert WHAT["loss"] in warnings_of(caplog)[0]


def test_a_loss_of_one_s_own_is_watched(caplog):
    class Own(kf.FisherPenaltyModel):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(y_pred) * float("nan")

    model = Own(keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)]), alpha=0.0)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    fit(model, examples())
    assert len(warnings_of(caplog)) == 1


def test_each_training_is_told_of_once(caplog):
    model = model_of()
    fit(model, poisoned(batch=2), epochs=3)
    assert len(warnings_of(caplog)) == 1
    fit(model, examples(), keras.callbacks.CallbackList(add_history=True), epochs=2)
    assert len(warnings_of(caplog)) == 2  # the weights are NaN by now


@pytest.mark.slow
def test_a_list_of_callbacks_may_be_given_in_every_way_that_keras_takes(caplog):
    guard = NonFiniteGuard()
    for form in (
        lambda model: None,
        lambda model: guard,
        lambda model: [guard],
        lambda model: keras.callbacks.CallbackList([guard], add_history=True, model=model),
    ):
        model = model_of()
        caplog.clear()
        model.fit(*poisoned(batch=1), BATCH, 1, 0, form(model), shuffle=False)
        assert len(warnings_of(caplog)) == 1


@pytest.mark.matrix
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_stop_ends_training_at_that_step(caplog, alpha):
    model = model_of(alpha=alpha)
    fit(model, poisoned(batch=5), NonFiniteGuard(), epochs=3)
    assert steps_taken(model) == 6
    assert len(warnings_of(caplog)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{}, {"jit_compile": True}])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_skip_trains_as_if_the_batch_were_not_there(caplog, alpha, arguments):
    x, y = poisoned(batch=5)
    without = [np.delete(part, np.s_[5 * BATCH : 6 * BATCH], axis=0) for part in (x, y)]
    model, expected = (model_of(alpha=alpha, **arguments) for _ in range(2))
    guard = NonFiniteGuard("skip")
    history = fit(model, (x, y), guard, epochs=2).history
    expected_history = fit(expected, without, epochs=2).history
    for one, other in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(history["loss"], expected_history["loss"], rtol=1e-5)
    assert guard.skipped == 2
    first, *others = warnings_of(caplog)
    assert WHAT["loss"] in first
    counts = [message for message in others if "skipped" in message]  # alpha may be too large
    assert counts == [f"{n} skipped since training began." for n in ("1 step", "2 steps")]


@pytest.mark.filterwarnings("ignore:.*Lambda")
@pytest.mark.usefixtures("eagerly")
def test_skip_takes_no_step_along_a_gradient_that_is_not_finite():
    for alpha in (0.0, 0.1):
        model = model_of(keras.layers.Dense(4), keras.layers.Lambda(infinite_slope), alpha=alpha)
        before = model.get_weights()
        fit(model, examples(2 * BATCH), NonFiniteGuard("skip"))
        for one, other in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_a_fixed_loss_scale_trains_as_none_does_and_its_steps_are_skipped_too(alpha):
    results = []
    for factor in (None, 8.0):
        guard, model = NonFiniteGuard("skip"), model_of(alpha=alpha)
        model.optimizer.loss_scale_factor = factor
        fit(model, poisoned(2), guard)
        assert guard.skipped == 1
        results.append(nets.flat(model.weights))
    np.testing.assert_allclose(*results, rtol=1e-5)


@pytest.mark.slow
def test_a_fit_without_the_guard_skips_nothing():
    model = model_of()
    fit(model, examples(), NonFiniteGuard("skip"))
    fit(model, poisoned(batch=0))
    assert np.isnan(model.get_weights()[0]).all()


def test_a_loss_scale_that_skips_is_not_told_of(caplog):
    keras.config.set_dtype_policy("mixed_float16")
    model = model_of(alpha=0.01)
    fit(model, examples(), NonFiniteGuard("skip"), epochs=2)
    assert float(model.optimizer.dynamic_scale) < 2**15  # gradients overflowed at first
    assert warnings_of(caplog) == []


def test_other_actions_and_other_models_are_refused():
    with pytest.raises(ValueError, match=r"`action` must be .*'stop'.*'skip'.*Received.*'raise'"):
        NonFiniteGuard("raise")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    with pytest.raises(TypeError, match=r"needs a FisherPenaltyModel.*TerminateOnNaN"):
        model.fit(np.zeros((4, 6)), np.zeros((4, 3)), callbacks=[NonFiniteGuard()], verbose=0)


@pytest.fixture(autouse=True)
def _caught(caplog):
    caplog.set_level(logging.WARNING, "keras_fisher")
