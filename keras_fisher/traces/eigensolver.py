"""Extremal eigenvalues of a symmetric matrix from products with vectors, by SciPy's ARPACK."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_fisher.traces.hessian_solver import Multiply
from keras_fisher.traces.lanczos import tridiagonalise

# They give a norm that is right to a few percent, which is enough to scale the tolerance by.
_STEPS_FOR_NORM = 10


class Eigenpairs(NamedTuple):
    """Eigenvalues in decreasing order, their eigenvectors as rows, and their residuals."""

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray


def find_eigenpairs(
    multiply: Multiply,
    size: int,
    generator: np.random.Generator,
    *,
    k: int,
    signs: Sequence[int],
    rtol: float,
    max_products: int,
) -> Eigenpairs:
    """Returns the k largest eigenvalues of A, the k smallest ones, or both.

    Both ends are found as the largest eigenvalues of sign A / ||A|| + 2 I, which are all between 1
    and 3. ARPACK accepts a residual relative to its eigenvalue, which for A itself no eigenvalue
    near 0 would reach.

    Args:
        multiply: Maps vectors, shape `(num_vectors, size)`, to their products with A.
        size: The number of rows of A.
        generator: Draws the start vectors.
        k: The number of eigenvalues at an end.
        signs: 1 for the largest eigenvalues, -1 for the smallest ones, in this order.
        rtol: The largest accepted residual, relative to ||A||.
        max_products: The maximum number of products with A.

    Raises:
        numpy.linalg.LinAlgError: if a residual is larger than accepted.
    """
    limited = _limit(multiply, max_products - k * len(signs), max_products)
    if size <= max(2 * k + 1, 20):  # the number of vectors that ARPACK would keep
        norm, vectors = _solve_dense(limited, size, k, signs)
    else:
        norm = _estimate_norm(limited, generator.standard_normal(size))
        scales = [sign / (norm or 1.0) for sign in signs]
        starts = generator.standard_normal((len(signs), size))
        ends = zip(starts, scales, strict=True)
        vectors = np.concatenate([_iterate(limited, *end, k=k, rtol=rtol) for end in ends])
    products = multiply(vectors)
    values = np.sum(vectors * products, axis=1)
    residuals = np.linalg.norm(products - values[:, np.newaxis] * vectors, axis=1)
    accepted = rtol * max(norm, np.max(np.abs(values)))
    if np.max(residuals) > accepted:
        raise np.linalg.LinAlgError(
            f"`rtol` is too small for the rounding of products with the Hessian. Received: "
            f"rtol={rtol}, which accepts a residual of {accepted:.2g}, and a residual of "
            f"{np.max(residuals):.2g}. Increase `rtol`, or compute in float64"
        )
    order = np.argsort(-values)
    return Eigenpairs(values[order], vectors[order], residuals[order])


def check_scipy() -> None:
    """Raises unless SciPy is installed."""
    try:
        import scipy.sparse.linalg  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Eigenvalues of the Hessian need SciPy: pip install keras-fisher[eigenvalues]"
        ) from error


def _solve_dense(
    multiply: Multiply, size: int, k: int, signs: Sequence[int]
) -> tuple[float, np.ndarray]:
    """Returns ||A|| and the eigenvectors of both or one of the ends."""
    matrix = multiply(np.eye(size))
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    ends = {1: vectors.T[size - k :], -1: vectors.T[:k]}
    return float(np.max(np.abs(values))), np.concatenate([ends[sign] for sign in signs])


def _estimate_norm(multiply: Multiply, start: np.ndarray) -> float:
    """Returns ||A||, by a few steps of the Lanczos process from below."""
    return float(np.linalg.norm(tridiagonalise(multiply, start, _STEPS_FOR_NORM), 2))


def _iterate(
    multiply: Multiply, start: np.ndarray, scale: float, *, k: int, rtol: float
) -> np.ndarray:
    """Returns the eigenvectors of the k largest eigenvalues of scale A + 2 I, as rows."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    def multiply_shifted(vector: np.ndarray) -> Any:
        vector = vector.ravel()
        return scale * multiply(vector[np.newaxis])[0] + 2 * vector

    shifted = LinearOperator((len(start), len(start)), matvec=multiply_shifted, dtype="float64")
    # `multiply` raises long before so many restarts.
    most = np.iinfo("int32").max
    _, vectors = eigsh(shifted, k, which="LA", v0=start, tol=rtol / 3, maxiter=most)
    return vectors.T


def _limit(multiply: Multiply, limit: int, max_products: int) -> Multiply:
    """Returns `multiply`, which raises before more than `limit` products."""
    used = 0

    def limited(vectors: np.ndarray) -> np.ndarray:
        nonlocal used
        used += len(vectors)
        if used > limit:
            raise np.linalg.LinAlgError(
                "`max_products` must be large enough for the eigenvalues to converge. Received: "
                f"max_products={max_products}. Increase `max_products` or `rtol`"
            )
        return multiply(vectors)

    return limited
