"""The standard augmentation of small images."""

from collections.abc import Callable

import tensorflow as tf

PADDING = 4


def flip_and_crop(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Flips each image at random and crops it at random after zero padding.

    Each image is padded by 4 zero pixels on every side, a window of its own size is cut at a
    random position, and the window is mirrored left to right with probability 1/2. Pad *after*
    normalisation, so that the border has the mean colour.

    Example:
    >>> from keras_fisher.data import flip_and_crop
    >>> import tensorflow as tf
    >>> images = tf.ones((2, 8, 8, 1))
    >>> flip_and_crop(images, seed=[1, 2]).shape
    TensorShape([2, 8, 8, 1])

    Args:
        images: Tensor of shape `(batch, height, width, channels)`.
        seed: Integer tensor of shape `(2,)`. The result is a pure function of `images` and `seed`.

    Returns:
        Tensor of the shape and dtype of `images`.

    Raises:
        ValueError: If `images` does not have four axes.

    Reference:
        He et al., 2015, followed in appendix G.2 of Catastrophic Fisher Explosion
        (Jastrzebski et al., 2021).
    """
    images = tf.convert_to_tensor(images)
    if images.shape.rank != 4:
        raise ValueError(
            "`images` must have shape (batch, height, width, channels). "
            f"Received: images of shape {images.shape}"
        )
    batch, height, width, _ = tf.unstack(tf.shape(images))
    # The numbers drawn depend on the dtype of the seed too: make it one.
    flip_seed, crop_seed = tf.unstack(tf.random.split(tf.cast(seed, tf.int64), 2))
    corner = tf.random.stateless_uniform([batch, 2], crop_seed, 0, 2 * PADDING + 1, tf.int32)
    flip = tf.random.stateless_uniform([batch, 1], flip_seed) < 0.5
    across = tf.range(width)
    rows = corner[:, :1] + tf.range(height)
    columns = corner[:, 1:] + tf.where(flip, across[::-1], across)

    border = [PADDING, PADDING]
    padded = tf.pad(images, [[0, 0], border, border, [0, 0]])
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    cropped = tf.gather(cropped, columns, axis=2, batch_dims=1)
    return tf.ensure_shape(cropped, images.shape)


AUGMENTATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "flip": tf.image.stateless_random_flip_left_right,
    "flip_and_crop": flip_and_crop,
}
