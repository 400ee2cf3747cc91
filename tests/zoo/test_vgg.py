import keras
import numpy as np
import pytest

from keras_fisher.zoo import vgg11


def test_parameter_count_is_that_of_configuration_a_with_512_unit_dense_layers():
    # Convolutions, 9 * in * out + out:  9*3*64 + 64      =     1,792
    #                                    9*64*128 + 128   =    73,856
    #                                    9*128*256 + 256  =   295,168
    #                                    9*256*256 + 256  =   590,080
    #                                    9*256*512 + 512  = 1,180,160
    #                                3 * (9*512*512 + 512) = 7,079,424
    # Dense, from 1*1*512 features:  2 * (512*512 + 512)   =   525,312
    #                                    512*10 + 10       =     5,130
    assert vgg11().count_params() == 9_750_922


def test_eleven_layers_have_weights():
    assert sum(bool(layer.weights) for layer in vgg11(width=4).layers) == 11


# Five poolings, each rounding up: 32 -> 1, 8 -> 1, 40 -> 20 -> 10 -> 5 -> 3 -> 2.
@pytest.mark.parametrize(("size", "side"), [(8, 1), (32, 1), (40, 2)])
def test_any_image_size_gives_one_logit_per_class(size, side, images):
    model = vgg11((size, size, 3), num_classes=7, width=4)
    assert model(images(size)).shape == (16, 7)
    assert model.get_layer("flatten").output.shape == (None, side * side * 8 * 4)


def test_activations_neither_vanish_nor_explode_at_initialisation(images):
    model = vgg11(seed=0)
    hidden = [layer.output for layer in model.layers if layer.weights]
    for activations in keras.Model(model.input, hidden)(images(32)):
        scale = float(np.sqrt(np.mean(np.square(activations))))
        assert 0.3 < scale < 4.0


def test_seed_decides_the_weights():
    first, again, other = (vgg11(width=4, seed=seed).get_weights() for seed in (0, 0, 1))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim == 1 or not np.array_equal(a, c)


def test_layers_of_one_shape_start_from_different_weights():
    model = vgg11(width=4, seed=0)
    kernels = [model.get_layer(f"stage5_conv{i}").kernel.numpy() for i in (1, 2)]
    assert not np.array_equal(*kernels)


def test_saving_and_loading_keeps_the_function(tmp_path, images):
    model = vgg11(width=4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = images(32)
    np.testing.assert_array_equal(loaded(x), model(x))
