"""Random numbers for training data, which depend only on a seed, an epoch and a position."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from keras_fisher.backend.types import Tensor


def make_stream_seeds(seed: int, epoch: Tensor) -> list[Tensor]:
    """Returns independent seeds for the order, the augmentation and the mixup of an epoch."""
    return list(jax.random.split(jax.random.fold_in(jax.random.key(seed), epoch), 3))


def fold_in(seed: int | Tensor, position: Tensor) -> Tensor:
    """Returns a seed for each position, shape `(2,)`."""
    key = jax.random.key(seed) if isinstance(seed, int) else seed
    return jax.random.key_data(jax.random.fold_in(key, position))


def draw_order(seed: Tensor, size: int) -> Tensor:
    """Returns a permutation of `size` integers, from a seed of `make_stream_seeds`."""
    return jax.random.permutation(seed, size)


def draw_flips(seed: Tensor, size: int) -> Tensor:
    """Returns booleans, each true with probability 1/2, shape `(size,)`."""
    return jax.random.bernoulli(_key(seed), shape=(size,))


def draw_windows(seed: Tensor, size: int, positions: int) -> tuple[Tensor, Tensor]:
    """Returns corners from 0 to `positions` - 1, shape `(size, 2)`, and flips, `(size,)`."""
    flip_seed, crop_seed = jax.random.key_data(jax.random.split(_key(seed)))
    corners = jax.random.randint(_key(crop_seed), (size, 2), 0, positions)
    return corners, draw_flips(flip_seed, size)


def draw_mixing(seed: Tensor, beta: float, size: int) -> tuple[Tensor, Tensor]:
    """Returns a weight from Beta(beta, beta), a scalar, and a permutation, shape `(size,)`."""
    weight_key, order_key = jax.random.split(_key(seed))
    # Uses the logarithms of two gamma draws, which themselves underflow for small beta.
    log_a, log_b = jax.random.loggamma(weight_key, beta, shape=(2,))
    return jax.nn.sigmoid(log_a - log_b), jax.random.permutation(order_key, size)


def _key(seed: Tensor) -> Tensor:
    return jax.random.wrap_key_data(jnp.asarray(seed).astype("uint32"), impl="threefry2x32")
