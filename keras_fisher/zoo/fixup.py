"""Fixup: an initialisation for residual networks without normalisation.

Reference: Zhang, Dauphin & Ma, "Fixup Initialization: Residual Learning Without Normalization",
ICLR 2019, and its authors' code, github.com/hongyi-zhang/Fixup.
"""

import keras

from keras_fisher import rules
from keras_fisher.backend.types import Tensor
from keras_fisher.rules.gradients import WeightGradients
from keras_fisher.utils.arguments import check_integer
from keras_fisher.zoo._scalar import ScalarScale


def fixup_normal(
    num_branches: int, layers_per_branch: int = 2, *, seed: int | None = None
) -> keras.initializers.Initializer:
    """Returns the initialiser of the layers in a residual branch, except the last (zeros).

    It is He's normal distribution, scaled by the factor `L^(-1 / (2m - 2))` for L branches of m
    layers: the variance is `2 / (fan_out L^(1 / (m - 1)))`. A step of gradient descent with
    learning rate eta then changes the network's outputs by about eta, for every depth. As in the
    authors' code, the variance preserves the scale of the gradients: it depends on `fan_out`, the
    area of the kernel times the number of filters.

    Reference: Zhang, Dauphin & Ma, "Fixup Initialization: Residual Learning Without Normalization",
    ICLR 2019.

    Examples:
            >>> from keras_fisher.zoo.fixup import fixup_normal
            >>> fixup_normal(num_branches=8).scale  # of the variance, times fan_out
            0.25

    Args:
        num_branches: The number L of residual branches in the whole network; 1 gives He's normal
            distribution itself, for the layers outside the branches.
        layers_per_branch: The number m of layers with weights in each branch; at least 2.
        seed: The seed of the initial weights.

    Returns:
        A `keras.initializers.VarianceScaling`.

    Raises:
        TypeError: If an argument is not an integer.
        ValueError: If an argument is too small.
    """
    check_integer("num_branches", num_branches, low=1)
    check_integer("layers_per_branch", layers_per_branch, low=2)
    return keras.initializers.VarianceScaling(
        2 * num_branches ** (-1 / (layers_per_branch - 1)),
        mode="fan_out",
        distribution="untruncated_normal",
        seed=seed,
    )


@keras.saving.register_keras_serializable(package="keras_fisher")
class FixupScale(ScalarScale):
    """Multiplies its input by one learned scalar, which starts at one.

    Each residual branch ends in one.

    Reference: Zhang, Dauphin & Ma, "Fixup Initialization: Residual Learning Without Normalization",
    ICLR 2019.

    Examples:
            >>> import keras, numpy as np
            >>> from keras_fisher.zoo.fixup import FixupScale
            >>> keras.ops.convert_to_numpy(FixupScale()(np.ones((1, 2), "float32"))).tolist()
            [[1.0, 1.0]]
    """

    initializer = "ones"


@keras.saving.register_keras_serializable(package="keras_fisher")
class FixupBias(keras.layers.Layer):
    """Adds one learned scalar, which starts at zero, to its input.

    It replaces the biases of convolutions, which have one number for each filter.

    Reference: Zhang, Dauphin & Ma, "Fixup Initialization: Residual Learning Without Normalization",
    ICLR 2019.

    Examples:
            >>> import keras, numpy as np
            >>> from keras_fisher.zoo.fixup import FixupBias
            >>> keras.ops.convert_to_numpy(FixupBias()(np.ones((1, 2), "float32"))).tolist()
            [[1.0, 1.0]]
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.bias = self.add_weight(shape=(), initializer="zeros", name="bias")

    def call(self, inputs: Tensor) -> Tensor:
        return inputs + self.bias


@rules.register(FixupBias)
def _fixup_bias(layer: FixupBias, inputs: Tensor, gradient: Tensor) -> WeightGradients:
    return [(layer.bias, rules.sum_to(gradient, ()))]
