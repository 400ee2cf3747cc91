"""The largest and smallest eigenvalues of the Hessian of the loss."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces.eigensolver import Eigenpairs, find_eigenpairs
from keras_fisher.traces.hessian_solver import HessianSolver, Multiply
from keras_fisher.traces.progress import DelayedProgress
from keras_fisher.utils import arguments

_SIGNS = {"largest": (1,), "smallest": (-1,), "both": (1, -1)}


@dataclasses.dataclass(frozen=True, eq=False)
class Eigenvalues:
    """Some eigenvalues of the Hessian, in decreasing order, and how accurate they are.

    For each value there is an eigenvalue of H that differs by at most its residual ||H v - value
    v||, where v is the unit vector found with it (Parlett, "The Symmetric Eigenvalue Problem",
    theorem 4.5.1). If the next eigenvalue is further away than that, by a gap, the value is even
    closer: within residual^2 / gap.

    Attributes:
        values: The eigenvalues, a float64 array in decreasing order.
        residuals: The residual of each value, computed from one more product with H.
        num_examples: The number of examples in the mean loss, without padding.
        num_products: The number of products with H that were computed.
        vectors: The eigenvectors, if they were asked for, a float64 array of shape
            `(eigenvalues, weights)`: unit vectors with the entries of all trainable weights, in
            the order of `model.trainable_weights`. Otherwise `None`.
    """

    values: np.ndarray
    residuals: np.ndarray
    num_examples: int
    num_products: int
    vectors: np.ndarray | None = dataclasses.field(default=None, repr=False)


def hessian_eigenvalues(
    model: keras.Model,
    data: Any,
    *,
    k: int = 5,
    which: str = "largest",
    rtol: float = 1e-5,
    max_products: int = 1000,
    return_vectors: bool = False,
    num_examples: int | None = None,
    batch_size: int = 128,
    likelihood: Likelihood | None = None,
    seed: int | None = None,
) -> Eigenvalues:
    """Measures the largest or smallest eigenvalues of the Hessian of the mean loss.

        H v_i = lambda_i v_i with lambda_1 >= ... >= lambda_n,

    where H is the Hessian that `hessian_trace` measures: with respect to the trainable weights, of
    the mean negative log-likelihood of the given labels over all of `data`. Products with H are
    exact, including second derivatives through batch, layer and group normalisation.

    The solver is the Lanczos method with thick restarts. It stops as soon as all residuals are
    accepted.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> x, y = np.random.rand(64, 8), np.random.randint(0, 3, 64)
        >>> found = kf.hessian_eigenvalues(model, (x, y), k=3, return_vectors=True, seed=0)
        >>> found.values.shape, found.vectors.shape
        ((3,), (3, 27))
        >>> bool(np.all(found.residuals <= 1e-5 * found.values[0]))
        True

    Args:
        model: A Keras model with one output; it may be uncompiled, or a `FisherPenaltyModel`.
        data: Arrays `(x, y)`, or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`). The batches are kept in memory.
        k: The number of eigenvalues to find at an end of the spectrum.
        which: "largest" for the k largest eigenvalues, "smallest" for the k smallest (the most
            negative) ones, or "both" for 2 k of them.
        rtol: The largest accepted residual, relative to the largest absolute eigenvalue. Products
            in float32 are exact enough for about 1e-6. Products in TensorFloat-32, which
            TensorFlow and JAX use on recent GPUs by default, may not be exact enough
            for the default.
        max_products: The maximum number of products with H. Ten to sixty are usual for a few of
            the largest eigenvalues, and a hundred or more for the smallest ones.
        return_vectors: Whether to fill in `vectors`. In either case, up to `max(4 k, 40)` float64
            vectors (`8 k` for "both") of the size of the model stay in memory.
        num_examples: Uses only the first `num_examples` examples; `None` uses all.
        batch_size: The number of examples of arrays processed at a time. It affects only speed and
            memory.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of the random vector to start from; `None` for a random one.

    Returns:
        `Eigenvalues`. Values and residuals are NaN if a product with H is not finite, as with NaN
        weights.

    Scaling and padding are those of `hessian_trace`.

    Lanczos finds a repeated eigenvalue only once. For k > 1, it therefore continues from a further
    random vector, until with 99% probability no eigenvalue is missing. A Hessian without negative
    eigenvalues has many near 0: to find the smallest ones, allow more products or a larger `rtol`.

    References: Wu & Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems",
    SIAM Journal on Matrix Analysis and Applications, 2000. Sagun, Evci, Güney, Dauphin & Bottou,
    "Empirical analysis of the Hessian of over-parametrized neural networks", 2017.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `which` is unknown, the model has fewer than k trainable weights (2 k for
            "both"), a number is not accepted, `data` is empty, holds fewer than `num_examples` or
            lacks labels, or the model has no known likelihood.
        numpy.linalg.LinAlgError: if the residuals are larger than accepted after `max_products`, or
            because of rounding.
        NotImplementedError: if an operation has no second derivative.
    """
    meter = HessianEigenvaluesMeter(
        model,
        k=k,
        which=which,
        rtol=rtol,
        max_products=max_products,
        likelihood=likelihood,
        seed=seed,
    )
    return meter(
        data,
        return_vectors=return_vectors,
        num_examples=num_examples,
        batch_size=batch_size,
        verbose=True,
    )


def sharpness(
    model: keras.Model,
    data: Any,
    *,
    rtol: float = 1e-5,
    max_products: int = 1000,
    num_examples: int | None = None,
    batch_size: int = 128,
    likelihood: Likelihood | None = None,
    seed: int | None = None,
) -> float:
    """Measures the sharpness: lambda_max, the largest eigenvalue of the Hessian of the mean loss.

    Gradient descent with the learning rate eta is unstable along the eigenvector of lambda_max if
    lambda_max is above 2 / eta; with full batches, training often stays near this value, at the
    "edge of stability" (Cohen, Kaur, Li, Kolter & Talwalkar, 2021).

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> x, y = np.random.rand(64, 8), np.random.randint(0, 3, 64)
        >>> 0 < kf.sharpness(model, (x, y)) < kf.hessian_trace(model, (x, y)).value
        True

    Args:
        model: A Keras model with one output; it may be uncompiled, or a `FisherPenaltyModel`.
        data: Arrays `(x, y)`, or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`). The batches are kept in memory.
        rtol: The largest accepted residual, as in `hessian_eigenvalues`.
        max_products: The maximum number of products with H.
        num_examples: Uses only the first `num_examples` examples; `None` uses all.
        batch_size: The number of examples of arrays processed at a time. It affects only speed and
            memory.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of the random vector to start from; `None` for a random one.

    Returns:
        lambda_max, a float: the value of `hessian_eigenvalues` with `k=1`, which also returns its
        residual.

    Raises:
        TypeError: as `hessian_eigenvalues` does.
        ValueError: as `hessian_eigenvalues` does.
        numpy.linalg.LinAlgError: as `hessian_eigenvalues` does.
        NotImplementedError: if an operation has no second derivative.
    """
    found = hessian_eigenvalues(
        model,
        data,
        k=1,
        rtol=rtol,
        max_products=max_products,
        num_examples=num_examples,
        batch_size=batch_size,
        likelihood=likelihood,
        seed=seed,
    )
    return float(found.values[0])


class HessianEigenvaluesMeter:
    """`hessian_eigenvalues`, compiled once for many measurements of one model.

    Args:
        model: A Keras model with one output.
        k: The number of eigenvalues to find at an end of the spectrum.
        which: "largest", "smallest" or "both".
        rtol: The largest accepted residual, relative to the largest absolute eigenvalue.
        max_products: The maximum number of products with H.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of the random vector to start from; `None` for a random one.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        k: int = 5,
        which: str = "largest",
        rtol: float = 1e-5,
        max_products: int = 1000,
        likelihood: Likelihood | None = None,
        seed: int | None = None,
    ) -> None:
        self._k, self._which, self._rtol, self._max_products = check_options(
            k, which, rtol, max_products
        )
        self._solver = HessianSolver(model, likelihood, seed)

    def __call__(
        self,
        data: Any,
        *,
        return_vectors: bool = False,
        num_examples: int | None = None,
        batch_size: int = 128,
        verbose: bool = False,
    ) -> Eigenvalues:
        """Measures over `data`; see the function of the same name for the arguments.

        With `verbose`, shows a progress bar after some seconds.
        """
        arguments.check_bool("return_vectors", return_vectors)
        progress = DelayedProgress(None, "product") if verbose else None
        found, hessian = self._solver.solve(self._find, data, num_examples, batch_size, progress)
        if found is None:
            vectors = np.full((len(_SIGNS[self._which]) * self._k, hessian.size), np.nan)
            found = Eigenpairs(vectors[:, 0], vectors, vectors[:, 0])
        return Eigenvalues(
            found.values,
            found.residuals,
            hessian.num_examples,
            hessian.num_products,
            found.vectors if return_vectors else None,
        )

    def check_labels(self, data: Any) -> None:
        """Raises for arrays with labels that are not classes of the outputs, if these are known."""
        self._solver.check_labels(data)

    @property
    def random_state(self) -> list[int]:
        """Generator state, for resuming."""
        return self._solver.random_state

    @random_state.setter
    def random_state(self, state: list[int]) -> None:
        self._solver.random_state = state

    def _find(self, multiply: Multiply, size: int, generator: np.random.Generator) -> Eigenpairs:
        signs = _SIGNS[self._which]
        most = size // len(signs)
        if self._k > most:
            raise ValueError(
                f"`k` must be at most {most} with which={self._which!r}, for {size} trainable "
                f"weights. Received: k={self._k}"
            )
        return find_eigenpairs(
            multiply,
            size,
            generator,
            k=self._k,
            signs=signs,
            rtol=self._rtol,
            max_products=self._max_products,
        )


def check_options(k: Any, which: Any, rtol: Any, max_products: Any) -> tuple[int, str, float, int]:
    """Returns the four arguments.

    Raises:
        TypeError: if a number has the wrong type.
        ValueError: if an argument is not accepted.
    """
    return (
        arguments.check_integer("k", k, low=1),
        arguments.check_choice("which", which, _SIGNS),
        arguments.check_positive("rtol", rtol),
        arguments.check_integer("max_products", max_products, low=1),
    )
