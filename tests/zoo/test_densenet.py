import keras
import numpy as np
import pytest

from keras_fisher.zoo import densenet
from tests.zoo.networks import images, values_at


def test_a_layer_reads_the_outputs_of_all_before_it_in_its_block():
    model = densenet((8, 8, 3), depth=13, growth=4, seed=0)
    names = ["stem", *(f"block1_layer{layer}_conv" for layer in (1, 2))]
    outputs = [model.get_layer(name).output for name in names]
    *earlier, read = keras.Model(
        model.input, [*outputs, model.get_layer("block1_layer3_norm").input]
    )(images(2, 8, 8, 3))
    np.testing.assert_array_equal(read, np.concatenate(earlier, axis=-1))


# Two transitions, each of which halves the side, rounding down; 16 + 3 * 2 * 4 = 40 channels.
@pytest.mark.parametrize(("size", "side"), [(4, 1), (9, 2), (32, 8)])
def test_transitions_halve_the_resolution(size, side):
    model = densenet((size, size, 3), depth=10, growth=4)
    assert model.get_layer("head_relu").output.shape == (None, side, side, 40)


def test_kernels_start_at_the_scale_of_he():
    for layer in densenet(depth=40, growth=12, seed=0).layers:
        if hasattr(layer, "kernel"):
            kernel = np.asarray(layer.kernel)
            fan_in = kernel[..., 0].size
            assert kernel.std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.15), layer.name


def test_activations_neither_vanish_nor_explode_at_initialisation():
    model = densenet(depth=40, growth=12, seed=0)
    convs = [layer.name for layer in model.layers if layer.name.endswith("conv")]
    # In inference mode, where normalisation starts as the identity and helps none of this.
    for name, values in values_at(model, convs, images(4, 32, 32, 3)).items():
        assert 0.3 < np.sqrt(np.mean(np.square(values))) < 3, name
