"""The standard augmentation of small images, as arrays of JAX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PADDING = 4


def flip(images: Any, seed: Any) -> Any:
    """Flips each image left to right with probability 1/2."""
    is_flipped = jax.random.bernoulli(_key(seed), shape=(len(images), 1, 1, 1))
    return jnp.where(is_flipped, images[:, :, ::-1], images)


def flip_and_crop(images: Any, seed: Any) -> Any:
    """Flips each image at random and crops it at random after zero padding.

    Each image is padded by 4 zero pixels on every side, a window of its own size is cut at a
    random position, and the window is mirrored left to right with probability 1/2. Pad *after*
    normalisation, so that the border has the mean colour.

    Args:
        images: Array of shape `(batch, height, width, channels)`.
        seed: Two integers. The result is a pure function of `images` and `seed`.

    Returns:
        Array of the shape and dtype of `images`.

    Raises:
        ValueError: If `images` does not have four axes.

    Reference:
        He et al., 2015, followed in appendix G.2 of Catastrophic Fisher Explosion
        (Jastrzebski et al., 2021).
    """
    images = jnp.asarray(images)
    if images.ndim != 4:
        raise ValueError(
            "`images` must have shape (batch, height, width, channels). "
            f"Received: images of shape {images.shape}"
        )
    flip_seed, crop_seed = jax.random.key_data(jax.random.split(_key(seed)))
    corners = jax.random.randint(_key(crop_seed), (len(images), 2), 0, 2 * PADDING + 1)
    border = (PADDING, PADDING)
    padded = jnp.pad(images, [(0, 0), border, border, (0, 0)])

    def window(image: Any, corner: Any) -> Any:
        return jax.lax.dynamic_slice(image, (*corner, 0), images.shape[1:])

    return flip(jax.vmap(window)(padded, corners), flip_seed)


AUGMENTATIONS: dict[str, Callable[[Any, Any], Any]] = {"flip": flip, "flip_and_crop": flip_and_crop}


def _key(seed: Any) -> Any:
    return jax.random.wrap_key_data(jnp.asarray(seed).astype("uint32"), impl="threefry2x32")
