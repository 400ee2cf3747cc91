"""The kinds of labels of a Fisher trace.

Each kind draws labels from the outputs of a batch, and computes the per-example losses whose
squared gradient norms are measured. Padded observations do not contribute. `passes` lists the
further arguments of `draw` for each pass; the squared norms of all passes are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import keras
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.types import Tensor
from keras_fisher.likelihoods import Likelihood
from keras_fisher.utils import arguments
from keras_fisher.utils.seeds import spread_seed

Passes = list[tuple[int, ...]]


class Labels(NamedTuple):
    """The labels of a batch and their mask, tensors of shape `(batch, ...)`.

    Attributes:
        y: The labels; empty if they are not needed.
        where: A mask of the observations that are data; empty if all are.
    """

    y: Tensor | tuple[()] = ()
    where: Tensor | tuple[()] = ()

    @property
    def present(self) -> Tensor | None:
        """A mask of the observations that are data; `None` if all are."""
        return None if isinstance(self.where, tuple) else self.where


LabelledBatch: TypeAlias = tuple[Any, Labels]
"""The inputs of a batch, a structure of tensors of shape `(batch, ...)`, and its labels."""


class Given:
    """The labels of the data (the empirical Fisher)."""

    needs_labels = True
    generator: keras.random.SeedGenerator | None = None

    def __init__(self, likelihood: Likelihood, seed: int | None) -> None:
        self._likelihood = likelihood

    def passes(self, outputs: Tensor) -> Passes:
        return [()]

    def draw(self, outputs: Tensor, labels: Labels) -> Labels:
        return labels

    def values(self, labels: Labels, outputs: Tensor) -> Tensor:
        return ops.sum(self._likelihood.nll_terms(labels.y, outputs, labels.present), axis=-1)


class Sampled(Given):
    """Labels drawn from the model's own prediction."""

    needs_labels = False

    def __init__(self, likelihood: Likelihood, seed: int | None) -> None:
        super().__init__(likelihood, seed)
        if backend.ADDS_UP_SEEDS:  # Neighbouring seeds would share their draws.
            seed = spread_seed(seed, "traces")
        self.generator = keras.random.SeedGenerator(seed)
        self._sample = likelihood.sample

    def draw(self, outputs: Tensor, labels: Labels) -> Labels:
        drawn = self._sample(outputs, self.generator)
        return labels._replace(y=ops.stop_gradient(drawn))


class Uniform(Sampled):
    """Labels drawn uniformly from the label set."""

    def __init__(self, likelihood: Likelihood, seed: int | None) -> None:
        super().__init__(likelihood, seed)
        if type(likelihood).sample_uniform is Likelihood.sample_uniform:
            raise ValueError(
                "labels='uniform' needs a likelihood with a finite label set. "
                f"Received: {type(likelihood).__name__}. Use labels='given' or 'sampled'."
            )
        self._sample = likelihood.sample_uniform


class Expected(Given):
    """The exact expectation over all labels of an example.

    The observations of an example are independent given the outputs, and their gradients have mean
    zero. So E ||sum_t g_t||^2 = sum_t sum_k p_tk ||g_tk||^2: one pass for each observation t and
    outcome k, with the square root of the probability as a factor of the loss.
    """

    needs_labels = False

    def passes(self, outputs: Tensor) -> Passes:
        outcomes = self._likelihood.num_outcomes(outputs)
        labels, _ = self._likelihood.outcome(0, outputs)
        observations = self._likelihood.nll_terms(labels, outputs).shape[-1]
        return [(t, k) for t in range(observations) for k in range(outcomes)]

    def draw(self, outputs: Tensor, labels: Labels, *arguments: Tensor) -> Any:
        observation, outcome = arguments
        y, p = self._likelihood.outcome(outcome, outputs)
        p = ops.reshape(p, (ops.shape(p)[0], -1))  # which has no static size if an axis has none
        is_observed = ops.equal(ops.arange(ops.shape(p)[-1]), observation)
        factors = ops.sqrt(p) * ops.cast(is_observed, p.dtype)
        return labels._replace(y=ops.stop_gradient(y)), ops.stop_gradient(factors)

    def values(self, labels: Any, outputs: Tensor) -> Tensor:
        labels, factors = labels
        terms = self._likelihood.nll_terms(labels.y, outputs, labels.present)
        return ops.sum(terms * ops.cast(factors, terms.dtype), axis=-1)


def choose_labels(
    labels: str, kinds: Mapping[str, type[Given]], likelihood: Likelihood, seed: int | None
) -> Given:
    """Returns the kind of labels of that name; raises for an unknown name."""
    kind = kinds[arguments.check_choice("labels", labels, kinds)]
    return kind(likelihood, arguments.check_seed(seed))
