"""ResNet-18 for ImageNet, without normalisation."""

from functools import partial

import keras
from keras import layers

from keras_fisher.utils.arguments import check_integer
from keras_fisher.zoo._arguments import check_network
from keras_fisher.zoo._layers import conv
from keras_fisher.zoo._seeds import layer_seeds
from keras_fisher.zoo.fixup import FixupBias, FixupScale, fixup_normal

_STAGES, _BLOCKS = 4, 2  # stages, and blocks per stage


def resnet18(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    width: int = 64,
    seed: int | None = None,
) -> keras.Model:
    """Builds ResNet-18 with Fixup, without normalisation.

    A 7x7 convolution with stride 2 and 3x3 max pooling with stride 2; four stages of two
    post-activation blocks of two 3x3 convolutions, with 64, 128, 256 and 512 filters, each stage
    but the first halving the resolution; global average pooling, and the logits. A shortcut is the
    identity, except where the shape changes: there it is a 1x1 convolution.

    Learned scalars replace the biases of convolutions. Each branch has biases before and after its
    first convolution, before its second one and at its end, where it also has a multiplier. The
    stem is followed, and the dense layer preceded, by one bias. The second convolution of each
    branch and the dense layer start at zero, so that every block starts as the ReLU of its
    shortcut, and all logits start at 0. The first convolutions start from `zoo.fixup.fixup_normal`,
    and the stem and the shortcuts from He's normal distribution.

    The resolution is halved five times, rounding up, so images may have any size. Images of up to
    32x32 pixels reach the last stage as a single pixel.

    References: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    Zhang, Dauphin & Ma, "Fixup Initialization: Residual Learning Without Normalization", ICLR 2019.

    Examples:
            >>> from keras_fisher import zoo
            >>> model = zoo.resnet18((64, 64, 3), num_classes=10, width=8, seed=0)
            >>> model.output_shape
            (None, 10)

    Args:
        input_shape: Height, width and channels of one image.
        num_classes: The number of logits.
        width: The number of filters in the first stage; each further stage has twice as many.
        seed: The seed of the initial weights.

    Returns:
        A functional model from images to logits of shape `(batch, num_classes)`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
    """
    input_shape, num_classes = check_network(input_shape, num_classes)
    width = check_integer("width", width, low=1)
    seeds = layer_seeds(seed)
    inputs = keras.Input(input_shape)
    stem = fixup_normal(1, seed=next(seeds))
    x = conv(inputs, width, 7, 2, use_bias=False, kernel_initializer=stem, name="stem")
    x = layers.ReLU(name="stem_relu")(FixupBias(name="stem_bias")(x))
    # After a ReLU, zero padding does not change the maximum.
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    for stage in range(1, _STAGES + 1):
        for block in range(1, _BLOCKS + 1):
            x = _block(
                x,
                filters=2 ** (stage - 1) * width,
                strides=2 if stage > 1 and block == 1 else 1,
                kernel=fixup_normal(_STAGES * _BLOCKS, seed=next(seeds)),
                shortcut_kernel=fixup_normal(1, seed=next(seeds)),
                name=f"stage{stage}_block{block}",
            )
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = FixupBias(name="head_bias")(x)
    outputs = layers.Dense(num_classes, kernel_initializer="zeros", name="logits")(x)
    return keras.Model(inputs, outputs, name="resnet18")


def _block(
    x: keras.KerasTensor,
    *,
    filters: int,
    strides: int,
    kernel: keras.initializers.Initializer,
    shortcut_kernel: keras.initializers.Initializer,
    name: str,
) -> keras.KerasTensor:
    plain = partial(conv, filters=filters, use_bias=False)
    biased = FixupBias(name=f"{name}_bias1a")(x)
    branch = plain(biased, strides=strides, kernel_initializer=kernel, name=f"{name}_conv1")
    branch = FixupBias(name=f"{name}_bias1b")(branch)
    branch = layers.ReLU(name=f"{name}_relu1")(branch)
    branch = FixupBias(name=f"{name}_bias2a")(branch)
    branch = plain(branch, kernel_initializer="zeros", name=f"{name}_conv2")
    branch = FixupScale(name=f"{name}_scale")(branch)
    branch = FixupBias(name=f"{name}_bias2b")(branch)
    shortcut = x
    if strides > 1:
        shortcut = plain(
            biased,
            size=1,
            strides=strides,
            kernel_initializer=shortcut_kernel,
            name=f"{name}_shortcut",
        )
    x = layers.Add(name=f"{name}_add")([shortcut, branch])
    return layers.ReLU(name=f"{name}_relu2")(x)
