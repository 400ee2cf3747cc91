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
# The part of the expected residual below which no eigenvalue is missing (with 99% probability).
_NEXT_SHARE = 0.01


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
    reduced to about half whenever it has `max(4 k, 40)` vectors (8 k for both ends). For k > 1, it
    then grows from a further random vector, to find eigenvalues that occur several times. A smaller
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
    """Returns ||A||, and the eigenvectors as rows.

    A Krylov space has one eigenvector of an eigenvalue, however often that occurs. So the process
    continues from another random vector, outside of the space, until no eigenvalue changes.
    """
    capacity = min(size, max(4 * k * len(signs), _MIN_VECTORS))
    space = KrylovSpace(multiply, generator.standard_normal(size), capacity)
    values, vectors = _extend(space, generator, k, signs, rtol, is_repeated=False)
    while k > 1 and space.size < size:
        ends = _find_ends(space.size, k, signs)
        before = values[ends]
        space.restart(before, vectors[:, ends])
        space.set_next(generator.standard_normal(size))
        values, vectors = _extend(space, generator, k, signs, rtol, is_repeated=True)
        changes = np.abs(values[_find_ends(space.size, k, signs)] - before)
        if np.max(changes) <= rtol * np.max(np.abs(values)):
            break
    ends = _find_ends(space.size, k, signs)
    return float(np.max(np.abs(values))), vectors[:, ends].T @ space.basis


def _extend(
    space: KrylovSpace,
    generator: np.random.Generator,
    k: int,
    signs: Sequence[int],
    rtol: float,
    *,
    is_repeated: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Extends the space, with thick restarts, until its extremal eigenvalues have converged.

    In a repetition, the wanted eigenvalues have converged before. It ends when the next ones are
    known well enough to be behind them.

    Returns:
        The eigenvalues of the projection, in increasing order, and its eigenvectors in columns.
    """
    capacity, size = space.capacity, space.dimension
    wanted = k * len(signs)
    while True:
        space.extend()
        values, vectors = np.linalg.eigh(space.projection)
        norm = np.max(np.abs(values))
        if space.size == size:
            return values, vectors
        # An invariant space says nothing about the rest, nor how often its eigenvalues occur.
        is_invariant = space.beta <= rtol * norm
        enough = 2 * wanted + _INVARIANT if is_invariant else wanted + is_repeated * len(signs)
        if capacity < size and space.size >= enough:
            residuals = space.beta * np.abs(vectors[-1])
            # The other half is for the rounding of products.
            accepted = np.full(space.size, rtol / 2 * norm)
            if is_repeated:
                _accept_next(accepted, values, k, signs, size)
            checked = _find_ends(space.size, k + is_repeated, signs)
            if np.all(residuals[checked] <= accepted[checked]):
                return values, vectors
        if space.size == capacity:
            kept = _find_ends(capacity, (capacity + wanted) // 2 // len(signs), signs)
            space.restart(values[kept], vectors[:, kept])
        if not space.beta:
            space.set_next(generator.standard_normal(size))


def _accept_next(
    accepted: np.ndarray, values: np.ndarray, k: int, signs: Sequence[int], size: int
) -> None:
    """Accepts a residual of the eigenvalue after the wanted ones that excludes any between them.

    A random vector has a component of about size^(-1/2) along an eigenvector that is still missing.
    The residual of the next eigenvalue is at least this component times the distance to the wanted
    ones, until the missing one is found.
    """
    for sign in signs:
        last = len(values) - k if sign == 1 else k - 1
        distance = abs(values[last] - values[last - sign])
        accepted[last - sign] = max(accepted[last - sign], _NEXT_SHARE * distance / size**0.5)


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
