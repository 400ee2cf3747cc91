"""Random numbers for training data, which depend only on a seed, an epoch and a position."""

from __future__ import annotations

import tensorflow as tf

from keras_fisher.backend.types import Tensor


def make_stream_seeds(seed: int, epoch: Tensor) -> list[Tensor]:
    """Returns independent seeds for the order, the augmentation and the mixup of an epoch."""
    seeds = tf.random.stateless_uniform(
        [3], tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)]), None, None, tf.int64
    )
    return tf.unstack(seeds)


def fold_in(seed: int | Tensor, position: Tensor) -> Tensor:
    """Returns a seed for each position, shape `(2,)`."""
    return tf.stack([tf.cast(seed, tf.int64), tf.cast(position, tf.int64)])


def draw_order(seed: Tensor, size: int) -> Tensor:
    """Returns a permutation of `size` integers, from a seed of `make_stream_seeds`."""
    return _permute(size, fold_in(seed, 0))


def draw_flips(seed: Tensor, size: Tensor) -> Tensor:
    """Returns booleans, each true with probability 1/2, shape `(size,)`."""
    return tf.round(tf.random.stateless_uniform([size], seed)) > 0.5


def draw_windows(seed: Tensor, size: Tensor, positions: int) -> tuple[Tensor, Tensor]:
    """Returns corners from 0 to `positions` - 1, shape `(size, 2)`, and flips, `(size,)`."""
    # The drawn numbers also depend on the dtype of the seed, so fix it.
    flip_seed, crop_seed = tf.unstack(tf.random.split(tf.cast(seed, tf.int64), 2))
    corners = tf.random.stateless_uniform([size, 2], crop_seed, 0, positions, tf.int32)
    return corners, tf.random.stateless_uniform([size, 1], flip_seed)[:, 0] < 0.5


def draw_mixing(seed: Tensor, beta: float, size: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a weight from Beta(beta, beta), a scalar, and a permutation, shape `(size,)`."""
    weight_seed, order_seed = tf.unstack(tf.random.split(seed, 2))
    return _symmetric_beta(beta, weight_seed), _permute(size, order_seed)


def _symmetric_beta(beta: float, seed: Tensor) -> Tensor:
    """Draws `a / (a + b)` from two gammas, `log a = log gamma(beta + 1) + log(u) / beta`.

    It uses logarithms because the gammas themselves underflow for small `beta`.
    """
    gamma_seed, uniform_seed = tf.unstack(tf.random.split(seed, 2))
    gammas = tf.random.stateless_gamma([2], gamma_seed, alpha=beta + 1, dtype=tf.float64)
    uniforms = tf.random.stateless_uniform([2], uniform_seed, dtype=tf.float64)
    log_a, log_b = tf.unstack(tf.math.log(gammas) + tf.math.log(uniforms) / beta)
    return tf.sigmoid(log_a - log_b)


def _permute(size: Tensor, seed: Tensor) -> Tensor:
    return tf.random.experimental.stateless_shuffle(tf.range(size), seed)
