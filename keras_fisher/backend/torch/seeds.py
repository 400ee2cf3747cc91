"""Seeds of PyTorch's and NumPy's generators from several integers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from keras_fisher.backend.types import Tensor


def make_generator(seeds: Sequence[int | Tensor], device: torch.device) -> torch.Generator:
    """Returns a generator of PyTorch, independent for each sequence of integers."""
    return torch.Generator(device).manual_seed(mix_seeds(seeds))


def mix_seeds(seeds: Sequence[int | Tensor]) -> int:
    """Returns an integer below 2^63 for a sequence of integers."""
    return int(make_sequence(seeds).generate_state(1, np.uint64)[0] >> np.uint64(1))


def make_sequence(seeds: Sequence[int | Tensor]) -> np.random.SeedSequence:
    """Returns NumPy's seed sequence for integers of any backend."""
    return np.random.SeedSequence([to_natural(seed) for seed in seeds])


def to_natural(seed: int | Tensor) -> int:
    """Returns an integer of any backend, modulo 2^64."""
    return int(seed) & 0xFFFF_FFFF_FFFF_FFFF
