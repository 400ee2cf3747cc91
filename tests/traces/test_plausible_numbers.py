"""Measurements that would be plausible and wrong are refused, or are NaN."""

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets

X, Y = nets.inputs("dense"), nets.labels()


def inner(name):
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(3, name="fc")(inputs), name=name)


def test_layers_of_equal_path_are_kept_apart():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.add([inner("a")(inputs), inner("b")(inputs)]))
    model.compile("sgd", nets.loss())
    found = kf.fisher_trace(model, (X[:, :4], Y), labels="given", by_layer=True)
    assert len(found.layers) == 2
    assert sum(found.layers.values()) == pytest.approx(found.value, rel=1e-5)


@pytest.mark.parametrize("measure", [kf.fisher_trace, kf.gradient_norm, kf.hessian_trace])
def test_a_list_of_batches_is_no_data_set(measure):
    batches = [(X[:3], Y[:3]), (X[3:], Y[3:])]
    with pytest.raises(ValueError, match=r"`data` must be .* Received: 2 arrays of labels"):
        measure(nets.plain("dense"), batches)


def test_nan_outputs_have_no_accuracy():
    model = nets.plain("dense")
    assert 0 <= kf.traces.accuracy(model, X, Y) <= 1
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    assert np.isnan(kf.traces.accuracy(model, X, Y))


def test_accuracy_needs_labels_that_are_outputs():
    with pytest.raises(ValueError, match=r"`y` must hold labels from 0 to 2.* from 1 to 3"):
        kf.traces.accuracy(nets.plain("dense"), X[:3], np.array([1, 2, 3]))


def test_a_moment_of_too_high_an_order_is_refused():
    density = kf.spectral_density(nets.plain("dense"), (X, Y), num_steps=3, num_probes=2, seed=0)
    assert np.isfinite(density.moment(5).value)
    with pytest.raises(ValueError, match=r"`order` must be below 2 num_steps = 6.* order=6"):
        density.moment(6)


def test_the_moments_of_a_whole_spectrum_are_exact_at_every_order():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(9, 2)).astype("float32")
    density = kf.spectral_density(model, (x, x[:, :1]), num_steps=3, num_probes=2, seed=0)
    matrix = np.c_[x, np.ones(9)].T @ np.c_[x, np.ones(9)] * 2 / 9
    exact = np.trace(np.linalg.matrix_power(matrix, 9)) / 3
    several = [
        kf.spectral_density(model, (x, x[:, :1]), num_steps=3, num_probes=200, seed=seed)
        for seed in range(2)
    ]
    assert density.moment(9).value > 0
    for found in several:
        moment = found.moment(9)
        assert abs(moment.value - exact) < 4 * moment.stderr


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


def test_noisy_labels_are_marked_by_booleans():
    with pytest.raises(ValueError, match="`is_noisy` must hold booleans"):
        kf.callbacks.LabelNoiseMonitor(X, Y, np.linspace(0, 0.5, len(Y)))


def test_a_meter_does_not_measure_the_loss_of_an_earlier_compile():
    model = nets.plain("dense")
    meter = kf.traces.GradientNormMeter(model)
    meter((X, Y))
    model.compile("sgd", nets.loss())
    with pytest.raises(ValueError, match="GradientNormMeter must be made anew after `compile`"):
        meter((X, Y))


def test_one_output_has_no_classes():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", nets.loss())
    with pytest.raises(ValueError, match="Categorical needs an output for each of at least 2"):
        kf.fisher_trace(model, (X[:, :4], np.zeros(6, "int32")))
