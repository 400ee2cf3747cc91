"""The base class of likelihoods."""

from __future__ import annotations

import abc
from typing import Any

import keras
from keras import ops

from keras_fisher.backend.private_api.keras import get_mask
from keras_fisher.backend.types import Tensor
from keras_fisher.utils.masks import align_mask, combine_masks

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

    def nll(self, labels: Tensor, outputs: Tensor, present: Tensor | None = None) -> Tensor:
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

    def counted_nll(
        self, labels: Tensor, outputs: Tensor, present: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
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

    def nll_terms(self, labels: Tensor, outputs: Tensor, present: Tensor | None = None) -> Tensor:
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

    def mean_nll(self, labels: Tensor, outputs: Tensor, present: Tensor | None = None) -> Tensor:
        """Returns the mean of `nll` over the batch, a scalar."""
        return ops.mean(self.nll(labels, outputs, present))

    def counted(self, labels: Tensor) -> Tensor | None:
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

    def outcome(self, index: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
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


def check_likelihood(likelihood: Any) -> Likelihood | None:
    """Returns `likelihood`; raises unless it is a `Likelihood` or `None`."""
    if likelihood is None or isinstance(likelihood, Likelihood):
        return likelihood
    raise TypeError(
        "`likelihood` must be a keras_fisher.likelihoods.Likelihood (Categorical(), Bernoulli(), "
        f"Gaussian() or one of your own) or None. Received: {likelihood!r} "
        f"({type(likelihood).__name__})"
    )


def _weigh(values: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the values, 0 where they do not count, and their 0 or 1 weights.

    Both have shape `(batch, observations)`.
    """
    counted = ops.cast(align_mask(counted, len(values.shape)), "bool")
    weights = ops.where(counted, ops.ones_like(values), ops.zeros_like(values))
    return _flatten(ops.where(counted, values, ops.zeros_like(values))), _flatten(weights)


def _flatten(values: Tensor) -> Tensor:
    """Reshapes to `(batch, observations)`."""
    return ops.reshape(values, (ops.shape(values)[0], -1))
