"""Uniform label noise."""

import numpy as np

from keras_fisher.data.labels import check_label_array
from keras_fisher.utils.arguments import check_given_seed, check_integer, check_real


def uniform_label_noise(
    y: np.ndarray, fraction: float, num_classes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Replaces a fraction of the labels by labels drawn uniformly from all classes.

    It chooses exactly `round(fraction * len(y))` distinct examples at random, and gives each a new
    label, uniform on `{0, ..., num_classes - 1}`. The new label may equal the true one: on average
    `1 / num_classes` of the re-drawn labels do, so slightly less than `fraction` of the labels are
    wrong.

    Examples:
        >>> from keras_fisher.data import uniform_label_noise
        >>> import numpy as np
        >>> y = np.array([0, 1, 2, 3, 4, 5, 6, 7])
        >>> y_noisy, is_noisy = uniform_label_noise(y, 0.25, num_classes=10, seed=0)
        >>> int(is_noisy.sum())
        2
        >>> bool((y_noisy == y)[~is_noisy].all())
        True

    Args:
        y: Integer array of shape `(n,)`, the true labels. It is not modified.
        fraction: Float in `[0, 1]`, the fraction of the labels to re-draw.
        num_classes: Integer of at least 2. Labels lie in `[0, num_classes)`.
        seed: Non-negative integer. The same seed gives the same noise.

    Returns:
        `(y_noisy, is_noisy)`: the labels after the noise, of the shape and dtype of `y`, and a
        boolean array of shape `(n,)` that is true where a label was *re-drawn*, whether or not
        it changed. `y_noisy != y` marks the changed ones.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Reference:
        Section 4.1 of Catastrophic Fisher Explosion (Jastrzebski et al., 2021).
    """
    num_classes = check_integer("num_classes", num_classes, low=2)
    seed = check_given_seed(seed)
    fraction = check_real("fraction", fraction)
    if not 0 <= fraction <= 1:
        raise ValueError(f"`fraction` must lie in [0, 1]. Received: fraction={fraction}")
    check_label_array("y", y, num_classes)
    if num_classes - 1 > np.iinfo(y.dtype).max:
        raise ValueError(
            f"The dtype of `y` must hold every label below num_classes={num_classes}. "
            f"Received: y of dtype {y.dtype}"
        )

    rng = np.random.default_rng(seed)
    redrawn = rng.choice(len(y), size=round(fraction * len(y)), replace=False)
    y_noisy = y.copy()
    y_noisy[redrawn] = rng.integers(num_classes, size=len(redrawn))
    is_noisy = np.zeros(len(y), dtype=bool)
    is_noisy[redrawn] = True
    return y_noisy, is_noisy
