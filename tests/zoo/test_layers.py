import keras
import numpy as np
import pytest

from keras_fisher.zoo import _layers
from keras_fisher.zoo.resnet import PaddedShortcut


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("shape", [(6, 6), (7, 7), (1, 1), (2, 5)])
def test_strided_windows_are_centred_on_the_pixels_that_a_shortcut_takes(shape, size):
    x = np.arange(1.0, 1 + np.prod(shape)).reshape(1, *shape, 1)
    centre = np.zeros((size, size, 1, 1))
    centre[size // 2, size // 2] = 1
    start = keras.Input((*shape, 1))
    outputs = _layers.conv(start, 1, size, 2, name="conv", use_bias=False)
    model = keras.Model(start, outputs)
    model.get_layer("conv").set_weights([centre])
    np.testing.assert_array_equal(model(x), x[:, ::2, ::2])
    np.testing.assert_array_equal(PaddedShortcut(filters=1)(x), x[:, ::2, ::2])


def test_a_padded_shortcut_keeps_the_channels_and_adds_zeros():
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype("float32")
    found = PaddedShortcut(filters=8, strides=2)(x)
    assert found.shape == (2, 3, 2, 8)
    np.testing.assert_array_equal(found[..., :3], x[:, ::2, ::2])
    assert not np.asarray(found[..., 3:]).any()
