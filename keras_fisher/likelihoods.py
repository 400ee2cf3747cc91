"""Likelihoods p(y | outputs) of the labels, given a model's outputs.

A likelihood draws labels from the model's own prediction and computes the negative log-likelihood
of labels. Outputs have one *observation* for each label: a class for every position
(`Categorical`), a bit (`Bernoulli`) or a real number (`Gaussian`) for every component. As in
Keras's losses, the negative log-likelihood of an example is the **mean** over its observations.
Without sample weights, label smoothing and regularisers, its mean over the batch is the loss.

Padding is excluded: observations that Keras masks, whose sample weight is 0 or whose label the loss
ignores (`ignore_class`) count neither in the likelihood nor in its mean.
"""

from __future__ import annotations

import abc
import itertools
from typing import Any

import keras
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.private_api.keras import get_mask
from keras_fisher.backend.types import Tensor
from keras_fisher.utils import arguments
from keras_fisher.utils.loss_advice import advise_likelihood
from keras_fisher.utils.masks import align_mask, combine_masks

_PACKAGE = "keras_fisher"
# For these names Keras chooses the cross-entropy by the shape of the labels.
_CHOSEN_BY_LABELS = ("crossentropy", "ce")
_DERIVED = ("nll", "counted_nll", "nll_terms", "mean_nll")  # from `observation_nll`


class Likelihood(abc.ABC):
    """The distribution of labels given a model's outputs.

    Subclass it for a custom loss: implement the negative log-likelihood of every observation and
    the sampling of labels, using only `keras.ops` and `keras.random`. `nll`, `nll_terms`,
    `counted_nll` and `mean_nll` are computed from `observation_nll` and cannot be overridden.

    Raises:
        TypeError: if a subclass overrides one of these.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Each measurement uses another one of them, so they must agree.
        for name in _DERIVED:
            if getattr(cls, name) is not getattr(Likelihood, name):
                raise TypeError(
                    "A likelihood must implement `observation_nll` and inherit what is computed "
                    f"from it. Received: {cls.__name__}, which overrides `{name}`"
                )

    @abc.abstractmethod
    def observation_nll(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Returns -log p(label | outputs) of every observation, up to a constant.

        Args:
            labels: Labels, in any layout that the likelihood accepts.
            outputs: Outputs of the model, shape `(batch, ...)`.

        Returns:
            A float tensor, shape `(batch, ...)`.
        """

    @abc.abstractmethod
    def sample(self, outputs: Tensor, seed: keras.random.SeedGenerator) -> Tensor:
        """Draws one label per observation from p(y | outputs)."""

    def sample_uniform(self, outputs: Tensor, seed: keras.random.SeedGenerator) -> Tensor:
        """Draws one label per observation uniformly from the label set (GP_r, section 4).

        Raises:
            ValueError: if the label set is infinite, so that it has no uniform distribution.
        """
        raise ValueError(
            "Penalty 'gp_r' needs a likelihood with a finite label set. Received: "
            f"{type(self).__name__}. Use 'fp', 'gp' or 'gp_x'."
        )

    def nll(self, labels: Tensor, outputs: Tensor, present: Any = None) -> Tensor:
        """Returns the negative log-likelihood of each example: the mean over its observations.

        Padded observations do not count. As in Keras's losses with a mask, the others are weighted
        so that the mean over the batch is the mean over the observations that count.

        Args:
            labels: Labels, in any layout that the likelihood accepts.
            outputs: Outputs of the model, shape `(batch, ...)`. Those that Keras masks are padding.
            present: A boolean mask of the observations that are data. Its shape broadcasts against
                the observations, such as `(batch,)`; `None` for all.

        Returns:
            A float tensor, shape `(batch,)`, at least float32.
        """
        values, fractions = self.counted_nll(labels, outputs, present)
        if fractions is None:
            return values
        return values * ops.divide_no_nan(1.0, ops.mean(fractions))

    def counted_nll(self, labels: Tensor, outputs: Tensor, present: Any = None) -> tuple[Any, Any]:
        """Returns the numerator and denominator of `nll`, for averaging over parts of a batch.

        The mean over the observations that count is the mean of the first over all examples,
        divided by the mean of the second.

        Args:
            labels: As in `nll`.
            outputs: As in `nll`.
            present: As in `nll`.

        Returns:
            Two float tensors of shape `(batch,)`: the mean over an example's observations, with 0
            for padded ones, and the fraction of its observations that are data. The second is
            `None` if all are.
        """
        values = self.observation_nll(labels, outputs)
        counted = combine_masks(get_mask(outputs), present)
        if counted is None:
            return ops.mean(_flatten(values), axis=-1), None
        values, weights = _weigh(values, counted)
        return ops.mean(values, axis=-1), ops.mean(weights, axis=-1)

    def nll_terms(self, labels: Tensor, outputs: Tensor, present: Any = None) -> Any:
        """Returns the contribution of each observation to its example's negative log-likelihood.

        The observations of an example that count have equal weights, independently of the rest of
        the batch.

        Args:
            labels: As in `nll`.
            outputs: As in `nll`.
            present: As in `nll`.

        Returns:
            A float tensor, shape `(batch, observations)`, at least float32. Its sum over the
            observations is the mean negative log-likelihood of those that count; 0 if none do.
        """
        values = self.observation_nll(labels, outputs)
        counted = combine_masks(get_mask(outputs), present)
        if counted is None:
            terms = _flatten(values)
            return terms / ops.cast(ops.shape(terms)[-1], terms.dtype)
        values, weights = _weigh(values, counted)
        return values * ops.divide_no_nan(1.0, ops.sum(weights, axis=-1, keepdims=True))

    def mean_nll(self, labels: Tensor, outputs: Tensor, present: Any = None) -> Tensor:
        """Returns the mean of `nll` over the batch, a scalar."""
        return ops.mean(self.nll(labels, outputs, present))

    def counted(self, labels: Tensor) -> Any:
        """Returns a mask of the observations that `labels` do not mark as padding, or `None`.

        Args:
            labels: Labels, in any layout that the likelihood accepts.

        Returns:
            Booleans of shape `(batch, ...)`; `None` for all.
        """
        return None

    def num_outcomes(self, outputs: Tensor) -> int:
        """Returns the number of outcomes that represent all labels of one observation.

        Raises:
            ValueError: if the likelihood does not enumerate its outcomes.
        """
        raise ValueError(
            "labels='expected' needs a likelihood that lists its labels in `num_outcomes` and "
            f"`outcome`. Received: {type(self).__name__}. Use labels='sampled' or 'given'."
        )

    def outcome(self, index: Tensor, outputs: Tensor) -> tuple[Any, Any]:
        """Returns an outcome and its probability, which determine the Fisher information.

        Over all outcomes, sum_k p_k s_k s_k^T is the expectation of s s^T over labels, where s is
        the gradient of the negative log-likelihood with respect to the outputs.

        Args:
            index: The outcome's index, an integer tensor below `num_outcomes`.
            outputs: Outputs of the model, shape `(batch, ...)`.

        Returns:
            The labels, and the probability of each observation in the layout of
            `observation_nll`.
        """
        raise NotImplementedError

    def class_bound(self, labels: Tensor, outputs: Tensor) -> int | None:
        """Returns the exclusive upper bound of integer `labels`, or `None` if there is none."""
        return None

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Likelihood:
        """Creates the likelihood from the result of `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Categorical(Likelihood):
    """One class per position: -log p(y) = -sum_c y_c log p_c, classes on the last axis.

    Examples:
        >>> import numpy as np
        >>> from keras_fisher.likelihoods import Categorical
        >>> logits = np.log([[0.25, 0.75], [0.5, 0.5]])
        >>> print(np.asarray(Categorical().nll(np.array([1, 0]), logits)).round(4))
        [0.2877 0.6931]

    Args:
        from_logits: Whether outputs are logits (the default) or probabilities, which are normalised
            and clipped as in Keras's losses.
        ignore_class: The integer label that marks padding, as in Keras's sparse categorical
            cross-entropy; `None` if there is none.

    Labels are integers of shape `(batch, ...)` (a trailing axis of length 1 is dropped) or one-hot
    or soft targets of the outputs' shape `(batch, ..., classes)`.
    """

    # Whether the compiled loss takes one-hot labels; `None` if the likelihood was given instead.
    # Drawn classes then use the probabilities that this loss computes.
    takes_one_hot: bool | None = None

    def __init__(self, from_logits: bool = True, ignore_class: int | None = None) -> None:
        self.from_logits = from_logits
        self.ignore_class = ignore_class

    def observation_nll(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Returns -log p of each position's class, shape `(batch, ...)`."""
        is_dense = _is_dense(labels, outputs)
        if is_dense and self.ignore_class is not None:
            raise ValueError(
                "`y` must hold integer classes for a likelihood with `ignore_class`. "
                f"Received: labels of shape {tuple(labels.shape)}, a number for each class"
            )
        log_p = self._log_probabilities(outputs, is_dense or bool(self.takes_one_hot))
        if is_dense:
            weights = ops.cast(labels, log_p.dtype)
        else:
            weights = ops.one_hot(_get_classes(labels, outputs), log_p.shape[-1], dtype=log_p.dtype)
        # A logit of minus infinity (an excluded class) counts only where it is the label.
        return -ops.sum(ops.where(weights != 0, weights * log_p, 0.0), axis=-1)

    def sample(self, outputs: Tensor, seed: keras.random.SeedGenerator) -> Tensor:
        """Draws a class per position from the prediction, int32 of shape `(batch, ...)`."""
        log_p = self._log_probabilities(outputs, bool(self.takes_one_hot))
        # The Gumbel-max trick, unlike a categorical draw, supports any number of axes and XLA.
        uniform = keras.random.uniform(
            ops.shape(log_p), minval=_smallest_uniform(log_p.dtype), dtype=log_p.dtype, seed=seed
        )
        return ops.argmax(log_p - ops.log(-ops.log(uniform)), axis=-1)

    def sample_uniform(self, outputs: Tensor, seed: keras.random.SeedGenerator) -> Tensor:
        """Draws a class per position uniformly, int32 of shape `(batch, ...)`."""
        classes = outputs.shape[-1]
        return keras.random.randint(ops.shape(outputs)[:-1], 0, classes, seed=seed)

    def num_outcomes(self, outputs: Tensor) -> int:
        """Returns the number of classes."""
        return outputs.shape[-1]

    def outcome(self, index: Tensor, outputs: Tensor) -> tuple[Any, Any]:
        """Returns class `index` for every position, and its probability."""
        p = ops.exp(self._log_probabilities(outputs, bool(self.takes_one_hot)))
        p = ops.take(p, index, axis=-1)
        return ops.zeros_like(p, dtype="int32") + ops.cast(index, "int32"), p

    def class_bound(self, labels: Tensor, outputs: Tensor) -> int | None:
        """Returns the number of classes if `labels` are integer classes."""
        return None if _is_dense(labels, outputs) else outputs.shape[-1]

    def counted(self, labels: Tensor) -> Any:
        """Returns a mask of `labels` other than `ignore_class`; `None` if that is `None`."""
        if self.ignore_class is None:
            return None
        return ops.not_equal(ops.cast(labels, "int32"), self.ignore_class)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        config: dict[str, Any] = {"from_logits": self.from_logits}
        if self.ignore_class is not None:
            config["ignore_class"] = self.ignore_class
        return config

    def _log_probabilities(self, outputs: Tensor, is_one_hot: bool) -> Any:
        if outputs.shape[-1] == 1:
            raise ValueError(
                "Categorical needs an output for each of at least 2 classes. Received: outputs of "
                f"shape {tuple(outputs.shape)}. Compile with keras.losses.BinaryCrossentropy "
                "for two classes and one output"
            )
        outputs, from_logits = _logits(outputs, self.from_logits)
        if from_logits:
            return ops.log_softmax(outputs, axis=-1)
        if backend.SPARSE_LOSS_CLIPS_FIRST and not is_one_hot:
            return ops.log(_normalise(_clip(outputs)))
        return ops.log(_clip(_normalise(outputs)))


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Bernoulli(Likelihood):
    """One bit per component: -log p(y) = -y log p - (1 - y) log(1 - p).

    Examples:
        >>> import numpy as np
        >>> from keras_fisher.likelihoods import Bernoulli
        >>> nll = Bernoulli().nll(np.array([1, 0]), np.array([[0.0], [2.0]]))
        >>> print(np.asarray(nll).round(4))
        [0.6931 2.1269]

    Args:
        from_logits: Whether outputs are logits (the default) or probabilities.

    Labels are numbers from 0 to 1, of the outputs' shape (a trailing axis of length 1 may be
    missing).
    """

    def __init__(self, from_logits: bool = True) -> None:
        self.from_logits = from_logits

    def observation_nll(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Returns -log p of each component, of the outputs' shape."""
        outputs, from_logits = _logits(outputs, self.from_logits)
        labels = _align_labels(labels, outputs)
        if from_logits:
            return ops.softplus(outputs) - labels * outputs
        p = _clip(outputs)
        return -labels * ops.log(p) - (1.0 - labels) * ops.log(1.0 - p)

    def sample(self, outputs: Tensor, seed: keras.random.SeedGenerator) -> Tensor:
        """Draws a bit per component from the prediction, of the outputs' shape."""
        return _draw_bits(self._probabilities(outputs), seed)

    def sample_uniform(self, outputs: Tensor, seed: keras.random.SeedGenerator) -> Tensor:
        """Draws a fair bit per component, of the outputs' shape."""
        return _draw_bits(0.5 * ops.ones_like(_promote(outputs)), seed)

    def num_outcomes(self, outputs: Tensor) -> int:
        """Returns 2: a bit is 0 or 1."""
        return 2

    def outcome(self, index: Tensor, outputs: Tensor) -> tuple[Any, Any]:
        """Returns bit `index` for every component, and its probability."""
        p = self._probabilities(outputs)
        bits = ops.zeros_like(p) + ops.cast(index, p.dtype)
        return bits, bits * p + (1.0 - bits) * (1.0 - p)

    def _probabilities(self, outputs: Tensor) -> Any:
        outputs, from_logits = _logits(outputs, self.from_logits)
        return ops.sigmoid(outputs) if from_logits else _clip(outputs)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"from_logits": self.from_logits}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Gaussian(Likelihood):
    """A real number per component: -log p(y) = (y - output)^2 / (2 variance) + constant.

    Examples:
        >>> import numpy as np
        >>> from keras_fisher.likelihoods import Gaussian
        >>> nll = Gaussian().nll(np.array([[1.0, 2.0]]), np.zeros((1, 2)))
        >>> print(np.asarray(nll))  # (1 + 4) / 2
        [2.5]

    Args:
        variance: The variance of each component. The default, 0.5, makes the negative
            log-likelihood equal to Keras's mean squared error.

    Labels have the outputs' shape (a trailing axis of length 1 may be missing).

    Raises:
        ValueError: if `variance` is not a finite number above 0.
    """

    def __init__(self, variance: float = 0.5) -> None:
        self.variance = arguments.check_positive("variance", variance)

    def observation_nll(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Returns the scaled squared error of each component, of the outputs' shape."""
        outputs = _promote(outputs)
        return ops.square(_align_labels(labels, outputs) - outputs) / (2.0 * self.variance)

    def sample(self, outputs: Tensor, seed: keras.random.SeedGenerator) -> Tensor:
        """Draws a number per component around the prediction, of the outputs' shape."""
        outputs = _promote(outputs)
        noise = keras.random.normal(ops.shape(outputs), dtype=outputs.dtype, seed=seed)
        return outputs + self.variance**0.5 * noise

    def num_outcomes(self, outputs: Tensor) -> int:
        """Returns 1: the gradient is linear in the label, so one outcome gives its mean square."""
        return 1

    def outcome(self, index: Tensor, outputs: Tensor) -> tuple[Any, Any]:
        """Returns labels one standard deviation away, which give the mean squared gradient."""
        outputs = _promote(outputs)
        return outputs + self.variance**0.5, ops.ones_like(outputs)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"variance": self.variance}


def check_likelihood(likelihood: Any) -> Likelihood | None:
    """Returns `likelihood`; raises unless it is a `Likelihood` or `None`."""
    if likelihood is None or isinstance(likelihood, Likelihood):
        return likelihood
    raise TypeError(
        "`likelihood` must be a keras_fisher.likelihoods.Likelihood (Categorical(), Bernoulli(), "
        f"Gaussian() or one of your own) or None. Received: {likelihood!r} "
        f"({type(likelihood).__name__})"
    )


def from_loss(loss: Tensor) -> Likelihood:
    """Returns the likelihood whose negative logarithm is the compiled `loss`.

    It excludes label smoothing, class and sample weights, and regularisers.

    Examples:
        >>> import keras
        >>> from keras_fisher import likelihoods
        >>> likelihoods.from_loss("mse").get_config()
        {'variance': 0.5}
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> likelihoods.from_loss(loss).get_config()
        {'from_logits': True}

    Args:
        loss: A loss as passed to `compile` (a name, a function or a `keras.losses.Loss`): sparse
            categorical, categorical or binary cross-entropy, or mean squared error.

    Returns:
        A `Categorical`, `Bernoulli` or `Gaussian` likelihood.

    Raises:
        ValueError: if the likelihood of the loss is unknown.
    """
    if loss is None:
        raise ValueError(
            "`loss` must be compiled, to know the likelihood of the model. Received: loss=None. "
            "Compile with a loss, or give likelihood= of keras_fisher.likelihoods"
        )
    if isinstance(loss, dict | list | tuple) and len(loss) == 1:
        return from_loss(*(loss.values() if isinstance(loss, dict) else loss))
    function, config = _find_function(loss)
    if function is keras.losses.mean_squared_error:
        return Gaussian()
    if function is keras.losses.binary_crossentropy:
        _refuse_unlike(loss, config)
        return Bernoulli(from_logits=bool(config.get("from_logits", False)))
    is_one_hot = function is keras.losses.categorical_crossentropy
    if is_one_hot or function is keras.losses.sparse_categorical_crossentropy:
        _refuse_unlike(loss, config)
        categorical = Categorical(
            from_logits=bool(config.get("from_logits", False)),
            ignore_class=config.get("ignore_class"),
        )
        categorical.takes_one_hot = is_one_hot
        return categorical
    raise ValueError(
        f"The likelihood of the compiled `loss` is not known. Received: {loss!r}. Compile with "
        "sparse categorical, categorical or binary cross-entropy or mean squared error, or give "
        f"likelihood= of keras_fisher.likelihoods. For this loss: {advise_likelihood(loss)}."
    )


def _find_function(loss: Tensor) -> tuple[Any, dict[str, Any]]:
    """Returns the function of a loss, and its arguments; `None` for a loss with its own `call`."""
    if isinstance(loss, str) and loss.lower() not in _CHOSEN_BY_LABELS:
        loss = keras.losses.get(loss)
    if not isinstance(loss, keras.losses.Loss):
        return loss, {}
    kind = keras.losses.MeanSquaredError
    if "call" in vars(loss) or any(
        getattr(type(loss), name) is not getattr(kind, name) for name in ("call", "__call__")
    ):
        return None, {}
    # Keras's losses wrap functions, but these have no public name. The public configuration omits
    # some arguments (the sparse loss omits its axis), and that of a subclass may omit others.
    return loss.fn, loss._fn_kwargs


def _refuse_unlike(loss: Tensor, config: dict[str, Any]) -> None:
    """Rejects the options of a cross-entropy that change the set of observations."""
    if config.get("axis", -1) != -1:
        raise ValueError(
            "The likelihood of the compiled `loss` is known for axis=-1 only. "
            f"Received: {loss!r} with axis={config['axis']!r}. For other axes, pass a "
            "`likelihood` of your own with a `class_bound`."
        )


def _weigh(values: Tensor, counted: Any) -> tuple[Any, Any]:
    """Returns the values, 0 where they do not count, and their 0 or 1 weights.

    Both have shape `(batch, observations)`.
    """
    counted = ops.cast(align_mask(counted, len(values.shape)), "bool")
    weights = ops.where(counted, ops.ones_like(values), ops.zeros_like(values))
    return _flatten(ops.where(counted, values, ops.zeros_like(values))), _flatten(weights)


def _flatten(values: Tensor) -> Any:
    """Reshapes to `(batch, observations)`."""
    return ops.reshape(values, (ops.shape(values)[0], -1))


def _promote(outputs: Tensor) -> Any:
    outputs = ops.convert_to_tensor(outputs)
    half = keras.backend.standardize_dtype(outputs.dtype) in ("float16", "bfloat16")
    return ops.cast(outputs, "float32") if half else outputs


def _logits(outputs: Tensor, from_logits: bool) -> tuple[Any, bool]:
    """Returns the outputs as Keras's losses see them, and whether they are logits.

    A softmax or sigmoid activation stores its logits on the tensor, where TensorFlow's losses read
    them, whatever `from_logits` says. Without them, the loss takes the logarithm of a clipped
    probability, which has no gradient where the model is nearly certain.
    """
    # The losses first cast outputs of another type, which drops the stored logits.
    is_cast = keras.backend.standardize_dtype(outputs.dtype) != keras.config.floatx()
    can_read = backend.LOSSES_READ_LOGITS and not is_cast
    logits = getattr(outputs, "_keras_logits", None) if can_read else None
    if logits is not None:
        outputs, from_logits = logits, True
    return _promote(outputs), from_logits


def _clip(p: Tensor) -> Any:
    epsilon = keras.config.epsilon()
    return ops.clip(p, epsilon, 1.0 - epsilon)


def _normalise(p: Tensor) -> Any:
    return p / ops.sum(p, axis=-1, keepdims=True)


def _is_dense(labels: Tensor, outputs: Tensor) -> bool:
    """Whether `labels` hold a number per class (one-hot or soft) rather than a class."""
    return len(labels.shape) == len(outputs.shape) and labels.shape[-1] == outputs.shape[-1]


def _get_classes(labels: Tensor, outputs: Tensor) -> Any:
    classes = labels
    if len(labels.shape) == len(outputs.shape) and labels.shape[-1] == 1:
        classes = ops.squeeze(labels, axis=-1)
    if len(classes.shape) != len(outputs.shape) - 1:
        raise ValueError(
            "`y` must hold a class for each position, or a number for each class. Received: "
            f"labels of shape {tuple(labels.shape)} for outputs of shape {tuple(outputs.shape)}"
        )
    return ops.cast(classes, "int32")


def _align_labels(labels: Tensor, outputs: Tensor) -> Any:
    """Returns labels in the shape of the outputs; raises instead of broadcasting them."""
    given, labels = tuple(labels.shape), ops.cast(labels, outputs.dtype)
    if len(labels.shape) == len(outputs.shape) - 1:
        labels = ops.expand_dims(labels, -1)
    elif len(labels.shape) == len(outputs.shape) + 1 and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, axis=-1)
    pairs = itertools.zip_longest(labels.shape, outputs.shape, fillvalue=0)
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        raise ValueError(
            "`y` must hold a number for each output. "
            f"Received: labels of shape {given} for outputs of shape {tuple(outputs.shape)}"
        )
    return labels


def _draw_bits(p: Tensor, seed: keras.random.SeedGenerator) -> Any:
    uniform = keras.random.uniform(ops.shape(p), dtype=p.dtype, seed=seed)
    return ops.cast(uniform < p, p.dtype)


def _smallest_uniform(dtype: Any) -> float:
    return 1e-300 if keras.backend.standardize_dtype(dtype) == "float64" else 1e-30
