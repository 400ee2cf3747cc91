"""Tr(H), the trace of the Hessian of the loss, by Hutchinson's estimator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces.data import batches, length
from keras_fisher.traces.estimate import Estimate
from keras_fisher.traces.labels import Labels
from keras_fisher.traces.meter import Meter
from keras_fisher.traces.quadratic_forms import QuadraticForms, Values
from keras_fisher.utils import arguments

_DISTRIBUTIONS = ("gaussian", "rademacher")


def hessian_trace(
    model: keras.Model,
    data: Any,
    *,
    num_probes: int = 30,
    distribution: str = "gaussian",
    num_examples: int | None = None,
    batch_size: int = 128,
    by_layer: bool = False,
    likelihood: Likelihood | None = None,
    seed: int | None = None,
) -> Estimate:
    """Measures the trace of the Hessian of the mean loss, by Hutchinson's estimator.

        Tr(H) = E_z [z^T H z], estimated by (1/M) sum_m z_m^T H z_m (appendix B),

    where H is the Hessian, with respect to the trainable weights, of the mean negative
    log-likelihood of the given labels over all of `data`, and the probes z_m have independent
    entries of mean 0 and variance 1. Each z^T H z is exact, including second derivatives through
    batch, layer and group normalisation.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> x, y = np.random.rand(64, 4), np.random.randint(0, 3, 64)
        >>> kf.hessian_trace(model, (x, y), num_probes=10, distribution="rademacher").count
        10

    Args:
        model: A Keras model with one output, compiled or not, in a `FisherPenaltyModel` or not.
        data: Arrays `(x, y)`, or a `tf.data.Dataset` of such batches.
        num_probes: M, the number of probes; the paper uses 30.
        distribution: "gaussian" (as in the paper) or "rademacher" (entries 1 or -1), whose standard
            error is never larger, because the diagonal of H does not contribute to it.
        num_examples: The number of examples to use, from the first; `None` for all.
        batch_size: The number of examples of arrays processed at a time. It affects only speed and
            memory. The first-order gradient is computed once per batch and reused by all probes.
        by_layer: Whether to fill in `layers`, the trace split by layer.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of the probes; `None` for a random one.

    Returns:
        An `Estimate` over probes, with the standard error of the estimator for this data.

    Scaling: the loss is the mean over examples (and over the positions of an example), without
    regularisers. Padding (masked by Keras, of weight 0 or with a label that the loss ignores) is
    excluded.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `num_probes` is below 1, `distribution` is unknown, `data` is empty, holds
            fewer than `num_examples` or lacks labels, or the model has no known likelihood.
        NotImplementedError: if an operation has no second derivative.
    """
    meter = HessianTraceMeter(
        model, num_probes=num_probes, distribution=distribution, likelihood=likelihood, seed=seed
    )
    return meter(
        data, num_examples=num_examples, batch_size=batch_size, by_layer=by_layer, verbose=True
    )


class HessianTraceMeter(Meter):
    """`hessian_trace`, compiled once for many measurements of one model; each draws new probes.

    Args:
        model: A Keras model with one output.
        num_probes: The number of probes.
        distribution: "gaussian" or "rademacher".
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of the probes; `None` for a random one.
    """

    _read = staticmethod(batches)

    def __init__(
        self,
        model: keras.Model,
        *,
        num_probes: int = 30,
        distribution: str = "gaussian",
        likelihood: Likelihood | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(model, likelihood)
        self._num_probes = arguments.check_integer("num_probes", num_probes, low=1)
        self._distribution = arguments.check_choice("distribution", distribution, _DISTRIBUTIONS)
        arguments.check_seed(seed)
        self._generator = keras.random.SeedGenerator(seed)

    def _compile(self) -> None:
        is_gaussian = self._distribution == "gaussian"
        self._forms = QuadraticForms(self._model, self._mean_nll, is_gaussian)

    def _measure(self, batches: Iterator[tuple[Any, Labels]], by_weight: bool) -> np.ndarray:
        assert self._generator is not None
        seed = ops.cast(self._generator.next(), "int32")
        total: Any = 0.0
        examples = 0
        for x, labels in batches:
            size, with_data = length(x), self._with_data(x, labels)
            forms = self._forms(x, labels, self._num_probes, seed, by_weight)
            total = total + size * forms
            examples += size if with_data is None else int(with_data.sum())
        return total / examples if examples else np.empty((0, 1))

    def _mean_nll(self, x: Any, labels: Labels, values: Values) -> Any:
        outputs = self._outputs(x, values)
        # Terms of single examples do not depend on padding elsewhere in the batch.
        terms = self._likelihood.nll_terms(labels.y, outputs, **labels.padding)
        return ops.mean(ops.sum(terms, axis=-1))
