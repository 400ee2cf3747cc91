"""The values that the paper searches."""

import numpy as np
import pytest

from keras_fisher import tuning


def test_alphas_are_ten_on_a_logarithmic_scale_around_a_hundredth():
    found = tuning.alphas()
    assert len(found) == 10
    assert (found[0], found[-1]) == (0.001, 0.1)
    np.testing.assert_allclose(np.diff(np.log10(found)), 2 / 9, atol=2e-3)


def test_those_of_tiny_imagenet_and_of_the_mixup_section():
    assert tuning.alphas(num=5) == (0.001, 0.00316, 0.01, 0.0316, 0.1)
    assert tuning.alphas(100.0, num=5) == (10.0, 31.6, 100.0, 316.0, 1000.0)


def test_learning_rates_are_five_from_a_hundredth_to_one():
    assert tuning.learning_rates() == (0.01, 0.0316, 0.1, 0.316, 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tuning.alphas(0.0), "`value` must be positive"),
        (lambda: tuning.alphas(num=1), "`num` must be an integer >= 2"),
        (lambda: tuning.learning_rates(0.1, 0.1), "`high` must be above `low`"),
    ],
)
def test_impossible_grids_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
