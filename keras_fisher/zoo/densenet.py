"""DenseNet for small images."""

from collections.abc import Iterator

import keras
from keras import layers

from keras_fisher.utils.arguments import check_integer
from keras_fisher.zoo import _layers
from keras_fisher.zoo._arguments import check_depth, check_network
from keras_fisher.zoo._seeds import layer_seeds

_SMALLEST_INPUT = 4  # each of two transitions halves it


def densenet(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    depth: int = 40,
    growth: int = 12,
    seed: int | None = None,
) -> keras.Model:
    """Builds a DenseNet without bottlenecks, compression or dropout.

    A 3x3 convolution to 16 channels; three dense blocks of `(depth - 4) / 3` pre-activation 3x3
    convolutions with `growth` filters, each of which reads the outputs of all earlier ones in its
    block; between blocks, a transition of a pre-activation 1x1 convolution, which keeps the number
    of channels, and 2x2 average pooling; global average pooling, and the logits. Kernels start from
    He's normal distribution (He et al., 2015).

    References: Huang et al., "Densely Connected Convolutional Networks", CVPR 2017. He et al.,
    "Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet Classification",
    ICCV 2015.

    Examples:
            >>> from keras_fisher import zoo
            >>> model = zoo.densenet(num_classes=100, depth=10, growth=4, seed=0)
            >>> model.output_shape
            (None, 100)

    Args:
        input_shape: Height, width and channels of one image; at least 4 by 4 pixels.
        num_classes: The number of logits.
        depth: The number of layers with weights: 3n + 4 for n layers in a dense block.
        growth: The number of channels that each layer of a dense block adds.
        seed: The seed of the initial weights.

    Returns:
        A functional model from images to logits of shape `(batch, num_classes)`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `depth` is not 3n + 4 for a whole number n of at least 1, or another argument
            is out of range.
    """
    input_shape, num_classes = check_network(input_shape, num_classes, smallest=_SMALLEST_INPUT)
    growth = check_integer("growth", growth, low=1)
    layers_per_block = check_depth(depth, 3, 4)
    seeds = layer_seeds(seed)
    inputs = keras.Input(input_shape)
    x = _conv(inputs, 16, 3, seeds, name="stem")
    for block in (1, 2, 3):
        for layer in range(1, layers_per_block + 1):
            name = f"block{block}_layer{layer}"
            new = _conv(_activation(x, name=name), growth, 3, seeds, name=f"{name}_conv")
            x = layers.Concatenate(name=f"{name}_concat")([x, new])
        if block < 3:
            name = f"transition{block}"
            x = _conv(_activation(x, name=name), x.shape[-1], 1, seeds, name=f"{name}_conv")
            x = layers.AveragePooling2D(2, name=f"{name}_pool")(x)
    x = _activation(x, name="head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    kernel = keras.initializers.HeNormal(next(seeds))
    outputs = layers.Dense(num_classes, kernel_initializer=kernel, name="logits")(x)
    return keras.Model(inputs, outputs, name="densenet")


def _conv(
    x: keras.KerasTensor, filters: int, size: int, seeds: Iterator[int], *, name: str
) -> keras.KerasTensor:
    kernel = keras.initializers.HeNormal(next(seeds))
    return _layers.conv(x, filters, size, name=name, use_bias=False, kernel_initializer=kernel)


def _activation(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    return layers.ReLU(name=f"{name}_relu")(_layers.batch_norm(x, name=f"{name}_norm"))
