"""The random generators of the host that the training data may use."""

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np


@contextlib.contextmanager
def preserve_host_generators(data: Any = None) -> Iterator[None]:
    """Restores the global generators of Python, NumPy and PyTorch, and those of `data`, on exit.

    Reading data may draw from them: a torch `DataLoader` does each time it is read, and a
    `keras.utils.PyDataset` may. A measurement must not change what training draws afterwards.
    """
    torch = sys.modules.get("torch")
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    drawn = None if torch is None else torch.get_rng_state()
    owners = (data, getattr(data, "sampler", None))  # of a DataLoader
    found = [getattr(owner, "generator", None) for owner in owners]
    own = [(generator, generator.get_state()) for generator in found if generator is not None]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        if torch is not None:
            torch.set_rng_state(drawn)
        for generator, state in own:
            generator.set_state(state)
