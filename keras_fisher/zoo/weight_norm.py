"""Weight normalisation, and an initialisation that preserves the scale of activations."""

import math
from typing import Any

import keras
from keras import layers, ops

from keras_fisher import rules
from keras_fisher.backend.types import Tensor
from keras_fisher.rules.gradients import ExampleGradients, WeightGradients
from keras_fisher.utils.arguments import check_integer, check_positive


def norm_preserving_gain(
    fan_in: int, fan_out: int, factor: float = 1.0
) -> keras.initializers.Initializer:
    """Returns the initialiser of weight-normalised gains: sqrt(factor * fan_in / fan_out).

    With orthogonal kernels, the layer then multiplies the expected squared norm of its input by
    `factor`. A ReLU halves it, so Arpit et al. choose

    - 2 for a layer followed by a ReLU;
    - 1 for a layer not followed by a ReLU;
    - 1 / B for the last layer of a residual branch, in a stage of B blocks. A block increases the
      squared norm by 1 / B of it, so a stage multiplies it by at most (1 + 1 / B)^B < e, for any
      number of blocks.

    Reference: Arpit, Campos & Bengio, "How to Initialize your Network? Robust Initialization for
    WeightNorm & ResNets", NeurIPS 2019, and its authors' code,
    github.com/victorcampos7/weightnorm-init.

    Examples:
            >>> from keras_fisher.zoo.weight_norm import WeightNormDense, norm_preserving_gain
            >>> gain = norm_preserving_gain(fan_in=8, fan_out=4, factor=2)
            >>> layer = WeightNormDense(4, gain_initializer=gain)
            >>> layer.build((None, 8))
            >>> layer.gain.numpy().tolist()
            [2.0, 2.0, 2.0, 2.0]

    Args:
        fan_in: The number of input channels of the layer.
        fan_out: The number of its output channels. For a convolution, the area of the kernel
            belongs to both and cancels.
        factor: The factor by which the layer multiplies the squared norm.

    Returns:
        A `keras.initializers.Constant`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is not positive.
    """
    check_integer("fan_in", fan_in, low=1)
    check_integer("fan_out", fan_out, low=1)
    check_positive("factor", factor)
    return keras.initializers.Constant(math.sqrt(factor * fan_in / fan_out))


class _WeightNorm(layers.Layer):
    """Parametrises the kernel of a layer by directions and lengths."""

    def __init__(
        self,
        *args: Any,
        kernel_initializer: Any = "orthogonal",
        gain_initializer: Any = "ones",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, kernel_initializer=kernel_initializer, **kwargs)
        self.gain_initializer = keras.initializers.get(gain_initializer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self.gain = self.add_weight(
            shape=self._kernel.shape[-1:], initializer=self.gain_initializer, name="gain"
        )

    @property
    def direction(self) -> keras.Variable:
        """The weights v, of the shape of the kernel."""
        return self._kernel

    @property
    def kernel(self) -> Tensor:
        """The kernel g v / ||v||, with one norm for each output channel."""
        # In mixed precision, the norm is computed in the precision of the weights.
        direction, gain = (ops.cast(w, self.variable_dtype) for w in (self.direction, self.gain))
        return ops.cast(gain / _norms(direction) * direction, self.compute_dtype)

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("A weight-normalised layer has no low-rank adaptation.")

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("A weight-normalised layer cannot be quantised.")

    # The parent classes would save the kernel instead of its weights.
    def save_own_variables(self, store: Any) -> None:
        layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        layers.Layer.load_own_variables(self, store)

    def get_config(self) -> dict[str, Any]:
        gain = keras.initializers.serialize(self.gain_initializer)
        return {**super().get_config(), "gain_initializer": gain}


@keras.saving.register_keras_serializable(package="keras_fisher")
class WeightNormConv2D(_WeightNorm, layers.Conv2D):
    """A convolution whose kernel is g v / ||v||: a length and a direction for each filter.

    Takes the arguments of `keras.layers.Conv2D`. `kernel_initializer` initialises the directions v,
    whose lengths do not matter; it is orthogonal by default.

    Reference: Salimans & Kingma, "Weight Normalization: A Simple Reparameterization to Accelerate
    Training of Deep Neural Networks", NeurIPS 2016.

    Examples:
            >>> import keras
            >>> from keras_fisher.zoo.weight_norm import WeightNormConv2D
            >>> layer = WeightNormConv2D(4, 3, gain_initializer=keras.initializers.Constant(2.0))
            >>> layer.build((None, 8, 8, 3))
            >>> round(float(keras.ops.sum(layer.kernel[..., 0] ** 2)), 4)  # of one filter
            4.0

    Args:
        gain_initializer: The initialiser of the lengths g, such as `norm_preserving_gain`.
    """


@keras.saving.register_keras_serializable(package="keras_fisher")
class WeightNormDense(_WeightNorm, layers.Dense):
    """A dense layer whose kernel is g v / ||v||: a length and a direction for each unit.

    Takes the arguments of `keras.layers.Dense`. `kernel_initializer` initialises the directions v,
    whose lengths do not matter; it is orthogonal by default.

    Reference: Salimans & Kingma, "Weight Normalization: A Simple Reparameterization to Accelerate
    Training of Deep Neural Networks", NeurIPS 2016.

    Examples:
            >>> import keras
            >>> from keras_fisher.zoo.weight_norm import WeightNormDense
            >>> layer = WeightNormDense(4, gain_initializer=keras.initializers.Constant(2.0))
            >>> layer.build((None, 8))
            >>> round(float(keras.ops.sum(layer.kernel[:, 0] ** 2)), 4)  # of one unit
            4.0

    Args:
        gain_initializer: The initialiser of the lengths g, such as `norm_preserving_gain`.
    """


@rules.register(WeightNormConv2D)
def _convolution(layer: WeightNormConv2D, inputs: Tensor, gradient: Tensor) -> WeightGradients:
    return _split(layer, *rules.convolution.convolution(layer, inputs, gradient))


@rules.register(WeightNormDense)
def _dense(layer: WeightNormDense, inputs: Tensor, gradient: Tensor) -> WeightGradients:
    return _split(layer, *rules.dense.dense(layer, inputs, gradient))


def _split(
    layer: WeightNormConv2D | WeightNormDense,
    kernel: tuple[keras.Variable, ExampleGradients],
    *bias: tuple[keras.Variable, Tensor],
) -> WeightGradients:
    """For a filter's gradient G: dg = <G, v / ||v||> and dv = g / ||v|| (G - dg v / ||v||)."""
    by_kernel = kernel[1].gradient()
    direction, gain = (ops.cast(w, by_kernel.dtype) for w in (layer.direction, layer.gain))
    norms = _norms(direction)
    unit = direction / norms
    by_gain = ops.sum(by_kernel * unit, axis=tuple(range(1, len(unit.shape))), keepdims=True)
    by_direction = gain / norms * (by_kernel - by_gain * unit)
    by_gain = ops.reshape(by_gain, (-1, *gain.shape))
    return [(layer.direction, by_direction), (layer.gain, by_gain), *bias]


def _norms(direction: Tensor) -> Tensor:
    """Returns the norm of each output channel (the last axis)."""
    others = tuple(range(len(direction.shape) - 1))
    return ops.sqrt(ops.sum(ops.square(direction), axis=others, keepdims=True))
