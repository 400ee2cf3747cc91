import keras
import numpy as np
import pytest

from keras_fisher.zoo import simple_cnn


def test_parameter_count_is_that_of_the_keras_example_with_128_hidden_units():
    # Convolutions, 9 * in * out + out:  9*3*32 + 32   =     896
    #                                    9*32*32 + 32  =   9,248
    #                                    9*32*64 + 64  =  18,496
    #                                    9*64*64 + 64  =  36,928
    # Sides 32 -> 30 -> 15 -> 13 -> 6, so 6*6*64 = 2,304 features:
    #                                    2304*128 + 128 = 295,040
    #                                    128*10 + 10    =   1,290
    assert simple_cnn().count_params() == 361_898


@pytest.mark.parametrize(("size", "features"), [(10, 1), (32, 36)])
def test_any_image_size_gives_one_logit_per_class(size, features, images):
    model = simple_cnn((size, size, 3), num_classes=7, width=4)
    assert model(images(size)).shape == (16, 7)
    assert model.get_layer("flatten").output.shape == (None, features * 8)


def test_images_too_small_for_the_unpadded_convolutions_are_refused():
    with pytest.raises(ValueError, match="input_shape"):
        simple_cnn((9, 32, 3))


def test_logits_start_small(images):
    logits = keras.ops.convert_to_numpy(simple_cnn(seed=0)(images(32)))
    assert 0.03 < logits.std() < 1.0


def test_seed_decides_the_weights():
    first, again, other = (simple_cnn(width=4, seed=seed).get_weights() for seed in (0, 0, 1))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim == 1 or not np.array_equal(a, c)


def test_layers_of_one_shape_start_from_different_weights():
    # Four channels in and four filters: the first two kernels have the same shape.
    model = simple_cnn((32, 32, 4), width=4, seed=0)
    kernels = [model.get_layer(f"stage1_conv{i}").kernel.numpy() for i in (1, 2)]
    assert not np.array_equal(*kernels)


def test_saving_and_loading_keeps_the_function(tmp_path, images):
    model = simple_cnn(width=4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = images(32)
    np.testing.assert_array_equal(loaded(x), model(x))
