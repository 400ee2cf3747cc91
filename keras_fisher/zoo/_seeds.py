"""Seeds for a whole network, from one."""

import itertools
import random
from collections.abc import Iterator

from keras_fisher.utils.arguments import check_seed


def layer_seeds(seed: int | None) -> Iterator[int]:
    """Returns an iterator of seeds, one for each layer, without end.

    Two Keras initialisers with the same integer seed give the same numbers, so each layer's gets a
    seed of its own.

    Examples:
            >>> seeds = layer_seeds(0)
            >>> next(seeds) != next(seeds)
            True

    Args:
        seed: An integer, or None to draw from the state that `keras.utils.set_random_seed` sets.

    Returns:
        An iterator of integers below 2^31.

    Raises:
        TypeError: If the seed is no integer.
        ValueError: If it is negative.
    """
    seed = check_seed(seed)
    seeds = random.Random(random.getrandbits(32) if seed is None else seed)
    return map(seeds.getrandbits, itertools.repeat(31))
