import numpy as np
import pytest

from keras_fisher.zoo import vgg11
from tests.zoo.networks import images, values_at


def test_eleven_layers_have_weights():
    assert sum(bool(layer.weights) for layer in vgg11(width=4).layers) == 11


# Five poolings, each rounding up: 32 -> 1, 8 -> 1, 40 -> 20 -> 10 -> 5 -> 3 -> 2.
@pytest.mark.parametrize(("size", "side"), [(8, 1), (32, 1), (40, 2)])
def test_poolings_halve_the_resolution_rounding_up(size, side):
    model = vgg11((size, size, 3), width=4)
    assert model.get_layer("flatten").output.shape == (None, side * side * 8 * 4)


def test_activations_neither_vanish_nor_explode_at_initialisation():
    model = vgg11(seed=0)
    weighted = [layer.name for layer in model.layers if layer.weights]
    for name, activations in values_at(model, weighted, images(8, 32, 32, 3)).items():
        assert 0.3 < np.sqrt(np.mean(np.square(activations))) < 4, name
