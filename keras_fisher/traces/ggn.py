"""The trace of the generalised Gauss-Newton matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_fisher.backend.types import Tensor
from keras_fisher.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood
from keras_fisher.traces.estimate import Estimate
from keras_fisher.traces.fisher import FisherTraceMeter
from keras_fisher.traces.labels import Expected, Given, Labels, Sampled

_CANONICAL = (Categorical, Bernoulli, Gaussian)


def ggn_trace(
    model: keras.Model,
    data: Any,
    *,
    labels: str = "expected",
    num_examples: int | None = None,
    batch_size: int = 128,
    by_layer: bool = False,
    likelihood: Likelihood | None = None,
    seed: int | None = None,
) -> Estimate:
    """Measures the trace of the generalised Gauss-Newton matrix (GGN) of the mean loss.

        G = (1/N) sum_n J_n^T A_n J_n,

    where J_n is the Jacobian of the outputs for example n with respect to the trainable weights,
    and A_n is the Hessian of its negative log-likelihood with respect to the outputs: the logits of
    a categorical or Bernoulli likelihood (also if the model returns probabilities) or the means of
    a Gaussian one. G is the part of the Hessian H that `hessian_trace` measures without the
    curvature of the network:

        H = G + (1/N) sum_n sum_c (d l_n / d f_c) * (Hessian of the output f_c).

    For these likelihoods, A_n is the same for all labels, so it is the Fisher information of the
    outputs, and G is the Fisher information matrix of the weights (Martens, 2020, section 9). With
    one label per example,

        Tr(G) = Tr(F) = E_x E_{y^ ~ p(y|x)} ||d/dw l(x, y^)||^2,

    which the closed forms of `fisher_trace` compute: no Jacobian or Hessian is needed. With T
    observations per example (positions, or components of a vector), Tr(G) is T times the value of
    `fisher_trace`, because the loss is their mean.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> x, y = np.random.rand(64, 4), np.random.randint(0, 3, 64)
        >>> ggn = kf.ggn_trace(model, (x, None))
        >>> bool(np.isclose(ggn, kf.fisher_trace(model, (x, None), labels="expected")).all())
        True

        A linear model has no curvature of its own, so its Hessian is G:

        >>> hessian = kf.hessian_trace(model, (x, y), num_probes=1000, distribution="rademacher")
        >>> abs(hessian.value - ggn.value) < 5 * hessian.stderr
        True

    Args:
        model: A Keras model with one output; it may be uncompiled, or a `FisherPenaltyModel`.
        data: Arrays `(x, y)`, or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`). Labels do not enter the matrix: `(x,
            None)` or batches of x are enough. Padding is marked as in `fisher_trace`.
        labels: "expected" sums exactly over all labels (for C classes and T positions in C T
            passes); "sampled" draws one label for each observation from the model's prediction, in
            one pass.
        num_examples: Uses only the first `num_examples` examples; `None` uses all.
        batch_size: The number of examples of arrays measured at a time. It affects speed and memory
            (and which labels a seed draws).
        by_layer: Whether to fill in `layers`, the trace split by layer.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of drawn labels; `None` for a random one.

    Returns:
        An `Estimate` over examples.

    Scaling and padding are those of `hessian_trace`.

    References: Schraudolph, "Fast curvature matrix-vector products for second-order gradient
    descent", Neural Computation, 2002. Martens, "New insights and perspectives on the natural
    gradient method", Journal of Machine Learning Research 21, 2020.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if the likelihood is not one of this package (of others, the outputs need not be
            natural parameters, and G is another matrix than F), `data` is empty or holds fewer than
            `num_examples`, `labels` is unknown, or an example's outputs depend on the rest of the
            batch.
    """
    meter = GGNTraceMeter(model, labels=labels, likelihood=likelihood, seed=seed)
    return meter(
        data, num_examples=num_examples, batch_size=batch_size, by_layer=by_layer, verbose=True
    )


class _ExpectedOfMean(Expected):
    """Expected labels, with the factor between the joint and the mean likelihood."""

    def values(self, labels: Any, outputs: Tensor) -> Tensor:
        values = super().values(labels, outputs)
        return values * _root_observations(self._likelihood, labels[0], outputs)


class _SampledOfMean(Sampled):
    """Sampled labels, with the factor between the joint and the mean likelihood."""

    def values(self, labels: Labels, outputs: Tensor) -> Tensor:
        values = super().values(labels, outputs)
        return values * _root_observations(self._likelihood, labels, outputs)


class GGNTraceMeter(FisherTraceMeter):
    """`ggn_trace`, compiled once for many measurements of one model.

    Args:
        model: A Keras model with one output.
        labels: "expected" or "sampled".
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of drawn labels; `None` for a random one.
    """

    _kinds: Mapping[str, type[Given]] = {"expected": _ExpectedOfMean, "sampled": _SampledOfMean}

    def __init__(
        self,
        model: keras.Model,
        *,
        labels: str = "expected",
        likelihood: Likelihood | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(model, labels=labels, likelihood=likelihood, seed=seed)
        _check_canonical(self._likelihood)


def _check_canonical(likelihood: Likelihood) -> None:
    """Raises unless the GGN is the Fisher information for a likelihood."""
    for kind in _CANONICAL:
        if isinstance(likelihood, kind) and all(
            getattr(type(likelihood), name) is getattr(kind, name)
            for name in ("observation_nll", "outcome")
        ):
            return
    raise ValueError(
        "`likelihood` must be Categorical, Bernoulli or Gaussian for the GGN, which is then the "
        f"Fisher information. Received: {type(likelihood).__name__}, whose GGN may be another "
        "matrix. Use fisher_trace or hessian_trace"
    )


def _root_observations(likelihood: Likelihood, labels: Labels, outputs: Tensor) -> Tensor:
    """Returns the square root of the number of observations in each example, shape `(batch,)`.

    The loss is a mean over T observations, and so is G, but squared gradients have 1 / T^2.
    """
    values, fractions = likelihood.counted_nll(labels.y, outputs, labels.present)
    observations = ops.shape(likelihood.nll_terms(labels.y, outputs, labels.present))[-1]
    observations = ops.cast(observations, values.dtype)
    return ops.sqrt(observations if fractions is None else observations * fractions)
