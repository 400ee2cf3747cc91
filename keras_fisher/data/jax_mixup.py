"""Mixup: training on convex combinations of pairs of examples, as arrays of JAX."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_fisher._arguments import check_given_seed, check_integer, check_positive


def mixup(
    dataset: keras.utils.PyDataset, beta: float, seed: int, num_classes: int | None = None
) -> keras.utils.PyDataset:
    """Mixes each batch with a random permutation of itself.

    For each batch one `lam ~ Beta(beta, beta)` and one permutation `p` are drawn, and

        x_mixed = lam * x + (1 - lam) * x[p]
        y_mixed = lam * y + (1 - lam) * y[p]

    with `y` one-hot. Both are pure functions of `seed` and of the position of the batch in the
    dataset. Larger values of `beta` mix more.

    Args:
        dataset: Batches `(x, y)`: `x` floating-point of shape `(batch, ...)`, `y` integer labels of
            shape `(batch,)` or one-hot of shape `(batch, num_classes)`.
        beta: Positive float, both parameters of the Beta distribution.
        seed: Non-negative integer.
        num_classes: Number of classes. Needed for integer labels, unused for one-hot ones.

    Returns:
        As many batches `(x_mixed, y_mixed)`: the first of the shape and dtype of `x`, the second
        float32 of shape `(batch, num_classes)`.

    Raises:
        TypeError: If an argument, or `x`, has the wrong type.
        ValueError: If `beta` is not positive and finite, or if labels are integers and
            `num_classes` is missing.

    Reference:
        Zhang et al., 2018, compared with in section 4.1 of Catastrophic Fisher Explosion
        (Jastrzebski et al., 2021).
    """
    if not isinstance(dataset, keras.utils.PyDataset):
        raise TypeError(
            f"`dataset` must be a keras.utils.PyDataset. Received: {type(dataset).__name__}"
        )
    beta, seed = check_positive("beta", beta), check_given_seed(seed)
    x, y = dataset[0]
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"`dataset` must yield floating-point x. Received: x of dtype {x.dtype}")
    if y.ndim == 1 and num_classes is None:
        raise ValueError(
            "Mixup of integer labels needs `num_classes`. Received: num_classes=None. "
            "Pass the number of classes, or one-hot labels."
        )
    if num_classes is not None:
        num_classes = check_integer("num_classes", num_classes, low=2)
    return _Mixed(dataset, beta, seed, num_classes)


class _Mixed(keras.utils.PyDataset):
    def __init__(self, batches: Any, beta: float, seed: int, num_classes: int | None) -> None:
        super().__init__()
        self._batches, self._beta, self._num_classes = batches, beta, num_classes
        self._key = jax.random.key(seed)

    @property
    def num_batches(self) -> int | None:
        return self._batches.num_batches

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        x, y = self._batches[index]
        return mixed(x, y, self._num_classes, self._beta, jax.random.fold_in(self._key, index))

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        index = 0
        while self.num_batches is None or index < self.num_batches:
            yield self[index]
            index += 1


def mixed(x: Any, y: Any, num_classes: int | None, beta: float, key: Any) -> tuple[Any, Any]:
    """One batch, mixed with a permutation of itself; `y` is one-hot or of `num_classes`."""
    if num_classes is not None and y.ndim == 1:
        y = jax.nn.one_hot(y, num_classes)
    lam_key, order_key = jax.random.split(key)
    # By the logarithms of two gammas, which themselves underflow where beta is small.
    log_a, log_b = jax.random.loggamma(lam_key, beta, shape=(2,))
    order = jax.random.permutation(order_key, len(y))
    lam = jax.nn.sigmoid(log_a - log_b)
    y = jnp.asarray(y).astype(np.float32)
    return _interpolated(lam, jnp.asarray(x), order), _interpolated(lam, y, order)


def _interpolated(lam: Any, values: Any, order: Any) -> Any:
    lam = lam.astype(values.dtype)
    return lam * values + (1 - lam) * values[order]
