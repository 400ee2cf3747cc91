"""The density of the Hessian's eigenvalues, by stochastic Lanczos quadrature."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces.estimate import Estimate, estimate
from keras_fisher.traces.hessian_solver import HessianSolver, Multiply
from keras_fisher.traces.lanczos import KrylovSpace
from keras_fisher.traces.progress import DelayedProgress
from keras_fisher.utils import arguments


@dataclasses.dataclass(frozen=True, eq=False)
class SpectralDensity:
    """The density of a matrix's eigenvalues, phi(t) = (1/n) sum_i delta(t - lambda_i).

    Each random probe estimates it by point masses: weights at nodes, which sum to 1.

    Examples:
        >>> import numpy as np
        >>> from keras_fisher.traces import SpectralDensity
        >>> nodes, weights = np.array([[0.0, 4.0], [1.0, 4.0]]), np.array([[0.9, 0.1], [0.8, 0.2]])
        >>> density = SpectralDensity(nodes, weights, dimension=50, num_examples=8, num_products=4)
        >>> print(density.moment(1))
        1.00 ± 0.60 (count=2)
        >>> points = np.linspace(-1, 5, 601)
        >>> print(np.trapezoid(density.evaluate(points, width=0.1), points).round(4))
        1.0

    Attributes:
        nodes: The eigenvalues of each probe's tridiagonal matrix, a float64 array of shape
            `(num_probes, num_steps)`, in increasing order. The smallest and largest ones
            approximate the smallest and largest eigenvalues.
        weights: The weight of each node, of the same shape. The weights of a probe sum to 1.
        dimension: n, the number of eigenvalues: the number of trainable weights.
        num_examples: The number of examples in the mean loss, without padding.
        num_products: The number of products with the matrix that were computed.
    """

    nodes: np.ndarray = dataclasses.field(repr=False)
    weights: np.ndarray = dataclasses.field(repr=False)
    dimension: int
    num_examples: int
    num_products: int

    def evaluate(self, points: npt.ArrayLike, width: float | None = None) -> np.ndarray:
        """Returns the density at some points, smoothed by a normal distribution.

            phi_sigma(t) = (1/M) sum over probes and nodes of weight N(t; node, sigma^2).

        Its integral is 1.

        Args:
            points: Where to evaluate the density, an array. To cover the peaks at both ends, let
                it exceed the nodes by a few `width`.
            width: sigma, the standard deviation; `None` for 1 % of the range of the nodes. Points
                further apart than that miss peaks.

        Returns:
            A float64 array of the shape of `points`.

        Raises:
            TypeError: if `width` is not a number.
            ValueError: if `width` is not positive and finite, or is `None` where all nodes are
                equal.
        """
        if width is None and not np.ptp(self.nodes):
            raise ValueError("`width` must be given where all nodes are equal. Received: None")
        sigma = (
            np.ptp(self.nodes) / 100 if width is None else arguments.check_positive("width", width)
        )
        points = np.asarray(points, "float64")
        density = np.zeros(points.shape)
        for node, weight in zip(self.nodes.flat, self.weights.flat, strict=True):
            density += weight * np.exp(-0.5 * ((points - node) / sigma) ** 2)
        return density / (len(self.nodes) * sigma * (2 * np.pi) ** 0.5)

    def moment(self, order: int) -> Estimate:
        """Returns the mean of lambda^order over all n eigenvalues, tr(H^order) / n.

        A probe's moment is v^T H^order v if order < 2 `num_steps`, so its mean is exact. The trace
        of H is n times the first moment.

        Args:
            order: The power, an integer of at least 1.

        Returns:
            An `Estimate` over probes.

        Raises:
            TypeError: if `order` is not an integer.
            ValueError: if `order` is below 1, or at least 2 `num_steps` unless there are as many
                nodes as weights, or nodes of weight 0.
        """
        order = arguments.check_integer("order", order, low=1)
        num_steps = self.nodes.shape[1]
        is_whole = num_steps >= self.dimension or (self.weights == 0).any(axis=1).all()
        if order >= 2 * num_steps and not is_whole:
            raise ValueError(
                f"`order` must be below 2 num_steps = {2 * num_steps}, where the moments are "
                f"exact. Received: order={order}"
            )
        return estimate(np.sum(self.weights * self.nodes**order, axis=1, keepdims=True))


def spectral_density(
    model: keras.Model,
    data: Any,
    *,
    num_probes: int = 10,
    num_steps: int = 50,
    num_examples: int | None = None,
    batch_size: int = 128,
    likelihood: Likelihood | None = None,
    seed: int | None = None,
) -> SpectralDensity:
    """Measures the density of the Hessian's eigenvalues, by stochastic Lanczos quadrature.

        phi(t) = (1/n) sum_i delta(t - lambda_i) = E_v sum_i (u_i^T v)^2 delta(t - lambda_i),

    where H u_i = lambda_i u_i, and v is uniform on the unit sphere. H is the Hessian that
    `hessian_trace` measures: with respect to the n trainable weights, of the mean negative
    log-likelihood of the given labels over all of `data`. From each of M probes v, the Lanczos
    process makes a tridiagonal matrix T in m steps. With T y_j = theta_j y_j,

        phi(t) is estimated by (1/M) sum over probes and j of (e_1^T y_j)^2 delta(t - theta_j),

    the Gauss quadrature of the sum above, which is exact for polynomials of degree below 2 m. All
    Lanczos vectors are reorthogonalised, because rounding would make copies of large eigenvalues.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> x, y = np.random.rand(64, 8), np.random.randint(0, 3, 64)
        >>> density = kf.spectral_density(model, (x, y), num_probes=20, num_steps=10, seed=0)
        >>> density
        SpectralDensity(dimension=27, num_examples=64, num_products=200)
        >>> points = np.linspace(density.nodes.min() - 0.1, density.nodes.max() + 0.1, 1000)
        >>> values = density.evaluate(points, width=0.01)
        >>> trace = kf.hessian_trace(model, (x, y), num_probes=100, seed=0)
        >>> abs(density.dimension * density.moment(1).value - trace.value) < 0.2 * trace.value
        True

    Args:
        model: A Keras model with one output; it may be uncompiled, or a `FisherPenaltyModel`.
        data: Arrays `(x, y)`, or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`). The batches are kept in memory.
        num_probes: M, the number of random vectors. Their number sets the error of moments.
        num_steps: m, the number of Lanczos steps for each probe, and of nodes. It sets how far the
            density is resolved. As many float64 vectors of all weights are kept in memory.
        num_examples: Uses only the first `num_examples` examples; `None` uses all.
        batch_size: The number of examples of arrays processed at a time. It affects only speed and
            memory.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of the probes; `None` for a random one.

    Returns:
        A `SpectralDensity`. If there are fewer than `num_steps` weights, or in float64 fewer
        distinct eigenvalues, the surplus nodes have weight 0 and repeat the last value. In float32,
        rounding may make copies of eigenvalues, and nodes whose weight is about 1e-13. Nodes and
        weights are NaN if a product with H is not finite, as with NaN weights.

    Scaling and padding are those of `hessian_trace`. The density integrates to 1, so its first
    moment is Tr(H) / n.

    References: Ghorbani, Krishnan & Xiao, "An investigation into neural net optimization via
    Hessian eigenvalue density", ICML 2019. Ubaru, Chen & Saad, "Fast estimation of tr(f(A)) via
    stochastic Lanczos quadrature", SIAM Journal on Matrix Analysis and Applications, 2017. Golub &
    Welsch, "Calculation of Gauss quadrature rules", Mathematics of Computation, 1969.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if a number is below 1, `data` is empty, holds fewer than `num_examples` or
            lacks labels, or the model has no known likelihood.
        NotImplementedError: if an operation has no second derivative.
    """
    meter = SpectralDensityMeter(
        model, num_probes=num_probes, num_steps=num_steps, likelihood=likelihood, seed=seed
    )
    return meter(data, num_examples=num_examples, batch_size=batch_size, verbose=True)


class SpectralDensityMeter:
    """`spectral_density`, compiled once for many measurements of one model.

    Args:
        model: A Keras model with one output.
        num_probes: The number of random vectors.
        num_steps: The number of Lanczos steps for each.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of the probes; `None` for a random one.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        num_probes: int = 10,
        num_steps: int = 50,
        likelihood: Likelihood | None = None,
        seed: int | None = None,
    ) -> None:
        self._shape = (
            arguments.check_integer("num_probes", num_probes, low=1),
            arguments.check_integer("num_steps", num_steps, low=1),
        )
        self._solver = HessianSolver(model, likelihood, seed)

    def __call__(
        self,
        data: Any,
        *,
        num_examples: int | None = None,
        batch_size: int = 128,
        verbose: bool = False,
    ) -> SpectralDensity:
        """Measures over `data`; see the function of the same name for the arguments.

        With `verbose`, shows a progress bar after some seconds.
        """
        num_probes, num_steps = self._shape
        progress = DelayedProgress(num_probes * num_steps, "product") if verbose else None
        found, hessian = self._solver.solve(self._find, data, num_examples, batch_size, progress)
        nodes, weights = np.full((2, *self._shape), np.nan) if found is None else found
        return SpectralDensity(
            nodes, weights, hessian.size, hessian.num_examples, hessian.num_products
        )

    def _find(
        self, multiply: Multiply, size: int, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the nodes and the weights, shape `(num_probes, num_steps)`."""
        num_probes, num_steps = self._shape
        starts = (generator.standard_normal(size) for _ in range(num_probes))
        rules = [quadrature(multiply, start, num_steps) for start in starts]
        nodes, weights = zip(*rules, strict=True)
        return np.array(nodes), np.array(weights)


def quadrature(
    multiply: Multiply, start: np.ndarray, num_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nodes and weights of the Gauss quadrature of v^T f(A) v, v = start / ||start||.

    Args:
        multiply: Maps vectors, shape `(1, n)`, to their products with a symmetric matrix A.
        start: A vector, shape `(n,)`, other than 0.
        num_steps: The number of nodes.
    """
    capacity = min(num_steps, len(start))
    space = KrylovSpace(multiply, start, capacity)
    space.extend()
    while space.beta and space.size < capacity:
        space.extend()
    nodes, vectors = np.linalg.eigh(space.projection)
    missing = 0, num_steps - len(nodes)
    return np.pad(nodes, missing, "edge"), np.pad(vectors[0] ** 2, missing)
