"""Pieces that several networks are made of."""

from typing import Any

from keras import layers


def conv(
    x: Any,
    filters: int,
    size: int = 3,
    strides: int = 1,
    *,
    name: str,
    layer: type[layers.Layer] = layers.Conv2D,
    **options: Any,
) -> Any:
    """Adds a padded convolution whose windows are centred on every `strides`-th pixel.

    Where Keras pads an even number of pixels for strides of 2, all zeros go to the far side: the
    windows of a residual branch would lie one pixel off the pixels that its shortcut takes.
    """
    padding = "same"
    if strides > 1 and size > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    return layer(filters, size, strides, padding=padding, name=name, **options)(x)


def batch_norm(x: Any, *, name: str) -> Any:
    """Adds batch normalisation with the constants of the residual networks' authors."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)
