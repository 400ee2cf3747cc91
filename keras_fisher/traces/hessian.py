"""Tr(H), the trace of the Hessian of the loss, by Hutchinson's estimator or XTrace."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_fisher.backend.types import Tensor
from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces import xtrace
from keras_fisher.traces.estimate import Estimate, estimate
from keras_fisher.traces.hessian_meter import HessianMeter, KeptBatches
from keras_fisher.traces.labels import LabelledBatch
from keras_fisher.traces.quadratic_forms import QuadraticForms
from keras_fisher.utils import arguments
from keras_fisher.utils.messages import warn

_DISTRIBUTIONS = ("gaussian", "rademacher")
_ESTIMATORS = ("hutchinson", "xtrace")
# With `rtol`: the standard error of fewer probes is itself too uncertain to stop by.
_PROBES_BEFORE_STOPPING = 10
_PROBES_TO_ADD = 5


def hessian_trace(
    model: keras.Model,
    data: Any,
    *,
    num_probes: int = 30,
    distribution: str = "gaussian",
    estimator: str = "hutchinson",
    rtol: float | None = None,
    num_examples: int | None = None,
    batch_size: int = 128,
    by_layer: bool = False,
    likelihood: Likelihood | None = None,
    seed: int | None = None,
) -> Estimate:
    """Measures the trace of the Hessian of the mean loss, by Hutchinson's estimator or XTrace.

        Tr(H) = E_z [z^T H z], estimated by (1/M) sum_m z_m^T H z_m (appendix B),

    where H is the Hessian, with respect to the trainable weights, of the mean negative
    log-likelihood of the given labels over all of `data`, and the probes z_m have independent
    entries of mean 0 and variance 1. Each z^T H z is exact, including second derivatives through
    batch, layer and group normalisation.

    XTrace computes M/2 products H z_i. With Q_i an orthonormal basis of all of them but the i-th,
    and P_i = I - Q_i Q_i^T, it estimates

        Tr(H) by the mean of tr(Q_i^T H Q_i) + z_i^T P_i H P_i z_i over i,

    which takes M/2 more products with H. It is unbiased, too, and several times as precise if fewer
    than M/2 large eigenvalues make most of the trace, as in many trained models. With a flat
    spectrum, or too few products, Hutchinson's estimator is as precise or more.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> x, y = np.random.rand(64, 4), np.random.randint(0, 3, 64)
        >>> kf.hessian_trace(model, (x, y), num_probes=10, distribution="rademacher").count
        10
        >>> precise = kf.hessian_trace(model, (x, y), num_probes=2000, rtol=0.1, seed=0)
        >>> precise.stderr <= 0.1 * precise.value, precise.count < 2000
        (True, True)

    Args:
        model: A Keras model with one output; it may be uncompiled, or a `FisherPenaltyModel`.
        data: Arrays `(x, y)`, or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`).
        num_probes: M, the number of probes; the paper uses 30. With `rtol`, the maximum number.
        distribution: "gaussian" (as in the paper) or "rademacher" (entries 1 or -1), whose standard
            error is never larger, because the diagonal of H does not contribute to it.
        estimator: "hutchinson" or "xtrace". "xtrace" takes `num_probes`, which must be even, as
            the number of products with H. With TensorFlow, one can take three times as long as
            z^T H z. The batches and about six float64 arrays of shape `(num_probes / 2, weights)`
            are kept in memory.
        rtol: The relative standard error to reach; `None` uses all `num_probes`. With a number,
            10 probes are used, then 5 more at a time, until the standard error is at most `rtol`
            times the absolute value. If `num_probes` do not suffice, a warning is logged. With the
            same seed, the probes are the first ones of a measurement without `rtol`, and give the
            same values (on TensorFlow, up to rounding, if there are more than 100 products
            of probes and batches). The batches are kept in memory. Only for "hutchinson".
        num_examples: Uses only the first `num_examples` examples; `None` uses all.
        batch_size: The number of examples of arrays processed at a time. It affects only speed and
            memory. The first-order gradient is computed once per batch and reused by all probes.
        by_layer: Whether to fill in `layers`, the trace split by layer.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of the probes; `None` for a random one.

    Returns:
        An `Estimate` over probes, with the standard error of the estimator for this data, and the
        number of probes used as `count`. With "xtrace", `count` is `num_probes / 2`. Its standard
        error treats these estimates as independent. It holds if `count` is well above the number
        of large eigenvalues; otherwise, or if eigenvalues fall off slowly, it is too small, often
        by half and at worst several times. The estimate itself is unbiased.

    References: Hutchinson, "A stochastic estimator of the trace of the influence matrix for
    Laplacian smoothing splines", 1989. Epperly, Tropp & Webber, "XTrace: Making the most of every
    sample in stochastic trace estimation", SIAM Journal on Matrix Analysis and Applications, 2024.

    Scaling: the loss is the mean over examples (and over the positions of an example), without
    regularisers. Padding (masked by Keras, of weight 0 or with a label that the loss ignores) is
    excluded. If its lengths differ, Keras's loss is another one: the mean over all positions gives
    longer examples more weight.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `num_probes` is below 1 (with `rtol` below 2, with "xtrace" odd),
            `distribution` or `estimator` is unknown, `rtol` is not positive and finite or is given
            with "xtrace", `data` is empty, holds fewer than `num_examples` or lacks labels, or the
            model has no known likelihood.
        NotImplementedError: if an operation has no second derivative.
    """
    meter = HessianTraceMeter(
        model,
        num_probes=num_probes,
        distribution=distribution,
        estimator=estimator,
        rtol=rtol,
        likelihood=likelihood,
        seed=seed,
    )
    return meter(
        data, num_examples=num_examples, batch_size=batch_size, by_layer=by_layer, verbose=True
    )


class HessianTraceMeter(HessianMeter):
    """`hessian_trace`, compiled once for many measurements of one model; each draws new probes.

    Args:
        model: A Keras model with one output.
        num_probes: The number of probes; with `rtol`, the maximum number.
        distribution: "gaussian" or "rademacher".
        estimator: "hutchinson" or "xtrace".
        rtol: The relative standard error to reach; `None` uses all probes.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of the probes; `None` for a random one.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        num_probes: int = 30,
        distribution: str = "gaussian",
        estimator: str = "hutchinson",
        rtol: float | None = None,
        likelihood: Likelihood | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(model, likelihood)
        options = check_probes(num_probes, distribution, estimator, rtol)
        self._num_probes, self._distribution, self._estimator, self._rtol = options
        self._has_warned = False
        arguments.check_seed(seed)
        self._generator = keras.random.SeedGenerator(seed)

    def _compile(self) -> None:
        super()._compile()
        is_gaussian = self._distribution == "gaussian"
        self._forms = QuadraticForms(self._model, self._mean_nll, is_gaussian)

    def _measure(self, batches: Iterator[LabelledBatch], by_weight: bool) -> np.ndarray:
        assert self._generator is not None
        drawn = self._generator.next()
        if self._estimator == "xtrace":
            return self._measure_by_xtrace(KeptBatches(batches), drawn)
        seed = ops.cast(drawn, "int32")
        if self._rtol is None:
            return self._measure_probes(batches, np.arange(self._num_probes), seed, by_weight)
        kept = KeptBatches(batches)
        ends = [*range(_PROBES_BEFORE_STOPPING, self._num_probes, _PROBES_TO_ADD), self._num_probes]
        groups: list[np.ndarray] = []
        for start, end in itertools.pairwise([0, *ends]):
            groups.append(self._measure_probes(kept, np.arange(start, end), seed, by_weight))
            if not len(groups[0]):
                return groups[0]
            found = estimate(np.concatenate(groups))
            # More probes do not help if the standard error is NaN.
            if not found.stderr > self._rtol * abs(found.value):
                break
        else:
            self._warn_of_imprecision(found, self._rtol)
        return np.concatenate(groups)

    def _measure_probes(
        self,
        batches: Iterable[LabelledBatch],
        probes: np.ndarray,
        seed: Tensor,
        by_weight: bool,
    ) -> np.ndarray:
        """Returns z^T H z for the probes of these indices; empty if all data is padding."""
        found = self._mean(batches, lambda x, y: self._forms(x, y, probes, seed, by_weight))
        return np.empty((0, 1)) if found is None else found

    def _measure_by_xtrace(self, batches: KeptBatches, seed: Tensor) -> np.ndarray:
        """Returns XTrace's estimates, one for each pair of products; empty for only padding."""
        operator = self._make_operator(batches)
        if operator is None:
            return np.empty((0, 1))
        generator = np.random.default_rng(ops.convert_to_numpy(seed).astype("uint32"))
        shape = self._num_probes // 2, operator.size
        if self._distribution == "gaussian":
            probes: np.ndarray = generator.standard_normal(shape)
        else:
            probes = 2.0 * generator.integers(2, size=shape, dtype="int8") - 1.0
        return xtrace.compute_estimates(operator.multiply, probes, self._products.sizes)

    def _warn_of_imprecision(self, found: Estimate, rtol: float) -> None:
        """Warns, once per meter, that all probes were used before `rtol` was reached."""
        if self._has_warned:
            return
        self._has_warned = True
        accepted = rtol * abs(found.value)
        enough = ""
        if accepted:
            needed = found.count * (found.stderr / accepted) ** 2
            enough = f" About {float(f'{needed:.2g}'):,.0f} probes would be enough."
        warn(
            f"Tr(H) of model {self._model.name!r} has a standard error of {found.stderr:.3g} after "
            f"num_probes={found.count} probes. rtol={rtol} and its value, {found.value:.3g}, ask "
            f"for at most {accepted:.3g}.{enough} Increase `num_probes` or `rtol`."
        )


def check_probes(
    num_probes: Any, distribution: Any, estimator: Any, rtol: Any
) -> tuple[int, str, str, float | None]:
    """Returns the four arguments.

    Raises:
        TypeError: if a number has the wrong type.
        ValueError: if an argument is not accepted.
    """
    num_probes = arguments.check_integer("num_probes", num_probes, low=1)
    distribution = arguments.check_choice("distribution", distribution, _DISTRIBUTIONS)
    estimator = arguments.check_choice("estimator", estimator, _ESTIMATORS)
    if rtol is not None:
        rtol = arguments.check_positive("rtol", rtol)
        if estimator == "xtrace":
            raise ValueError(
                f"`rtol` must be None with estimator='xtrace'. Received: rtol={rtol}. "
                "Only estimator='hutchinson' can add probes"
            )
        if num_probes < 2:
            raise ValueError(
                "`num_probes` must be at least 2 with `rtol`: one probe has no standard error. "
                f"Received: num_probes={num_probes}, rtol={rtol}"
            )
    if estimator == "xtrace" and num_probes % 2:
        raise ValueError(
            "`num_probes` must be even with estimator='xtrace': each probe takes two products. "
            f"Received: num_probes={num_probes}"
        )
    return num_probes, distribution, estimator, rtol
