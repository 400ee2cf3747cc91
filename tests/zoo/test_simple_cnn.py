import numpy as np
import pytest

from keras_fisher.zoo import simple_cnn


# Sides 32, 30, 15, 13, 6 and 10, 8, 4, 2, 1.
@pytest.mark.parametrize(("size", "side"), [(10, 1), (32, 6)])
def test_unpadded_convolutions_and_poolings_leave_this_resolution(size, side):
    model = simple_cnn((size, size, 3), width=4)
    assert model.get_layer("flatten").output.shape == (None, side * side * 8)


def test_kernels_start_at_the_scale_of_glorot():
    for layer in simple_cnn(seed=0).layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            positions = kernel[..., 0, 0].size
            fans = positions * kernel.shape[-2] + positions * kernel.shape[-1]
            assert kernel.std() == pytest.approx((2 / fans) ** 0.5, rel=0.1), layer.name
            assert abs(kernel).max() <= (6 / fans) ** 0.5 * (1 + 1e-6), layer.name
            assert not np.any(bias)
