"""SimpleCNN: four convolutions and two dense layers."""

import keras
from keras import layers

from keras_fisher.utils.arguments import check_integer
from keras_fisher.zoo._arguments import check_network
from keras_fisher.zoo._seeds import layer_seeds

_SMALLEST_INPUT = 10


def simple_cnn(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    width: int = 32,
    seed: int | None = None,
) -> keras.Model:
    """Builds the CIFAR-10 network of the Keras examples, without dropout, with 128 hidden units.

    Two stages of two 3x3 convolutions, the first padded and the second not, each stage followed by
    2x2 max pooling; then a dense layer of 128 units, and the logits. Kernels start from Glorot's
    uniform distribution (Glorot & Bengio, 2010), as in the example.

    References: the example `cifar10_cnn` of the Keras repository (Chollet et al., 2015). Glorot &
    Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural Networks", AISTATS
    2010.

    Examples:
            >>> from keras_fisher import zoo
            >>> model = zoo.simple_cnn(num_classes=10, seed=0)
            >>> model.count_params()
            361898

    Args:
        input_shape: Height, width and channels of one image; at least 10 by 10 pixels.
        num_classes: The number of logits.
        width: The number of filters in the first stage; the second stage has twice as many.
        seed: The seed of the initial weights.

    Returns:
        A functional model from images to logits of shape `(batch, num_classes)`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `input_shape` is too small for the unpadded convolutions, or another argument
            is out of range.
    """
    input_shape, num_classes = check_network(input_shape, num_classes, smallest=_SMALLEST_INPUT)
    width = check_integer("width", width, low=1)
    kernels = map(keras.initializers.GlorotUniform, layer_seeds(seed))

    def conv(filters: int, padding: str, name: str) -> layers.Layer:
        return layers.Conv2D(
            filters,
            3,
            padding=padding,
            activation="relu",
            kernel_initializer=next(kernels),
            name=name,
        )

    inputs = keras.Input(input_shape)
    x = inputs
    for stage, filters in enumerate((width, 2 * width), start=1):
        x = conv(filters, "same", f"stage{stage}_conv1")(x)
        x = conv(filters, "valid", f"stage{stage}_conv2")(x)
        x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(128, activation="relu", kernel_initializer=next(kernels), name="hidden")(x)
    outputs = layers.Dense(num_classes, kernel_initializer=next(kernels), name="logits")(x)
    return keras.Model(inputs, outputs, name="simple_cnn")
