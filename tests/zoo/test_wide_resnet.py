import keras
import numpy as np
import pytest

from keras_fisher.zoo import wide_resnet


def size_of(variables) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


# Kernels of Wide ResNet 44-3 (n = 7; widths 48, 96, 192), the shortcuts' included:
#   stem      9*3*16                                        =       432
#   stage 1   9*16*48 + 16*48 + 13 * 9*48*48                =   277,248
#   stage 2   9*48*96 + 48*96 + 13 * 9*96*96                = 1,124,352
#   stage 3   9*96*192 + 96*192 + 13 * 9*192*192            = 4,497,408
#   dense     192*10, and 10 biases                         =     1,930
#   in all                                                    5,901,370
KERNELS_44_3 = 5_901_370


def test_parameter_count_with_batch_normalisation():
    # Normalised channels: (16 + 13*48) + (48 + 13*96) + (96 + 13*192) + 192 = 4,720,
    # each with a trained scale and shift, and a moving mean and variance.
    model = wide_resnet(depth=44, width=3)
    assert size_of(model.trainable_variables) == KERNELS_44_3 + 2 * 4_720
    assert size_of(model.non_trainable_variables) == 2 * 4_720


def test_parameter_count_with_skip_init():
    # Biases: 16 in the stem; 14 convolutions and a shortcut a stage: 15 * (48 + 96 + 192) = 5,040.
    # One scalar for each of the 21 blocks.
    model = wide_resnet(depth=44, width=3, batch_norm=False)
    assert size_of(model.trainable_variables) == KERNELS_44_3 + 16 + 5_040 + 21
    assert not model.non_trainable_variables


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize(("size", "side"), [(8, 2), (32, 8)])
def test_any_image_size_gives_one_logit_per_class(size, side, batch_norm, images):
    model = wide_resnet((size, size, 3), num_classes=7, depth=8, width=1, batch_norm=batch_norm)
    assert model(images(size)).shape == (16, 7)
    assert model.get_layer("head_relu").output.shape == (None, side, side, 64)


@pytest.mark.parametrize("depth", [2, 40, 45])
def test_depth_that_is_not_6n_plus_2_is_refused(depth):
    with pytest.raises(ValueError, match="depth"):
        wide_resnet(depth=depth)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_logits_start_at_a_moderate_scale(batch_norm, images):
    model = wide_resnet(depth=44, width=3, batch_norm=batch_norm, seed=0)
    logits = keras.ops.convert_to_numpy(model(images(32), training=True))
    assert 0.03 < logits.std() < 3.0


def test_skip_init_starts_from_the_shortcuts_alone(images):
    model = wide_resnet(depth=14, width=2, batch_norm=False, seed=0)
    x = images(32)
    logits = model(x)

    def relu_then(name, x):
        return model.get_layer(name)(keras.ops.relu(x))

    shortcuts = model.get_layer("stem")(x)
    for stage in (1, 2, 3):
        shortcuts = relu_then(f"stage{stage}_block1_shortcut", shortcuts)
    pooled = keras.ops.mean(keras.ops.relu(shortcuts), axis=(1, 2))
    np.testing.assert_allclose(logits, model.get_layer("logits")(pooled), rtol=1e-5, atol=1e-6)

    model.get_layer("stage3_block2_scale").scale.assign(1.0)
    assert not np.allclose(logits, model(x), rtol=1e-2)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_seed_decides_the_weights(batch_norm):
    first, again, other = (
        wide_resnet(depth=8, width=1, batch_norm=batch_norm, seed=seed).get_weights()
        for seed in (0, 0, 1)
    )
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim < 2 or not np.array_equal(a, c)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_saving_and_loading_keeps_the_function(tmp_path, batch_norm, images):
    model = wide_resnet(depth=8, width=2, batch_norm=batch_norm)
    for variable in model.trainable_variables:
        variable.assign_add(0.01 * keras.ops.ones_like(variable))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = images(32)
    np.testing.assert_array_equal(loaded(x), model(x))
