"""The likelihood of one class per position."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.types import Tensor
from keras_fisher.likelihoods.likelihood import Likelihood
from keras_fisher.likelihoods.outputs import clip, read_logits


@keras.saving.register_keras_serializable(package="keras_fisher")
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
        is_dense = self._is_dense(labels, outputs)
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

    def outcome(self, index: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns class `index` for every position, and its probability."""
        p = ops.exp(self._log_probabilities(outputs, bool(self.takes_one_hot)))
        p = ops.take(p, index, axis=-1)
        return ops.zeros_like(p, dtype="int32") + ops.cast(index, "int32"), p

    def class_bound(self, labels: Tensor, outputs: Tensor) -> int | None:
        """Returns the number of classes if `labels` are integer classes."""
        return None if self._is_dense(labels, outputs) else outputs.shape[-1]

    def counted(self, labels: Tensor) -> Tensor | None:
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

    def _is_dense(self, labels: Tensor, outputs: Tensor) -> bool:
        """Whether `labels` hold a number per class (one-hot or soft) rather than a class."""
        if len(labels.shape) != len(outputs.shape):
            return False
        size = labels.shape[-1]  # unknown in a dataset without shapes
        return size == outputs.shape[-1] or (size is None and bool(self.takes_one_hot))

    def _log_probabilities(self, outputs: Tensor, is_one_hot: bool) -> Tensor:
        if outputs.shape[-1] == 1:
            raise ValueError(
                "Categorical needs an output for each of at least 2 classes. Received: outputs of "
                f"shape {tuple(outputs.shape)}. Compile with keras.losses.BinaryCrossentropy "
                "for two classes and one output"
            )
        outputs, from_logits = read_logits(outputs, self.from_logits)
        if from_logits:
            return ops.log_softmax(outputs, axis=-1)
        if backend.SPARSE_LOSS_CLIPS_FIRST and not is_one_hot:
            return ops.log(_normalise(clip(outputs)))
        return ops.log(clip(_normalise(outputs)))


def _normalise(p: Tensor) -> Tensor:
    return p / ops.sum(p, axis=-1, keepdims=True)


def _get_classes(labels: Tensor, outputs: Tensor) -> Tensor:
    classes = labels
    if len(labels.shape) == len(outputs.shape) and labels.shape[-1] == 1:
        classes = ops.squeeze(labels, axis=-1)
    if len(classes.shape) != len(outputs.shape) - 1:
        raise ValueError(
            "`y` must hold a class for each position, or a number for each class. Received: "
            f"labels of shape {tuple(labels.shape)} for outputs of shape {tuple(outputs.shape)}"
        )
    return ops.cast(classes, "int32")


def _smallest_uniform(dtype: Any) -> float:
    return 1e-300 if keras.backend.standardize_dtype(dtype) == "float64" else 1e-30
