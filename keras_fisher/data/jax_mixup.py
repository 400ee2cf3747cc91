"""Mixup: training on convex combinations of pairs of examples, as arrays of JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_fisher.data.jax_batches import Batches
from keras_fisher.data.pipelines import check_classes_to_mix
from keras_fisher.utils.arguments import check_given_seed, check_positive


def mixup(
    dataset: keras.utils.PyDataset, beta: float, seed: int, num_classes: int | None = None
) -> Batches:
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
    if y.ndim == 1 or num_classes is not None:
        num_classes = check_classes_to_mix(num_classes)
    key = jax.random.key(seed)

    def at(index: int) -> tuple[Any, Any]:
        x, y = dataset[index]
        return mixed(x, y, num_classes, beta, jax.random.fold_in(key, index))

    return Batches(at, dataset.num_batches)


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
