"""Initialisers for a whole network, from one seed."""

import random
from collections.abc import Iterator

import keras


def seeded_initializers(
    kind: type[keras.initializers.Initializer], seed: int | None
) -> Iterator[keras.initializers.Initializer]:
    """Yields one initialiser per layer, without end.

    Two Keras initialisers with the same integer seed give the same weights, so each gets a seed of
    its own, derived from `seed`.

    Example:
        >>> initializers = seeded_initializers(keras.initializers.HeNormal, seed=0)
        >>> next(initializers).seed != next(initializers).seed
        True

    Args:
        kind: The class of initialiser, such as `keras.initializers.HeNormal`.
        seed: An integer, or None to draw from the state that `keras.utils.set_random_seed` sets.

    Yields:
        Initialisers of class `kind`.
    """
    if seed is None:
        seed = random.getrandbits(32)
    seeds = random.Random(seed)
    while True:
        yield kind(seed=seeds.getrandbits(31))
