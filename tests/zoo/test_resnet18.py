import keras
import numpy as np
import pytest

from keras_fisher.zoo import resnet18
from tests.zoo.networks import adds_of, gradient_norms, images, values_at


def small(seed=0):
    return resnet18((32, 32, 3), 10, width=8, seed=seed)


# Halved five times, rounding up; the last stage has 8 times the filters of the first.
@pytest.mark.matrix
@pytest.mark.parametrize(("size", "side"), [(1, 1), (32, 1), (33, 2), (64, 2), (224, 7)])
def test_the_resolution_is_halved_five_times(size, side):
    model = resnet18((size, size, 3), 10, width=2)
    assert model.get_layer("stage4_block2_relu2").output.shape == (None, side, side, 16)


def test_every_block_starts_as_the_relu_of_its_shortcut_exactly():
    model, x = small(), images(2, 32, 32, 3)
    names = adds_of(model)
    blocks = values_at(model, names, x)
    outputs = values_at(model, [name.replace("add", "relu2") for name in names], x)
    assert len(blocks) == 8
    for (shortcut, branch), output in zip(blocks.values(), outputs.values(), strict=True):
        assert not np.any(branch)
        np.testing.assert_array_equal(output, np.maximum(shortcut, 0))
        assert np.any(output)


def test_all_logits_start_at_exactly_zero():
    assert not np.asarray(small()(images(4, 32, 32, 3))).any()


# He's normal distribution by fan-out; narrower by 8^(-1/2), for 8 branches of 2 layers, in the
# first convolution of each branch.
def test_kernels_start_at_the_papers_scales():
    for layer in resnet18((32, 32, 3), 10, seed=0).layers:
        if not hasattr(layer, "kernel"):
            continue
        kernel = np.asarray(layer.kernel)
        if layer.name.endswith("conv2") or layer.name == "logits":
            expected = 0
        else:
            he = (2 / kernel[..., 0, :].size) ** 0.5
            expected = he * 8**-0.5 if layer.name.endswith("conv1") else he
        assert kernel.std() == pytest.approx(expected, rel=0.06), layer.name


def test_only_the_classifier_has_a_gradient_at_the_start():
    norms = gradient_norms(small(), images(4, 32, 32, 3))
    assert {path for path, norm in norms.items() if norm} == {"logits/kernel", "logits/bias"}
    assert all(0.01 < norms[path] < 10 for path in ("logits/kernel", "logits/bias"))


def test_gradients_reach_the_stem_through_the_shortcuts_once_the_classifier_has_moved():
    model = small()
    head = model.get_layer("logits")
    head.kernel.assign(keras.initializers.HeNormal(seed=0)(head.kernel.shape))
    norms = gradient_norms(model, images(4, 32, 32, 3))
    for path, norm in norms.items():
        if path.endswith(("conv2/kernel", "shortcut/kernel", "stem/kernel")):
            assert 1e-3 < norm < 100, path
        elif path.endswith(("conv1/kernel", "scale/scale")):  # behind a convolution of zeros
            assert norm == 0, path


def test_activations_neither_vanish_nor_explode_at_initialisation():
    model = resnet18((64, 64, 3), 10, seed=0)
    ends = [name.replace("add", "relu2") for name in adds_of(model)]
    squares = {
        name: np.mean(np.sum(np.square(values), axis=-1))
        for name, values in values_at(model, ["stem_relu", *ends], images(2, 64, 64, 3)).items()
    }
    # Of a pixel's squared norm; by fan-out, He's distribution keeps it but for the strides.
    for name in ends:
        assert 0.3 < squares[name] / squares["stem_relu"] < 10, name
