"""How clean and noisy labels are learnt."""

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets

N = 40


@pytest.fixture
def task():
    x, y = nets.inputs("dense", batch=N), nets.labels(batch=N)
    y_noisy, is_noisy = kf.data.uniform_label_noise(y, 0.4, nets.CLASSES, seed=0)
    return x, y_noisy, is_noisy


@pytest.mark.matrix
@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_label_noise_monitor_measures_either_group_at_the_end_of_the_epoch(task, alpha):
    x, y, is_noisy = task
    model = nets.compiled(
        "dense", keras.optimizers.SGD(0.01), alpha=alpha, compile_args={"run_eagerly": True}
    )
    monitor = kf.callbacks.LabelNoiseMonitor(x, y, is_noisy, batch_size=8, gradient_batches=2)
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=[monitor]).history
    predicted = np.argmax(model.predict(x, verbose=0), axis=-1)
    for name, group in (("clean", ~is_noisy), ("noisy", is_noisy)):
        right = predicted[group] == y[group]
        assert history[f"{name}_accuracy"][-1] == pytest.approx(right.mean())
        norm = kf.gradient_norm(model, (x[group], y[group]), batch_size=8, num_examples=16).value
        assert history[f"{name}_gradient_norm"][-1] == pytest.approx(norm, rel=1e-5)
    assert history["gradient_norm_ratio"][-1] == pytest.approx(
        history["clean_gradient_norm"][-1] / history["noisy_gradient_norm"][-1]
    )


def test_groups_of_unequal_size_are_compared_in_equal_batches():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2000, 4)).astype("float32")
    y, is_noisy = generator.integers(0, 3, 2000), np.arange(2000) < 16
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(0.0), nets.loss())
    monitor = kf.callbacks.LabelNoiseMonitor(x, y, is_noisy, gradient_batches=20)
    logs = model.fit(x, y, batch_size=1000, callbacks=[monitor], verbose=0).history
    expected = kf.gradient_norm(model, (x[16:], y[16:]), num_examples=320, batch_size=16).value
    assert logs["clean_gradient_norm"][0] == pytest.approx(expected, rel=1e-5)


def test_label_noise_monitor_warns_of_nan_once(task):
    x, y, is_noisy = task
    model = nets.compiled("dense", compile_args={"run_eagerly": True})
    model.trainable_weights[0].assign(np.full((4, 5), np.nan))
    monitor = kf.callbacks.LabelNoiseMonitor(x, y, is_noisy)
    with pytest.warns(UserWarning, match="LabelNoiseMonitor measured NaN") as caught:
        model.fit(x, y, epochs=2, verbose=0, callbacks=[monitor])
    assert sum("measured NaN" in str(warning.message) for warning in caught) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, noisy: (x[1:], y, noisy), "same length"),
        (lambda x, y, noisy: (x, y, noisy & False), "`is_noisy` must be true for some"),
        (lambda x, y, noisy: (x, y, noisy | True), "`is_noisy` must be true for some"),
        (lambda x, y, noisy: (x, y, 0.5 * noisy), "`is_noisy` must hold booleans"),
        (lambda x, y, noisy: (x, np.eye(nets.CLASSES)[y], noisy), "`y` must hold integer labels"),
    ],
)
def test_label_noise_monitor_refuses_bad_arrays(task, change, message):
    with pytest.raises(ValueError, match=message):
        kf.callbacks.LabelNoiseMonitor(*change(*task))


def test_label_noise_monitor_refuses_a_model_without_an_output_for_each_class(task):
    x, y, is_noisy = task
    model = kf.FisherPenaltyModel(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    before = nets.flat(model.weights)
    with pytest.raises(ValueError, match=r"one output per class.*Received: .*\(None, 1\)"):
        model.fit(x, y > 0, verbose=0, callbacks=[kf.callbacks.LabelNoiseMonitor(x, y, is_noisy)])
    np.testing.assert_array_equal(nets.flat(model.weights), before)


class Subclassed(keras.Model):
    """A model whose outputs are not known before it is called."""

    def __init__(self, width):
        super().__init__()
        self.dense = keras.layers.Dense(width)

    def call(self, x):
        return self.dense(x)


def test_labels_beyond_the_outputs_are_refused_before_training(task):
    x, y, is_noisy = task
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(nets.CLASSES - 1)])
    model.compile("sgd", nets.loss(), run_eagerly=True)
    before = nets.flat(model.weights)
    monitor = kf.callbacks.LabelNoiseMonitor(x, y, is_noisy)
    message = (
        f"labels from 0 to {nets.CLASSES - 2}, .*Received: labels from 0 to {nets.CLASSES - 1}"
    )
    with pytest.raises(ValueError, match=message):
        model.fit(x, y % 2, verbose=0, callbacks=[monitor])
    np.testing.assert_array_equal(nets.flat(model.weights), before)
    subclassed = Subclassed(nets.CLASSES - 1)
    subclassed.compile("sgd", nets.loss(), run_eagerly=True)
    with pytest.raises(ValueError, match=message):
        subclassed.fit(x, y % 2, verbose=0, callbacks=[monitor])


LOSSES = (
    keras.losses.MeanSquaredError(),
    keras.losses.BinaryCrossentropy(from_logits=True),
    keras.losses.CategoricalCrossentropy(from_logits=True),
)


@pytest.mark.matrix
@pytest.mark.parametrize("make", ["functional", "subclassed"])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_of_the_labels_that_the_loss_compares_with(task, make, loss):
    x, y, is_noisy = task
    head = keras.layers.Dense(nets.CLASSES)
    model = keras.Sequential([keras.Input((4,)), head])
    if make == "subclassed":
        model = Subclassed(nets.CLASSES)
    model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    targets = np.eye(nets.CLASSES, dtype="float32")[y]
    monitor = kf.callbacks.LabelNoiseMonitor(x, y, is_noisy, batch_size=8, gradient_batches=2)
    history = model.fit(x, targets, verbose=0, callbacks=[monitor]).history
    for name, group in (("clean", ~is_noisy), ("noisy", is_noisy)):
        data = (x[group], targets[group])
        norm = kf.gradient_norm(model, data, batch_size=8, num_examples=16).value
        assert history[f"{name}_gradient_norm"][-1] == pytest.approx(norm, rel=1e-5)
