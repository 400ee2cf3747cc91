"""Building blocks shared by several networks."""

from typing import Any

import keras
from keras import layers


def conv(
    x: keras.KerasTensor,
    filters: int,
    size: int = 3,
    strides: int = 1,
    *,
    name: str,
    layer: type[layers.Layer] = layers.Conv2D,
    **options: Any,
) -> keras.KerasTensor:
    """Adds a padded convolution whose windows are centred on every `strides`-th pixel.

    With strides of 2 and an even number of pixels, Keras pads only the far side, so the windows of
    a residual branch would be one pixel off those of its shortcut.
    """
    padding = "same"
    if strides > 1 and size > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    return layer(filters, size, strides, padding=padding, name=name, **options)(x)


def batch_norm(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """Adds batch normalisation with the constants of the authors of residual networks."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)
