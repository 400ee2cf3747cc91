"""The likelihood of a compiled loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_fisher.backend.types import Tensor
from keras_fisher.likelihoods.bernoulli import Bernoulli
from keras_fisher.likelihoods.categorical import Categorical
from keras_fisher.likelihoods.gaussian import Gaussian
from keras_fisher.likelihoods.likelihood import Likelihood
from keras_fisher.likelihoods.loss_advice import advise_likelihood

# For these names Keras chooses the cross-entropy by the shape of the labels.
_CHOSEN_BY_LABELS = ("crossentropy", "ce")


def from_loss(loss: Any) -> Likelihood:
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


def _find_function(loss: Any) -> tuple[Callable[..., Tensor] | None, dict[str, Any]]:
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


def _refuse_unlike(loss: Any, config: dict[str, Any]) -> None:
    """Rejects the options of a cross-entropy that change the set of observations."""
    if config.get("axis", -1) != -1:
        raise ValueError(
            "The likelihood of the compiled `loss` is known for axis=-1 only. "
            f"Received: {loss!r} with axis={config['axis']!r}. For other axes, pass a "
            "`likelihood` of your own with a `class_bound`."
        )
