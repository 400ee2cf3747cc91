import keras
import numpy as np
import pytest

from keras_fisher.zoo.weight_norm import WeightNormConv2D, WeightNormDense, norm_preserving_gain
from tests.rules.cases import WEIGHT_NORM_LAYERS as LAYERS
from tests.traces.per_example import loop


def model_of(name):
    start = keras.Input((6, 7, 4))
    return keras.Model(start, LAYERS[name]()(start))


# ---- The layers --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_each_filter_has_the_length_and_the_direction_of_its_own_weights(name):
    layer = loop.randomise(model_of(name)).layers[-1]
    gain, direction = np.asarray(layer.gain), np.asarray(layer.direction)
    for i, filter_direction in enumerate(np.moveaxis(direction, -1, 0)):
        expected = gain[i] * filter_direction / np.linalg.norm(filter_direction)
        np.testing.assert_allclose(layer.kernel[..., i], expected, rtol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_computes_what_kerass_own_computes_with_that_kernel(name):
    layer = loop.randomise(model_of(name)).layers[-1]
    config = layer.get_config()
    del config["gain_initializer"]
    own = type(layer).__mro__[2].from_config(config)
    assert type(own) in (keras.layers.Dense, keras.layers.Conv2D)
    x = loop.normal(2, 6, 7, 4)
    own.build(x.shape)
    own.set_weights([layer.kernel, *([layer.bias] if layer.use_bias else [])])
    np.testing.assert_allclose(layer(x), own(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_saving_keeps_lengths_and_directions_apart(name, tmp_path):
    model = loop.randomise(model_of(name))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(model.weights, loaded.weights, strict=True):
        assert one.path == other.path
        np.testing.assert_array_equal(one, other)
    assert model.to_json() == loaded.to_json()


def test_mixed_precision_computes_lengths_in_the_precision_of_the_weights():
    layer = WeightNormDense(2, dtype="mixed_float16")
    layer.build((None, 3))
    layer.direction.assign(np.full((3, 2), 300.0))  # squared, it is more than float16 holds
    assert keras.backend.standardize_dtype(layer.kernel.dtype) == "float16"
    outputs = layer(np.ones((1, 3)))
    assert keras.backend.standardize_dtype(outputs.dtype) == "float16"
    np.testing.assert_allclose(outputs, np.sqrt(3) * np.ones((1, 2)), rtol=1e-3)


@pytest.mark.parametrize("name", ["dense", "conv"])
def test_what_would_leave_the_lengths_out_is_refused(name):
    layer = model_of(name).layers[-1]
    with pytest.raises(NotImplementedError, match="low-rank"):
        layer.enable_lora(2)
    with pytest.raises(NotImplementedError, match="quantised"):
        layer.quantize("int8")


# ---- The initialisation --------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 1, 0.25])
def test_the_gain_is_the_root_of_factor_times_fan_in_over_fan_out(factor):
    gain = norm_preserving_gain(fan_in=12, fan_out=3, factor=factor)((3,))
    np.testing.assert_allclose(gain, np.full(3, (factor * 12 / 3) ** 0.5), rtol=1e-6)


@pytest.mark.parametrize(
    "layer", [lambda: WeightNormConv2D(16, 3), lambda: WeightNormDense(8)], ids=["conv", "dense"]
)
def test_directions_start_orthogonal(layer):
    layer = layer()
    layer.build((None, 8, 8, 8))
    filters = np.reshape(layer.kernel, (-1, layer.kernel.shape[-1]))
    np.testing.assert_allclose(filters.T @ filters, np.eye(filters.shape[-1]), atol=1e-5)


# E ||W x||^2 = factor ||x||^2 over the orthogonal directions, whatever x is.
@pytest.mark.parametrize(("units_in", "units_out"), [(16, 4), (8, 8), (4, 16)])
def test_the_expected_squared_norm_is_multiplied_by_the_factor(units_in, units_out):
    x = np.abs(loop.normal(1, units_in))  # as after a ReLU
    gain = norm_preserving_gain(units_in, units_out, factor=2)
    layer = WeightNormDense(units_out, gain_initializer=gain)
    layer.build(x.shape)
    ratios = []
    for seed in range(60):
        layer.direction.assign(keras.initializers.Orthogonal(seed=seed)((units_in, units_out)))
        ratios.append(np.sum(np.square(np.asarray(layer(x)))) / np.sum(np.square(x)))
    stderr = np.std(ratios) / len(ratios) ** 0.5
    assert abs(np.mean(ratios) - 2) <= 4 * stderr + 1e-5
    assert stderr < 0.2


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((0, 4), "fan_in"), ((4, 0), "fan_out"), ((4, 4, 0.0), "factor"), ((4, 4, -1.0), "factor")],
)
def test_gains_of_nothing_are_refused(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}` must be .* Received: {name}="):
        norm_preserving_gain(*arguments)
