"""Plain residual networks for small images."""

from collections.abc import Iterator
from typing import Any

import keras
from keras import layers, ops

from keras_fisher.backend.types import Tensor
from keras_fisher.utils.arguments import check_integer
from keras_fisher.zoo import _layers
from keras_fisher.zoo._arguments import check_depth, check_network
from keras_fisher.zoo._seeds import layer_seeds
from keras_fisher.zoo.weight_norm import WeightNormConv2D, WeightNormDense, norm_preserving_gain


def resnet(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    depth: int = 26,
    width: int = 16,
    batch_norm: bool = True,
    seed: int | None = None,
) -> keras.Model:
    """Builds the residual network of He et al. for CIFAR, with batch or weight normalisation.

    A 3x3 convolution to `width` channels; three stages of `(depth - 2) / 6` post-activation blocks
    of two 3x3 convolutions, with `width`, `2 * width` and `4 * width` filters, the second and third
    stages halving the resolution; global average pooling, and the logits.

    A shortcut is the identity. Where the shape changes, it takes every other pixel and fills the
    missing channels with zeros. This is option A of He et al., which they use for CIFAR. It gives
    the usual depths and numbers of parameters of these networks.

    Each convolution is followed by batch normalisation, and kernels start from He's normal
    distribution. With `batch_norm=False`, the convolutions and the dense layer are
    weight-normalised and have biases. They start as Arpit et al. prescribe, from orthogonal
    directions with the gains of `zoo.weight_norm.norm_preserving_gain`; biases start at zero. An
    option A shortcut preserves the norm of each pixel that it takes, as the 1x1 convolutions of
    Arpit et al. do at initialisation.

    References: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
    He et al., "Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet
    Classification", ICCV 2015.
    Salimans & Kingma, "Weight Normalization: A Simple Reparameterization to Accelerate Training of
    Deep Neural Networks", NeurIPS 2016. Arpit, Campos & Bengio, "How to Initialize your Network?
    Robust Initialization for WeightNorm & ResNets", NeurIPS 2019.

    Examples:
            >>> from keras_fisher import zoo
            >>> model = zoo.resnet(num_classes=100, depth=8, batch_norm=False, seed=0)
            >>> model.output_shape
            (None, 100)

    Args:
        input_shape: Height, width and channels of one image.
        num_classes: The number of logits.
        depth: The number of layers with weights: 6n + 2 for n blocks in a stage.
        width: The number of filters in the first stage; 16 in He et al.
        batch_norm: Whether to use batch normalisation; otherwise uses weight normalisation.
        seed: The seed of the initial weights.

    Returns:
        A functional model from images to logits of shape `(batch, num_classes)`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `depth` is not 6n + 2 for a whole number n of at least 1, or another argument
            is out of range.
    """
    input_shape, num_classes = check_network(input_shape, num_classes)
    blocks = check_depth(depth, 6, 2)
    width = check_integer("width", width, low=1)
    normed = (_BatchNormed if batch_norm else _WeightNormed)(layer_seeds(seed))
    inputs = keras.Input(input_shape)
    x = normed.conv(inputs, width, factor=2, name="stem")
    x = layers.ReLU(name="stem_relu")(x)
    for stage in (1, 2, 3):
        for block in range(1, blocks + 1):
            x = _block(
                x,
                normed,
                filters=2 ** (stage - 1) * width,
                strides=2 if stage > 1 and block == 1 else 1,
                factor=1 / blocks,
                name=f"stage{stage}_block{block}",
            )
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, normed.logits(x, num_classes), name="resnet")


class _BatchNormed:
    """Creates layers with batch normalisation, which would cancel `factor`: it is ignored."""

    def __init__(self, seeds: Iterator[int]) -> None:
        self.seeds = seeds

    def conv(
        self, x: keras.KerasTensor, filters: int, strides: int = 1, *, factor: float, name: str
    ) -> keras.KerasTensor:
        kernel = keras.initializers.HeNormal(next(self.seeds))
        options = {"use_bias": False, "kernel_initializer": kernel}
        x = _layers.conv(x, filters, 3, strides, name=name, **options)
        return _layers.batch_norm(x, name=f"{name}_norm")

    def logits(self, x: keras.KerasTensor, num_classes: int) -> keras.KerasTensor:
        kernel = keras.initializers.HeNormal(next(self.seeds))
        return layers.Dense(num_classes, kernel_initializer=kernel, name="logits")(x)


class _WeightNormed:
    """Creates weight-normalised layers, which scale the squared norm by `factor`."""

    def __init__(self, seeds: Iterator[int]) -> None:
        self.seeds = seeds

    def conv(
        self, x: keras.KerasTensor, filters: int, strides: int = 1, *, factor: float, name: str
    ) -> keras.KerasTensor:
        initializers = self._initializers(x.shape[-1], filters, factor)
        return _layers.conv(
            x, filters, 3, strides, name=name, layer=WeightNormConv2D, **initializers
        )

    def logits(self, x: keras.KerasTensor, num_classes: int) -> keras.KerasTensor:
        initializers = self._initializers(x.shape[-1], num_classes, factor=1)
        return WeightNormDense(num_classes, **initializers, name="logits")(x)

    def _initializers(
        self, fan_in: int, fan_out: int, factor: float
    ) -> dict[str, keras.initializers.Initializer]:
        return {
            "kernel_initializer": keras.initializers.Orthogonal(seed=next(self.seeds)),
            "gain_initializer": norm_preserving_gain(fan_in, fan_out, factor),
        }


def _block(
    x: keras.KerasTensor,
    normed: _BatchNormed | _WeightNormed,
    *,
    filters: int,
    strides: int,
    factor: float,
    name: str,
) -> keras.KerasTensor:
    branch = normed.conv(x, filters, strides, factor=2, name=f"{name}_conv1")
    branch = layers.ReLU(name=f"{name}_relu1")(branch)
    branch = normed.conv(branch, filters, factor=factor, name=f"{name}_conv2")
    shortcut = x
    if strides > 1:
        shortcut = PaddedShortcut(filters, strides, name=f"{name}_shortcut")(x)
    x = layers.Add(name=f"{name}_add")([shortcut, branch])
    return layers.ReLU(name=f"{name}_relu2")(x)


@keras.saving.register_keras_serializable(package="keras_fisher")
class PaddedShortcut(layers.Layer):
    """The shortcut of He et al. without weights: every `strides`-th pixel, and zero channels.

    Reference: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, option A.

    Examples:
            >>> import numpy as np
            >>> from keras_fisher.zoo.resnet import PaddedShortcut
            >>> x = np.array([[[[1.0], [2.0]], [[3.0], [4.0]]]])
            >>> np.asarray(PaddedShortcut(filters=3)(x)).tolist()
            [[[[1.0, 0.0, 0.0]]]]

    Args:
        filters: The number of output channels, at least that of the input.
        strides: The step between two selected pixels.
    """

    def __init__(self, filters: int, strides: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters, self.strides = filters, strides

    def call(self, inputs: Tensor) -> Tensor:
        taken = inputs[:, :: self.strides, :: self.strides]
        return ops.pad(taken, [(0, 0), (0, 0), (0, 0), (0, self.filters - inputs.shape[-1])])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "strides": self.strides}
