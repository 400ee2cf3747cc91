"""VGG-11 for small images."""

import keras
from keras import layers

from keras_fisher.utils.arguments import check_integer
from keras_fisher.zoo._arguments import check_network
from keras_fisher.zoo._seeds import layer_seeds

# The filters of each convolution by stage, in multiples of `width` (configuration A).
_STAGES = ((1,), (2,), (4, 4), (8, 8), (8, 8))


def vgg11(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    width: int = 64,
    seed: int | None = None,
) -> keras.Model:
    """Builds VGG-11 (Simonyan & Zisserman, 2015) for small images, without dropout.

    Configuration A: eight padded 3x3 convolutions in five stages, each stage followed by 2x2 max
    pooling, without normalisation. The two hidden dense layers remain, so that eleven layers have
    weights, but with 512 units (`8 * width`) instead of 4096. A 32x32 image reaches them as 512
    numbers. Pooling rounds odd sizes up, so images smaller than 32x32 are accepted too.

    Kernels start from He's normal distribution (He et al., 2015), which keeps the scale of the
    activations from layer to layer. Biases start at zero.

    References: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", ICLR 2015. He et al., "Delving Deep into Rectifiers: Surpassing Human-Level
    Performance on ImageNet Classification", ICCV 2015.

    Examples:
            >>> from keras_fisher import zoo
            >>> model = zoo.vgg11(num_classes=100, width=16, seed=0)
            >>> model.output_shape
            (None, 100)

    Args:
        input_shape: Height, width and channels of one image.
        num_classes: The number of logits.
        width: The number of filters of the first convolution; other widths are multiples of it.
        seed: The seed of the initial weights.

    Returns:
        A functional model from images to logits of shape `(batch, num_classes)`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
    """
    input_shape, num_classes = check_network(input_shape, num_classes)
    width = check_integer("width", width, low=1)
    kernels = map(keras.initializers.HeNormal, layer_seeds(seed))
    inputs = keras.Input(input_shape)
    x = inputs
    for stage, multiples in enumerate(_STAGES, start=1):
        for conv, multiple in enumerate(multiples, start=1):
            x = layers.Conv2D(
                multiple * width,
                3,
                padding="same",
                activation="relu",
                kernel_initializer=next(kernels),
                name=f"stage{stage}_conv{conv}",
            )(x)
        x = layers.MaxPooling2D(2, padding="same", name=f"stage{stage}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    for name in ("hidden1", "hidden2"):
        x = layers.Dense(8 * width, activation="relu", kernel_initializer=next(kernels), name=name)(
            x
        )
    outputs = layers.Dense(num_classes, kernel_initializer=next(kernels), name="logits")(x)
    return keras.Model(inputs, outputs, name="vgg11")
