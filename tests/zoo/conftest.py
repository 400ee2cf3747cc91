from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture
def images() -> Callable[[int], np.ndarray]:
    """Sixteen images of the given side, each pixel standard normal."""
    return lambda side: np.random.default_rng(0).normal(size=(16, side, side, 3)).astype("float32")
