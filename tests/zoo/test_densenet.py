import keras
import numpy as np
import pytest

from keras_fisher.zoo import densenet


def size_of(variables) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


def test_parameter_count_of_40_12():
    # Layer i = 0..11 of a block that starts from c channels reads c + 12i: 12c + 792 in all.
    #   stem           9*3*16                            =       432
    #   block 1        9*12 * (12*16 + 792)  = 108 * 984   =   106,272  16 -> 160 channels
    #   transition 1   160*160                           =    25,600
    #   block 2        9*12 * (12*160 + 792) = 108 * 2,712 =   292,896  160 -> 304 channels
    #   transition 2   304*304                           =    92,416
    #   block 3        9*12 * (12*304 + 792) = 108 * 4,440 =   479,520  304 -> 448 channels
    #   dense          448*10, and 10 biases             =     4,490
    #   in all                                             1,001,626
    # Normalised channels: 984 + 160 + 2,712 + 304 + 4,440 + 448 = 9,048, each with a trained scale
    # and shift, and a moving mean and variance. Table 2 of Huang et al. says 1.0M.
    model = densenet(depth=40, growth=12)
    assert size_of(model.trainable_variables) == 1_001_626 + 2 * 9_048
    assert size_of(model.non_trainable_variables) == 2 * 9_048


@pytest.mark.parametrize("depth", [7, 13])
def test_as_many_layers_have_kernels_as_the_depth_says(depth):
    model = densenet(depth=depth, growth=2)
    assert sum(hasattr(layer, "kernel") for layer in model.layers) == depth


# Two transitions, each of which halves the side; 16 + 3 * 2 * 4 = 40 channels at the end.
@pytest.mark.parametrize(("size", "side"), [(8, 2), (32, 8)])
def test_any_image_size_gives_one_logit_per_class(size, side, images):
    model = densenet((size, size, 3), num_classes=7, depth=10, growth=4)
    assert model(images(size)).shape == (16, 7)
    assert model.get_layer("head_relu").output.shape == (None, side, side, 40)


def test_a_layer_reads_the_outputs_of_all_before_it_in_its_block(images):
    model = densenet((8, 8, 3), depth=13, growth=4, seed=0)
    names = ["stem", *(f"block1_layer{layer}_conv" for layer in (1, 2))]
    outputs = [model.get_layer(name).output for name in names]
    *earlier, read = keras.Model(
        model.input, [*outputs, model.get_layer("block1_layer3_norm").input]
    )(images(8))
    np.testing.assert_array_equal(read, np.concatenate(earlier, axis=-1))


@pytest.mark.parametrize("depth", [4, 39, 41])
def test_depth_that_is_not_3n_plus_4_is_refused(depth):
    with pytest.raises(ValueError, match=rf"`depth` must be 3n \+ 4 .* Received: {depth}"):
        densenet(depth=depth)


def test_kernels_start_at_the_scale_of_he():
    for layer in densenet(depth=40, growth=12, seed=0).layers:
        if hasattr(layer, "kernel"):
            kernel = layer.kernel.numpy()
            fan_in = kernel[..., 0].size
            assert kernel.std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.15), layer.name


def test_a_training_step_moves_every_variable(images):
    model = densenet((8, 8, 3), depth=10, growth=4, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    before = model.get_weights()
    model.train_on_batch(images(8), np.arange(16) % 10)
    for variable, old in zip(model.weights, before, strict=True):
        assert not np.array_equal(variable, old), variable.path


def test_seed_decides_the_weights():
    first, again, other = (
        densenet(depth=10, growth=4, seed=seed).get_weights() for seed in (0, 0, 1)
    )
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim < 2 or not np.array_equal(a, c)


def test_saving_and_loading_keeps_the_function(tmp_path, images):
    model = densenet(depth=10, growth=4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = images(32)
    np.testing.assert_array_equal(loaded(x), model(x))
