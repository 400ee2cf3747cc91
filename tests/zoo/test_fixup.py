import keras
import numpy as np
import pytest
from keras import layers

from keras_fisher.zoo.fixup import FixupBias, FixupScale, fixup_normal
from tests.traces.per_example import loop


# L^(-1 / (2m - 2)) for L branches of m layers: m = 2 gives L^(-1/2), m = 3 gives L^(-1/4).
@pytest.mark.parametrize(
    ("num_branches", "layers_per_branch", "narrower"),
    [(1, 2, 1.0), (16, 2, 1 / 4), (16, 3, 1 / 2), (100, 2, 1 / 10)],
)
def test_the_initialiser_is_hes_times_the_paper_s_factor(num_branches, layers_per_branch, narrower):
    kernel = np.asarray(fixup_normal(num_branches, layers_per_branch, seed=0)((3, 3, 32, 64)))
    he = (2 / (3 * 3 * 64)) ** 0.5
    assert kernel.std() == pytest.approx(he * narrower, rel=0.02)
    assert abs(kernel).max() > 3 * kernel.std()  # not truncated


@pytest.mark.parametrize(
    ("arguments", "name"), [((0,), "num_branches"), ((4, 1), "layers_per_branch")]
)
def test_branches_that_cannot_be_are_refused(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}` must be .* Received: {name}="):
        fixup_normal(*arguments)


def scalars():
    start = keras.Input((5, 4))
    x = layers.Activation("tanh")(FixupBias()(start))
    return keras.Model(start, layers.Activation("tanh")(FixupBias()(FixupScale()(x))))


def test_scalars_start_as_the_identity_and_have_one_number_each():
    x = loop.normal(2, 5, 4)
    np.testing.assert_array_equal(FixupScale()(x), x)
    np.testing.assert_array_equal(FixupBias()(x), x)
    assert [w.shape for w in scalars().trainable_weights] == [(), (), ()]
