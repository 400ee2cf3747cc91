"""Mixup: training on convex combinations of pairs of examples."""

import tensorflow as tf

from keras_fisher.data.pipelines import check_classes_to_mix
from keras_fisher.utils.arguments import check_given_seed, check_positive


def mixup(
    dataset: tf.data.Dataset,
    beta: float,
    seed: int | tf.Tensor,
    num_classes: int | None = None,
) -> tf.data.Dataset:
    """Mixes each batch with a random permutation of itself.

    For each batch one `lam ~ Beta(beta, beta)` and one permutation `p` are drawn, and

        x_mixed = lam * x + (1 - lam) * x[p]
        y_mixed = lam * y + (1 - lam) * y[p]

    with `y` one-hot. Both are pure functions of `seed` and of the position of the batch in the
    dataset. Larger values of `beta` mix more.

    Example:
    >>> from keras_fisher.data import mixup
    >>> import numpy as np
    >>> import tensorflow as tf
    >>> x, y = np.eye(4, dtype="float32"), np.array([0, 1, 2, 3])
    >>> batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    >>> x_mixed, y_mixed = next(iter(mixup(batches, 0.4, seed=0, num_classes=4)))
    >>> y_mixed.shape
    TensorShape([4, 4])
    >>> bool(np.allclose(x_mixed, y_mixed))
    True

    Args:
        dataset: Dataset of batches `(x, y)`: `x` floating-point of shape `(batch, ...)`, `y`
            integer labels of shape `(batch,)` or one-hot of shape `(batch, num_classes)`.
        beta: Positive float, both parameters of the Beta distribution.
        seed: Non-negative integer, or a scalar int64 tensor.
        num_classes: Number of classes. Needed for integer labels, unused for one-hot ones.

    Returns:
        Dataset of as many batches `(x_mixed, y_mixed)`: the first of the shape and dtype of `x`,
        the second float32 of shape `(batch, num_classes)`.

    Raises:
        TypeError: If an argument, or `x`, has the wrong type.
        ValueError: If `beta` is not positive and finite, if the dataset does not yield batches
            `(x, y)`, or if labels are integers and `num_classes` is missing.

    Reference:
        Zhang et al., 2018, compared with in section 4.1 of Catastrophic Fisher Explosion
        (Jastrzebski et al., 2021).
    """
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(f"`dataset` must be a tf.data.Dataset. Received: {type(dataset).__name__}")
    beta = check_positive("beta", beta)
    if not tf.is_tensor(seed):
        seed = check_given_seed(seed)
    has_integer_labels = _has_integer_labels(dataset)
    if has_integer_labels:
        num_classes = check_classes_to_mix(num_classes)

    def mix(index: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        x, y = batch
        y = tf.one_hot(y, num_classes) if has_integer_labels else tf.cast(y, tf.float32)
        batch_seed = tf.stack([tf.cast(seed, tf.int64), index])
        lam_seed, order_seed = tf.unstack(tf.random.split(batch_seed, 2))
        lam = _symmetric_beta(beta, lam_seed)
        order = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(y)[0]), order_seed)
        return _interpolate(lam, x, order), _interpolate(lam, y, order)

    return dataset.enumerate().map(mix, num_parallel_calls=tf.data.AUTOTUNE)


def _has_integer_labels(dataset: tf.data.Dataset) -> bool:
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise ValueError(f"`dataset` must yield pairs (x, y). Received: elements {spec}")
    x, y = spec
    if not x.dtype.is_floating:
        raise TypeError(f"`dataset` must yield floating-point x. Received: x of dtype {x.dtype}")
    if y.shape.rank == 1 and y.dtype.is_integer:
        return True
    if y.shape.rank == 2 and y.shape[-1] != 1:
        return False
    raise ValueError(
        "`dataset` must yield batches with integer labels of shape (batch,) or one-hot labels of "
        f"shape (batch, num_classes). Received: y of shape {y.shape} and dtype {y.dtype.name}"
    )


def _symmetric_beta(beta: float, seed: tf.Tensor) -> tf.Tensor:
    """`a / (a + b)` of two gammas, `log a = log gamma(beta + 1) + log(u) / beta`.

    By their logarithms, because the gammas themselves underflow where `beta` is small.
    """
    gamma_seed, uniform_seed = tf.unstack(tf.random.split(seed, 2))
    gammas = tf.random.stateless_gamma([2], gamma_seed, alpha=beta + 1, dtype=tf.float64)
    uniforms = tf.random.stateless_uniform([2], uniform_seed, dtype=tf.float64)
    log_a, log_b = tf.unstack(tf.math.log(gammas) + tf.math.log(uniforms) / beta)
    return tf.sigmoid(log_a - log_b)


def _interpolate(lam: tf.Tensor, values: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    lam = tf.cast(lam, values.dtype)
    return lam * values + (1 - lam) * tf.gather(values, order)
