import keras
import numpy as np
import pytest

from keras_fisher.zoo import wide_resnet
from tests.zoo.networks import adds_of, gradient_norms, images, values_at


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize(("size", "side"), [(8, 2), (11, 3), (32, 8)])
def test_the_second_and_third_stages_halve_the_resolution(size, side, batch_norm):
    model = wide_resnet((size, size, 3), depth=8, width=2, batch_norm=batch_norm)
    assert model.get_layer("head_relu").output.shape == (None, side, side, 128)


def test_every_skip_init_block_starts_as_its_shortcut_exactly():
    model = wide_resnet((8, 8, 3), depth=20, width=2, batch_norm=False, seed=0)
    blocks = values_at(model, adds_of(model), images(2, 8, 8, 3))
    assert len(blocks) == 9
    for shortcut, branch in blocks.values():
        assert np.any(shortcut)
        assert not np.any(branch)


def test_skip_init_starts_from_the_shortcuts_alone():
    model = wide_resnet(depth=14, width=2, batch_norm=False, seed=0)
    x = images(8, 32, 32, 3)
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


@pytest.mark.slow
def test_104_layers_under_skip_init_neither_explode_nor_vanish():
    model = wide_resnet((8, 8, 3), depth=104, width=1, batch_norm=False, seed=0)
    x = images(4, 8, 8, 3)
    assert 0.1 < np.asarray(model(x)).std() < 5
    norms = gradient_norms(model, x)
    for path in ("stem/kernel", "stage3_block1_shortcut/kernel", "logits/kernel"):
        assert 0.03 < norms[path] < 30, path
    # Of the branches only the scalars have a gradient: they hide what comes before them.
    for path, norm in norms.items():
        if path.endswith("scale/scale"):
            assert 1e-4 < norm < 10, path
        elif "conv" in path:
            assert norm == 0, path
