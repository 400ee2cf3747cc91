"""One seed per layer, derived from the seed of the network."""

import itertools
import random
from collections.abc import Iterator

from keras_fisher.utils.arguments import check_seed


def layer_seeds(seed: int | None) -> Iterator[int]:
    """Returns an endless iterator of seeds, one for each layer.

    Two Keras initialisers with the same integer seed draw the same numbers, so each layer needs its
    own seed.

    Examples:
            >>> seeds = layer_seeds(0)
            >>> next(seeds) != next(seeds)
            True

    Args:
        seed: An integer, or `None` to use the global state of `keras.utils.set_random_seed`.

    Returns:
        An iterator of integers below 2^31.

    Raises:
        TypeError: If the seed is not an integer.
        ValueError: If it is negative.
    """
    seed = check_seed(seed)
    seeds = random.Random(random.getrandbits(32) if seed is None else seed)
    return map(seeds.getrandbits, itertools.repeat(31))
