"""Standard augmentation of small images."""

from __future__ import annotations

from collections.abc import Callable

from keras import ops

from keras_fisher.backend import random
from keras_fisher.backend.types import Tensor
from keras_fisher.utils.arguments import check_channels_last

PADDING = 4


def flip(images: Tensor, seed: Tensor) -> Tensor:
    """Flips each image left to right with probability 1/2."""
    is_flipped = random.draw_flips(seed, ops.shape(images)[0])
    return ops.where(is_flipped[:, None, None, None], ops.flip(images, axis=2), images)


def flip_and_crop(images: Tensor, seed: Tensor) -> Tensor:
    """Flips each image at random and crops it at random after zero padding.

    It pads each image by 4 zero pixels on every side, cuts a window of the original size at a
    random position, and flips it left to right with probability 1/2. Apply it *after*
    normalisation, so that the border has the mean colour.

    Examples:
        >>> from keras_fisher.data import flip_and_crop
        >>> import numpy as np
        >>> images = np.ones((2, 8, 8, 1))
        >>> flip_and_crop(images, seed=[1, 2]).shape == (2, 8, 8, 1)
        True

    Args:
        images: Tensor of shape `(batch, height, width, channels)`.
        seed: Two integers, shape `(2,)`. The result depends only on `images`, `seed` and the
            backend.

    Returns:
        Tensor of the shape and dtype of `images`.

    Raises:
        ValueError: If `images` does not have four axes, or Keras's image data format is
            "channels_first".

    Reference:
        He et al., 2015, followed in appendix G.2 of Catastrophic Fisher Explosion
        (Jastrzebski et al., 2021).
    """
    check_channels_last()
    images = ops.convert_to_tensor(images)
    if len(images.shape) != 4:
        raise ValueError(
            "`images` must have shape (batch, height, width, channels). "
            f"Received: images of shape {tuple(images.shape)}"
        )
    count, (height, width, channels) = ops.shape(images)[0], images.shape[1:]
    corners, is_flipped = random.draw_windows(seed, count, 2 * PADDING + 1)
    across = ops.arange(width)
    rows = corners[:, :1] + ops.arange(height)
    columns = corners[:, 1:] + ops.where(is_flipped[:, None], ops.flip(across), across)
    border = (PADDING, PADDING)
    padded = ops.pad(images, ((0, 0), border, border, (0, 0)))
    # A single gather, with pixels numbered across the whole batch.
    tall, wide = height + 2 * PADDING, width + 2 * PADDING
    first = ops.arange(count) * (tall * wide)
    pixels = first[:, None, None] + rows[:, :, None] * wide + columns[:, None, :]
    return ops.take(ops.reshape(padded, (-1, channels)), pixels, axis=0)


AUGMENTATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "flip": flip,
    "flip_and_crop": flip_and_crop,
}
