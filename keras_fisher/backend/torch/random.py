"""Random numbers for training data, which depend only on a seed, an epoch and a position.

NumPy draws them on the host, so that they are the same on every device.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from keras_fisher.backend.torch.seeds import make_sequence, to_natural
from keras_fisher.backend.types import Tensor


def make_stream_seeds(seed: int, epoch: Tensor) -> list[Tensor]:
    """Returns independent seeds for the order, the augmentation and the mixup of an epoch."""
    return list(make_sequence([seed, epoch]).generate_state(3, np.uint64))


def fold_in(seed: int | Tensor, position: Tensor) -> Tensor:
    """Returns a seed for each position, shape `(2,)`."""
    return np.stack([np.uint64(to_natural(seed)), np.uint64(to_natural(position))])


def draw_order(seed: Tensor, size: int) -> Tensor:
    """Returns a permutation of `size` integers, from a seed of `make_stream_seeds`."""
    return ops.convert_to_tensor(_generator(seed).permutation(size))


def draw_flips(seed: Tensor, size: int) -> Tensor:
    """Returns booleans, each true with probability 1/2, shape `(size,)`."""
    return ops.convert_to_tensor(_generator(seed).random(size) < 0.5)


def draw_windows(seed: Tensor, size: int, positions: int) -> tuple[Tensor, Tensor]:
    """Returns corners from 0 to `positions` - 1, shape `(size, 2)`, and flips, `(size,)`."""
    generator = _generator(seed)
    corners = generator.integers(0, positions, (size, 2), dtype="int32")
    return ops.convert_to_tensor(corners), ops.convert_to_tensor(generator.random(size) < 0.5)


def draw_mixing(seed: Tensor, beta: float, size: int) -> tuple[Tensor, Tensor]:
    """Returns a weight from Beta(beta, beta), a scalar, and a permutation, shape `(size,)`."""
    generator = _generator(seed)
    # log gamma(beta) = log gamma(beta + 1) + log(u) / beta; gammas underflow for small beta.
    log_a, log_b = np.log(generator.standard_gamma(beta + 1, 2)) + _draw_logs(generator) / beta
    weight = 1.0 / (1.0 + np.exp(np.clip(log_b - log_a, -700.0, 700.0)))
    order = ops.convert_to_tensor(generator.permutation(size))
    return ops.convert_to_tensor(weight, "float32"), order


def _draw_logs(generator: np.random.Generator) -> np.ndarray:
    return np.log1p(-generator.random(2))  # the logarithms of uniform numbers above 0


def _generator(seed: Tensor) -> np.random.Generator:
    return np.random.default_rng(make_sequence(np.atleast_1d(ops.convert_to_numpy(seed)).tolist()))
