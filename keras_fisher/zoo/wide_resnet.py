"""Wide residual networks for small images."""

from collections.abc import Iterator

import keras
from keras import layers

from keras_fisher.utils.arguments import check_integer
from keras_fisher.zoo import _layers
from keras_fisher.zoo._arguments import check_depth, check_network
from keras_fisher.zoo._seeds import layer_seeds
from keras_fisher.zoo.skip_init import SkipInitScale


def wide_resnet(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    depth: int = 44,
    width: int = 3,
    batch_norm: bool = True,
    seed: int | None = None,
) -> keras.Model:
    """Builds a wide residual network, with batch normalisation or with SkipInit.

    A 3x3 convolution to 16 channels; three stages of `(depth - 2) / 6` pre-activation blocks of two
    3x3 convolutions, with `16 * width`, `32 * width` and `64 * width` filters, the second and third
    stages halving the resolution; global average pooling, and the logits. As in He et al., the
    depth counts the first convolution, the convolutions of the blocks and the dense layer;
    Zagoruyko & Komodakis count 6n + 4 for the same n.

    A shortcut is the identity, except where the shape changes: there it is a 1x1 convolution of the
    pre-activated input. Kernels start from He's normal distribution (He et al., 2015).

    With `batch_norm=False`, convolutions have biases, and each residual branch ends in a scalar
    (SkipInit). Both start at zero, so that every block starts as its shortcut.

    References: He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016. Zagoruyko &
    Komodakis, "Wide Residual Networks", BMVC 2016. De & Smith, "Batch Normalization Biases Residual
    Blocks Towards the Identity Function in Deep Networks", NeurIPS 2020. He et al., "Delving Deep
    into Rectifiers: Surpassing Human-Level Performance on ImageNet Classification", ICCV 2015.

    Examples:
            >>> from keras_fisher import zoo
            >>> model = zoo.wide_resnet(num_classes=100, depth=8, width=1, batch_norm=False, seed=0)
            >>> model.output_shape
            (None, 100)

    Args:
        input_shape: Height, width and channels of one image.
        num_classes: The number of logits.
        depth: The number of layers with weights, without shortcuts: 6n + 2 for n blocks in a stage.
        width: The factor by which the stages are wider than in the plain residual network.
        batch_norm: Whether to use batch normalisation; otherwise uses SkipInit.
        seed: The seed of the initial weights.

    Returns:
        A functional model from images to logits of shape `(batch, num_classes)`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `depth` is not 6n + 2 for a whole number n of at least 1, or another argument
            is out of range.
    """
    input_shape, num_classes = check_network(input_shape, num_classes)
    width = check_integer("width", width, low=1)
    blocks = check_depth(depth, 6, 2)
    build = _Builder(layer_seeds(seed), batch_norm)
    inputs = keras.Input(input_shape)
    x = build.conv(inputs, 16, name="stem")
    for stage in (1, 2, 3):
        for block in range(1, blocks + 1):
            x = build.block(
                x,
                filters=2 ** (stage - 1) * 16 * width,
                strides=2 if stage > 1 and block == 1 else 1,
                name=f"stage{stage}_block{block}",
            )
    x = build.activation(x, name="head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(num_classes, kernel_initializer=build.kernel(), name="logits")(x)
    return keras.Model(inputs, outputs, name="wide_resnet")


class _Builder:
    """Adds layers to a network, all with the same options."""

    def __init__(self, seeds: Iterator[int], batch_norm: bool) -> None:
        self.seeds = seeds
        self.batch_norm = batch_norm

    def kernel(self) -> keras.initializers.Initializer:
        return keras.initializers.HeNormal(next(self.seeds))

    def conv(
        self, x: keras.KerasTensor, filters: int, size: int = 3, strides: int = 1, *, name: str
    ) -> keras.KerasTensor:
        options = {"use_bias": not self.batch_norm, "kernel_initializer": self.kernel()}
        return _layers.conv(x, filters, size, strides, name=name, **options)

    def activation(self, x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
        if self.batch_norm:
            x = _layers.batch_norm(x, name=f"{name}_norm")
        return layers.ReLU(name=f"{name}_relu")(x)

    def block(
        self, x: keras.KerasTensor, *, filters: int, strides: int, name: str
    ) -> keras.KerasTensor:
        activated = self.activation(x, name=f"{name}_1")
        shortcut = x
        if x.shape[-1] != filters or strides > 1:
            shortcut = self.conv(activated, filters, 1, strides, name=f"{name}_shortcut")
        branch = self.conv(activated, filters, strides=strides, name=f"{name}_conv1")
        branch = self.activation(branch, name=f"{name}_2")
        branch = self.conv(branch, filters, name=f"{name}_conv2")
        if not self.batch_norm:
            branch = SkipInitScale(name=f"{name}_scale")(branch)
        return layers.Add(name=f"{name}_add")([shortcut, branch])
