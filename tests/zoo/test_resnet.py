import numpy as np
import pytest

from keras_fisher.zoo import resnet
from tests import reference
from tests.zoo.networks import adds_of, gradient_norms, images, values_at


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize(("size", "side"), [(1, 1), (11, 3), (32, 8)])
def test_the_second_and_third_stages_halve_the_resolution(size, side, batch_norm):
    model = resnet((size, size, 3), depth=8, batch_norm=batch_norm)
    assert model.get_layer("stage3_block1_relu2").output.shape == (None, side, side, 64)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_block_is_the_relu_of_its_shortcut_and_its_branch(batch_norm):
    model, x = resnet((9, 9, 3), depth=14, batch_norm=batch_norm), images(2, 9, 9, 3)
    names = adds_of(model)
    blocks = values_at(model, names, x)
    outputs = values_at(model, [name.replace("add", "relu2") for name in names], x)
    before = values_at(model, ["stem_relu"], x)["stem_relu"]
    for (name, (shortcut, branch)), output in zip(blocks.items(), outputs.values(), strict=True):
        if name in ("stage2_block1_add", "stage3_block1_add"):  # option A of He et al.
            before = before[:, ::2, ::2]
            before = np.concatenate([before, np.zeros_like(before)], axis=-1)
        np.testing.assert_array_equal(shortcut, before)
        np.testing.assert_array_equal(output, np.maximum(shortcut + branch, 0))
        before = output


def test_weight_norm_has_no_batch_normalisation_and_batch_norm_no_weight_normalisation():
    def kinds(model):
        return {type(layer).__name__ for layer in model.layers if layer.weights}

    assert kinds(resnet(depth=8)) == {"Conv2D", "BatchNormalization", "Dense"}
    assert kinds(resnet(depth=8, batch_norm=False)) == {"WeightNormConv2D", "WeightNormDense"}


# ---- Norms under weight normalisation ------------------------------------------------------------

BLOCKS = 3  # in each of the three stages


def squared_norms(seed):
    """Mean squared norms of a pixel: of the stem, and (shortcut, branch, output) of each block."""
    model, x = resnet(depth=6 * BLOCKS + 2, batch_norm=False, seed=seed), images(2, 32, 32, 3)
    names = adds_of(model)
    parts = values_at(model, ["stem_relu", *names], x)
    outputs = values_at(model, [name.replace("add", "relu2") for name in names], x)

    def square(values):
        return np.mean(np.sum(np.square(np.asarray(values)), axis=-1))

    blocks = [
        (*map(square, parts[n]), square(o)) for n, o in zip(names, outputs.values(), strict=True)
    ]
    return square(parts["stem_relu"]), np.array(blocks)


@pytest.fixture(scope="module")
def norms_of_many():
    with reference.no_gradients():
        stems, blocks = zip(*(squared_norms(seed) for seed in range(12)), strict=True)
    return np.array(stems), np.array(blocks)


def mean_and_stderr(values):
    values = np.asarray(values)
    return np.mean(values), np.std(values) / len(values) ** 0.5


@pytest.mark.slow
def test_the_stem_keeps_the_squared_norm_of_a_pixel(norms_of_many):
    # 3 for three standard normal channels; padding takes 1 - (94 / 96)^2 = 4 % of it.
    mean, stderr = mean_and_stderr(norms_of_many[0])
    assert abs(mean - 3 * (94 / 96) ** 2) < 4 * stderr + 0.05


def test_a_branch_has_one_bth_of_its_shortcuts_squared_norm(norms_of_many):
    # In expectation over the weights. Each of two convolutions loses what padding takes: at a side
    # of 8, 1 - (22 / 24)^2 = 16 % of an image that is the same everywhere.
    _, blocks = norms_of_many
    relative = BLOCKS * blocks[:, :, 1] / blocks[:, :, 0]
    mean, stderr = mean_and_stderr(relative.mean(axis=1))
    assert (22 / 24) ** 4 - 4 * stderr < mean < 1 + 4 * stderr
    assert stderr < 0.1


def test_a_stage_multiplies_the_squared_norm_by_between_1_and_e(norms_of_many):
    # Each block by 1 + 1 / B at most: the ReLU takes some of what the branch has added.
    stems, blocks = norms_of_many
    ends = np.concatenate([stems[:, None], blocks[:, BLOCKS - 1 :: BLOCKS, 2]], axis=1)
    for growth in (ends[:, 1:] / ends[:, :-1]).T:
        mean, stderr = mean_and_stderr(growth)
        assert 1 < mean < (1 + 1 / BLOCKS) ** BLOCKS + 4 * stderr < np.e + 0.5


@pytest.mark.slow
def test_110_layers_under_weight_norm_neither_explode_nor_vanish():
    model = resnet((16, 16, 3), depth=110, batch_norm=False, seed=0)
    x = images(4, 16, 16, 3)
    ends = [f"stage{stage}_block18_relu2" for stage in (1, 2, 3)]
    for values in values_at(model, ["stem_relu", *ends], x).values():
        # Of a pixel, in a single draw of the weights: 3, times e for each of three stages at most.
        assert 1 < np.mean(np.sum(np.square(values), axis=-1)) < 3 * np.e**3
    norms = gradient_norms(model, x)
    assert all(0 < norm < 100 for norm in norms.values())
    for path in ("stem/kernel", "stage1_block1_conv1/kernel", "stage3_block18_conv2/kernel"):
        assert 0.05 < norms[path] < 20, path
