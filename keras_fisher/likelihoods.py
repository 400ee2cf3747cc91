"""What a model's outputs say about the labels: p(y | outputs).

A likelihood draws labels from the model's own prediction and gives the negative log-likelihood of
labels. Outputs have one *observation* for each label: a class for every position (`Categorical`),
a bit (`Bernoulli`) or a real number (`Gaussian`) for every component. As in Keras's losses, the
negative log-likelihood of an example is the **mean** over its observations, so that without sample
weights, label smoothing and regularisers its mean over the batch is the compiled loss itself.
"""

from __future__ import annotations

import abc
from typing import Any

import keras
from keras import ops

from keras_fisher import _arguments
from keras_fisher._masks import mask_of

_PACKAGE = "keras_fisher"


class Likelihood(abc.ABC):
    """The distribution of labels given a model's outputs.

    Subclass it for a loss of your own: give the negative log-likelihood of every observation and
    say how labels are drawn, in `keras.ops` and `keras.random` alone.
    """

    @abc.abstractmethod
    def observation_nll(self, labels: Any, outputs: Any) -> Any:
        """Returns -log p(label | outputs) of every observation, up to a constant.

        Args:
            labels: Labels, in any layout that the likelihood accepts.
            outputs: Outputs of the model, shape `(batch, ...)`.

        Returns:
            A float tensor, shape `(batch, ...)`.
        """

    @abc.abstractmethod
    def sample(self, outputs: Any, seed: keras.random.SeedGenerator) -> Any:
        """Draws one label per observation from p(y | outputs)."""

    def sample_uniform(self, outputs: Any, seed: keras.random.SeedGenerator) -> Any:
        """Draws one label per observation uniformly from the label set (GP_r, section 4).

        Raises:
            ValueError: if the label set is infinite, so that it has no uniform distribution.
        """
        raise ValueError(
            f"Penalty 'gp_r' draws labels uniformly from the label set, and {type(self).__name__} "
            "has no finite one. Use 'fp', 'gp' or 'gp_x'."
        )

    def nll(self, labels: Any, outputs: Any) -> Any:
        """Returns the negative log-likelihood of each example: the mean over its observations.

        Where Keras masks outputs (padded time steps), masked observations do not count. As in
        Keras's losses, the others are weighted so that the mean over the batch is the mean over
        the observations that count.

        Args:
            labels: Labels, in any layout that the likelihood accepts.
            outputs: Outputs of the model, shape `(batch, ...)`.

        Returns:
            A float tensor, shape `(batch,)`, at least float32.
        """
        terms = _weighted(self.observation_nll(labels, outputs), outputs, across_batch=True)
        return ops.mean(terms, axis=-1)

    def nll_terms(self, labels: Any, outputs: Any) -> Any:
        """Returns what each observation adds to the negative log-likelihood of its own example.

        An example is taken by itself: where Keras masks outputs, the observations of an example
        that count have equal weights, whatever else is in the batch.

        Args:
            labels: Labels, in any layout that the likelihood accepts.
            outputs: Outputs of the model, shape `(batch, ...)`.

        Returns:
            A float tensor, shape `(batch, observations)`, at least float32. The sum over the
            observations is the mean negative log-likelihood of those that count.
        """
        terms = _weighted(self.observation_nll(labels, outputs), outputs, across_batch=False)
        return terms / ops.cast(ops.shape(terms)[-1], terms.dtype)

    def mean_nll(self, labels: Any, outputs: Any) -> Any:
        """Returns the mean of `nll` over the batch, a scalar."""
        return ops.mean(self.nll(labels, outputs))

    def num_outcomes(self, outputs: Any) -> int:
        """Returns how many outcomes stand for all labels that one observation can have.

        Raises:
            ValueError: if the likelihood does not list them.
        """
        raise ValueError(
            "labels='expected' sums over the labels of a likelihood that lists them in "
            f"`num_outcomes` and `outcome`, and {type(self).__name__} does not. "
            "Use labels='sampled' or 'given'."
        )

    def outcome(self, index: Any, outputs: Any) -> tuple[Any, Any]:
        """Returns an outcome and its probability, so that they give the Fisher information.

        Over all outcomes, sum_k p_k s_k s_k^T is the expectation of s s^T over labels, where s is
        the gradient of the negative log-likelihood with respect to the outputs.

        Args:
            index: Which outcome, an integer tensor below `num_outcomes`.
            outputs: Outputs of the model, shape `(batch, ...)`.

        Returns:
            The labels, and for each observation the probability, in the layout of
            `observation_nll`.
        """
        raise NotImplementedError

    def class_bound(self, labels: Any, outputs: Any) -> int | None:
        """Returns the bound that integer `labels` must stay below, or `None` to accept any."""
        return None

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Likelihood:
        """Returns the likelihood that `get_config` described."""
        return cls(**config)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Categorical(Likelihood):
    """One class per position: -log p(y) = -sum_c y_c log p_c, classes on the last axis.

    Example:
    >>> import numpy as np
    >>> from keras_fisher.likelihoods import Categorical
    >>> logits = np.log([[0.25, 0.75], [0.5, 0.5]])
    >>> np.asarray(Categorical().nll(np.array([1, 0]), logits)).round(4)
    array([0.2877, 0.6931])

    Args:
        from_logits: Whether outputs are logits (the default) or probabilities.

    Labels are integers of shape `(batch, ...)` (a trailing axis of length 1 is dropped) or one-hot
    or soft targets of the outputs' shape `(batch, ..., classes)`.
    """

    def __init__(self, from_logits: bool = True) -> None:
        self.from_logits = from_logits

    def observation_nll(self, labels: Any, outputs: Any) -> Any:
        """Returns -log p of each position's class, shape `(batch, ...)`."""
        log_p = self._log_probabilities(outputs)
        if _is_dense(labels, outputs):
            weights = ops.cast(labels, log_p.dtype)
        else:
            weights = ops.one_hot(_sparse(labels, outputs), log_p.shape[-1], dtype=log_p.dtype)
        # A logit of minus infinity (a class that is ruled out) counts only where it is the label.
        return -ops.sum(ops.where(weights > 0, weights * log_p, 0.0), axis=-1)

    def sample(self, outputs: Any, seed: keras.random.SeedGenerator) -> Any:
        """Draws a class per position from the prediction, int32 of shape `(batch, ...)`."""
        log_p = self._log_probabilities(outputs)
        # The Gumbel-max trick: unlike a categorical draw it takes any number of axes and XLA.
        uniform = keras.random.uniform(
            ops.shape(log_p), minval=_tiny(log_p.dtype), dtype=log_p.dtype, seed=seed
        )
        return ops.argmax(log_p - ops.log(-ops.log(uniform)), axis=-1)

    def sample_uniform(self, outputs: Any, seed: keras.random.SeedGenerator) -> Any:
        """Draws a class per position uniformly, int32 of shape `(batch, ...)`."""
        classes = outputs.shape[-1]
        return keras.random.randint(ops.shape(outputs)[:-1], 0, classes, seed=seed)

    def num_outcomes(self, outputs: Any) -> int:
        """Returns the number of classes."""
        return outputs.shape[-1]

    def outcome(self, index: Any, outputs: Any) -> tuple[Any, Any]:
        """Returns the class `index` at every position, and its probability."""
        p = ops.take(ops.exp(self._log_probabilities(outputs)), index, axis=-1)
        return ops.zeros_like(p, dtype="int32") + ops.cast(index, "int32"), p

    def class_bound(self, labels: Any, outputs: Any) -> int | None:
        """Returns the number of classes if `labels` are integer classes."""
        return None if _is_dense(labels, outputs) else outputs.shape[-1]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"from_logits": self.from_logits}

    def _log_probabilities(self, outputs: Any) -> Any:
        outputs, from_logits = _logits(outputs, self.from_logits)
        if from_logits:
            return ops.log_softmax(outputs, axis=-1)
        return ops.log(ops.clip(outputs, keras.config.epsilon(), 1.0))


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Bernoulli(Likelihood):
    """One bit per component: -log p(y) = -y log p - (1 - y) log(1 - p).

    Example:
    >>> import numpy as np
    >>> from keras_fisher.likelihoods import Bernoulli
    >>> np.asarray(Bernoulli().nll(np.array([1, 0]), np.array([[0.0], [2.0]]))).round(4)
    array([0.6931, 2.1269])

    Args:
        from_logits: Whether outputs are logits (the default) or probabilities.

    Labels are 0, 1 or anything between, of the outputs' shape (a trailing axis of length 1 may be
    missing).
    """

    def __init__(self, from_logits: bool = True) -> None:
        self.from_logits = from_logits

    def observation_nll(self, labels: Any, outputs: Any) -> Any:
        """Returns -log p of each component, of the outputs' shape."""
        outputs, from_logits = _logits(outputs, self.from_logits)
        labels = _like(labels, outputs)
        if from_logits:
            return ops.softplus(outputs) - labels * outputs
        epsilon = keras.config.epsilon()
        p = ops.clip(outputs, epsilon, 1.0 - epsilon)
        return -labels * ops.log(p) - (1.0 - labels) * ops.log(1.0 - p)

    def sample(self, outputs: Any, seed: keras.random.SeedGenerator) -> Any:
        """Draws a bit per component from the prediction, of the outputs' shape."""
        return _bits(self._probabilities(outputs), seed)

    def sample_uniform(self, outputs: Any, seed: keras.random.SeedGenerator) -> Any:
        """Draws a fair bit per component, of the outputs' shape."""
        return _bits(0.5 * ops.ones_like(_at_least_float32(outputs)), seed)

    def num_outcomes(self, outputs: Any) -> int:
        """Returns 2: a bit is 0 or 1."""
        return 2

    def outcome(self, index: Any, outputs: Any) -> tuple[Any, Any]:
        """Returns the bit `index` for every component, and its probability."""
        p = self._probabilities(outputs)
        bits = ops.zeros_like(p) + ops.cast(index, p.dtype)
        return bits, bits * p + (1.0 - bits) * (1.0 - p)

    def _probabilities(self, outputs: Any) -> Any:
        outputs = _at_least_float32(outputs)
        return ops.sigmoid(outputs) if self.from_logits else outputs

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"from_logits": self.from_logits}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Gaussian(Likelihood):
    """A real number per component: -log p(y) = (y - output)^2 / (2 variance) + constant.

    Example:
    >>> import numpy as np
    >>> from keras_fisher.likelihoods import Gaussian
    >>> np.asarray(Gaussian().nll(np.array([[1.0, 2.0]]), np.zeros((1, 2))))  # (1 + 4) / 2
    array([2.5])

    Args:
        variance: The variance of each component. The default, 0.5, makes the negative
            log-likelihood equal to Keras's mean squared error.

    Labels have the outputs' shape (a trailing axis of length 1 may be missing).

    Raises:
        ValueError: if `variance` is not a finite number above 0.
    """

    def __init__(self, variance: float = 0.5) -> None:
        self.variance = _arguments.check_positive("variance", variance)

    def observation_nll(self, labels: Any, outputs: Any) -> Any:
        """Returns the scaled squared error of each component, of the outputs' shape."""
        outputs = _at_least_float32(outputs)
        return ops.square(_like(labels, outputs) - outputs) / (2.0 * self.variance)

    def sample(self, outputs: Any, seed: keras.random.SeedGenerator) -> Any:
        """Draws a number per component around the prediction, of the outputs' shape."""
        outputs = _at_least_float32(outputs)
        noise = keras.random.normal(ops.shape(outputs), dtype=outputs.dtype, seed=seed)
        return outputs + self.variance**0.5 * noise

    def num_outcomes(self, outputs: Any) -> int:
        """Returns 1: the gradient is linear in the label, so its mean square is enough."""
        return 1

    def outcome(self, index: Any, outputs: Any) -> tuple[Any, Any]:
        """Returns labels one standard deviation away, which have the mean squared gradient."""
        outputs = _at_least_float32(outputs)
        return outputs + self.variance**0.5, ops.ones_like(outputs)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"variance": self.variance}


def from_loss(loss: Any) -> Likelihood:
    """Returns the likelihood whose negative logarithm is the compiled `loss`.

    Label smoothing, class and sample weights and regularisers are no part of it.

    Example:
    >>> import keras
    >>> from keras_fisher import likelihoods
    >>> likelihoods.from_loss("mse").get_config()
    {'variance': 0.5}
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> likelihoods.from_loss(loss).get_config()
    {'from_logits': True}

    Args:
        loss: A loss as `compile` takes it: a name, a function or a `keras.losses.Loss`; one of
            sparse categorical, categorical and binary cross-entropy and mean squared error.

    Returns:
        A `Categorical`, `Bernoulli` or `Gaussian` likelihood.

    Raises:
        ValueError: if the likelihood of the loss is not known.
    """
    if isinstance(loss, dict | list | tuple) and len(loss) == 1:
        return from_loss(*(loss.values() if isinstance(loss, dict) else loss))
    known: Any = keras.losses.get(loss) if isinstance(loss, str) else loss
    if isinstance(known, keras.losses.MeanSquaredError) or known is keras.losses.mean_squared_error:
        return Gaussian()
    for kinds, functions, likelihood in _CROSS_ENTROPIES:
        if isinstance(known, kinds):
            # The configuration of the sparse one leaves out its axis.
            config = {**known.get_config(), **getattr(known, "_fn_kwargs", {})}
            _refuse_unlike(loss, config)
            return likelihood(from_logits=bool(config["from_logits"]))
        if any(known is function for function in functions):
            return likelihood(from_logits=False)
    raise ValueError(
        f"The likelihood of the compiled `loss` is not known. Received: {loss!r}. Compile with "
        "sparse categorical, categorical or binary cross-entropy or mean squared error, or say "
        "which it is with likelihood=: Categorical(), Bernoulli() or Gaussian() of "
        "keras_fisher.likelihoods, or one of your own."
    )


_CROSS_ENTROPIES: tuple[tuple[Any, tuple[Any, ...], Any], ...] = (
    (
        (keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy),
        (keras.losses.sparse_categorical_crossentropy, keras.losses.categorical_crossentropy),
        Categorical,
    ),
    ((keras.losses.BinaryCrossentropy,), (keras.losses.binary_crossentropy,), Bernoulli),
)


def _refuse_unlike(loss: Any, config: dict[str, Any]) -> None:
    """Refuses the options of a cross-entropy that change which observations there are."""
    accepted = {"axis": -1, "ignore_class": None}
    for option, value in accepted.items():
        if config.get(option, value) != value:
            raise ValueError(
                f"The likelihood of the compiled `loss` is known for {option}={value} only. "
                f"Received: {loss!r} with {option}={config[option]!r}. With others, give "
                "likelihood= one of your own, whose `class_bound` says which labels there may be."
            )


def _weighted(values: Any, outputs: Any, across_batch: bool) -> Any:
    """Weights observations by Keras's mask, to a mean weight of 1; shape (batch, observations)."""
    mask = mask_of(outputs)
    if mask is not None:
        weight = ops.cast(mask, values.dtype)
        axes = tuple(range(0 if across_batch else 1, len(weight.shape)))
        weight = weight * ops.divide_no_nan(1.0, ops.mean(weight, axis=axes, keepdims=True))
        while len(weight.shape) < len(values.shape):
            weight = ops.expand_dims(weight, -1)
        values = values * weight
    return ops.reshape(values, (ops.shape(values)[0], -1))


def _at_least_float32(outputs: Any) -> Any:
    outputs = ops.convert_to_tensor(outputs)
    half = keras.backend.standardize_dtype(outputs.dtype) in ("float16", "bfloat16")
    return ops.cast(outputs, "float32") if half else outputs


def _logits(outputs: Any, from_logits: bool) -> tuple[Any, bool]:
    """Returns the outputs as Keras's losses see them, and whether they are logits.

    A softmax or sigmoid activation leaves its logits on the tensor. Without them the logarithm is
    that of a clipped probability, which has no gradient where the model is nearly certain.
    """
    logits = None if from_logits else getattr(outputs, "_keras_logits", None)
    if logits is not None:
        outputs, from_logits = logits, True
    return _at_least_float32(outputs), from_logits


def _is_dense(labels: Any, outputs: Any) -> bool:
    """Whether `labels` hold a number per class (one-hot or soft) and not a class."""
    return len(labels.shape) == len(outputs.shape) and labels.shape[-1] == outputs.shape[-1]


def _sparse(labels: Any, outputs: Any) -> Any:
    classes = labels
    if len(labels.shape) == len(outputs.shape) and labels.shape[-1] == 1:
        classes = ops.squeeze(labels, axis=-1)
    if len(classes.shape) != len(outputs.shape) - 1:
        raise ValueError(
            "`y` must hold a class for each position, or a number for each class. Received: "
            f"labels of shape {tuple(labels.shape)} for outputs of shape {tuple(outputs.shape)}"
        )
    return ops.cast(classes, "int32")


def _like(labels: Any, outputs: Any) -> Any:
    labels = ops.cast(labels, outputs.dtype)
    if len(labels.shape) == len(outputs.shape) - 1:
        return ops.expand_dims(labels, -1)
    if len(labels.shape) == len(outputs.shape) + 1:
        return ops.squeeze(labels, axis=-1)
    return labels


def _bits(p: Any, seed: keras.random.SeedGenerator) -> Any:
    uniform = keras.random.uniform(ops.shape(p), dtype=p.dtype, seed=seed)
    return ops.cast(uniform < p, p.dtype)


def _tiny(dtype: Any) -> float:
    return 1e-300 if keras.backend.standardize_dtype(dtype) == "float64" else 1e-30
