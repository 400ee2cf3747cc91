"""Extremal eigenvalues of a symmetric matrix from products with vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_fisher.traces.hessian_solver import Multiply
from keras_fisher.traces.lanczos import KrylovSpace

# The basis has at least so many vectors before a restart ...
_MIN_VECTORS = 40
# ... and so many more than twice the eigenvalues before it is accepted though it is invariant.
_INVARIANT = 10


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

    The space of vectors grows by one product at a time until all residuals are accepted, and is
    reduced to about half whenever it has `max(4 k, 40)` vectors (8 k for both ends). A smaller
    matrix is solved completely.

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
    norm, vectors = _iterate(limited, size, generator, k, signs, rtol)
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


def _iterate(
    multiply: Multiply,
    size: int,
    generator: np.random.Generator,
    k: int,
    signs: Sequence[int],
    rtol: float,
) -> tuple[float, np.ndarray]:
    """Returns ||A||, and the eigenvectors as rows, by the thick-restart Lanczos method."""
    wanted = k * len(signs)
    capacity = min(size, max(4 * wanted, _MIN_VECTORS))
    space = KrylovSpace(multiply, generator.standard_normal(size), capacity)
    while True:
        space.extend()
        values, vectors = np.linalg.eigh(space.projection)
        norm = float(np.max(np.abs(values)))
        if space.size == size:
            break
        # An invariant space says nothing about the rest, nor how often its eigenvalues occur.
        is_invariant = space.beta <= rtol * norm
        enough = 2 * wanted + _INVARIANT if is_invariant else wanted
        if capacity < size and space.size >= enough:
            residuals = space.beta * np.abs(vectors[-1, _find_ends(space.size, k, signs)])
            # The other half is for the rounding of products.
            if np.max(residuals) <= rtol / 2 * norm:
                break
        if space.size == capacity:
            kept = _find_ends(capacity, (capacity + wanted) // 2 // len(signs), signs)
            space.restart(values[kept], vectors[:, kept])
        if not space.beta:
            space.set_next(generator.standard_normal(size))
    return norm, vectors[:, _find_ends(space.size, k, signs)].T @ space.basis


def _find_ends(size: int, k: int, signs: Sequence[int]) -> np.ndarray:
    """Returns the indices of k values at one or both ends, of values in increasing order."""
    ends = {1: np.arange(size - k, size), -1: np.arange(k)}
    return np.concatenate([ends[sign] for sign in signs])


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
