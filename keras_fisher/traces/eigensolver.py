"""Extremal eigenvalues of a symmetric matrix from products with vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from keras_fisher.traces.hessian_solver import Multiply
from keras_fisher.traces.lanczos import KrylovSpace

# The basis has at least so many vectors before a restart ...
_MIN_VECTORS = 40
# ... and so many more than twice the eigenvalues before it is accepted though it is invariant.
_INVARIANT = 10
# With 99% probability, a component of a random unit vector is above this times size^(-1/2).
_COMPONENT = 0.0125


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
    norm, vectors = _iterate(limited, size, generator, _Ends(k, signs, rtol))
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


class _Ends(NamedTuple):
    """The k largest eigenvalues, the k smallest ones, or both, with residuals up to rtol ||A||."""

    k: int
    signs: Sequence[int]
    rtol: float

    @property
    def wanted(self) -> int:
        return self.k * len(self.signs)

    def find(self, size: int) -> np.ndarray:
        """Returns their indices, in `size` values in increasing order."""
        return _find_ends(size, self.k, self.signs)

    def are_converged(self, space: KrylovSpace, values: np.ndarray, errors: np.ndarray) -> bool:
        """Whether all residuals are accepted."""
        return bool(np.all(errors[self.find(space.size)] <= self._accept(values)))

    def are_complete(self, space: KrylovSpace, values: np.ndarray, errors: np.ndarray) -> bool:
        """Whether they are converged and, with 99% probability, no further one belongs to them.

        None does if the next value is converged too, or if no eigenvalue before it is missing.
        """
        if not self.are_converged(space, values, errors):
            return False
        accepted = self._accept(values)
        for sign in self.signs:
            last = -self.k if sign == 1 else self.k - 1
            if errors[last - sign] > accepted:
                component = bound_component(space, values[last] + 2 * sign * accepted, sign)
                if component > _COMPONENT / space.dimension**0.5:
                    return False
        return True

    def _accept(self, values: np.ndarray) -> float:
        # The other half is for the rounding of products.
        return self.rtol / 2 * float(np.max(np.abs(values)))


def bound_component(space: KrylovSpace, limit: float, sign: int) -> float:
    """Bounds the component along the start vector of an eigenvector outside of the space.

    Let w be the unit vector that the space starts from, T the projection on the vectors q_1 = w to
    q_m, and u an eigenvector of mu that is orthogonal to all vectors before w. Its components g
    along these vectors, and h along the next one, satisfy

        (T - mu I) g + beta_m h e_m = 0 and |g|^2 + h^2 <= 1,

    which bounds |w^T u|, the first of g. Beyond T's eigenvalues, the bound decreases with their
    distance to mu; so that of `limit` holds for every mu from there on.

    Args:
        space: The space.
        limit: The smallest mu for `sign=1`, the largest one for -1.
        sign: The end of the spectrum.

    Returns:
        The bound; 1 if T has eigenvalues beyond `limit`, or if the start vector is forgotten.
    """
    if space.start is None:
        return 1.0
    projection = space.projection[space.start :, space.start :]
    if np.max(sign * np.linalg.eigvalsh(projection)) >= sign * limit:
        return 1.0
    last = np.zeros(len(projection))
    last[-1] = space.beta
    components = np.linalg.solve(projection - limit * np.eye(len(projection)), last)
    return float(abs(components[0]) / (1 + components @ components) ** 0.5)


def _iterate(
    multiply: Multiply, size: int, generator: np.random.Generator, ends: _Ends
) -> tuple[float, np.ndarray]:
    """Returns ||A||, and the eigenvectors as rows.

    A Krylov space has one eigenvector of an eigenvalue, however often that occurs. So the process
    continues from another random vector, outside of the space, until no eigenvalue changes.
    """
    capacity = min(size, max(4 * ends.wanted, _MIN_VECTORS))
    space = KrylovSpace(multiply, generator.standard_normal(size), capacity)
    values, vectors = _extend(space, generator, ends, ends.wanted, ends.are_converged)
    while ends.k > 1 and space.size < size:
        found = ends.find(space.size)
        before = values[found]
        space.restart(before, vectors[:, found])
        space.set_next(generator.standard_normal(size))
        least = ends.wanted + len(ends.signs)
        values, vectors = _extend(space, generator, ends, least, ends.are_complete)
        changes = np.abs(values[ends.find(space.size)] - before)
        if np.max(changes) <= ends.rtol * np.max(np.abs(values)):
            break
    return float(np.max(np.abs(values))), vectors[:, ends.find(space.size)].T @ space.basis


def _extend(
    space: KrylovSpace,
    generator: np.random.Generator,
    ends: _Ends,
    least: int,
    is_done: Callable[[KrylovSpace, np.ndarray, np.ndarray], bool],
) -> tuple[np.ndarray, np.ndarray]:
    """Extends the space, with thick restarts, until `is_done` of its eigenvalues and residuals.

    Returns:
        The eigenvalues of the projection, in increasing order, and its eigenvectors in columns.
    """
    capacity, size = space.capacity, space.dimension
    while True:
        space.extend()
        values, vectors = np.linalg.eigh(space.projection)
        if space.size == size:
            return values, vectors
        # An invariant space says nothing about the rest, nor how often its eigenvalues occur.
        is_invariant = space.beta <= ends.rtol * np.max(np.abs(values))
        enough = 2 * ends.wanted + _INVARIANT if is_invariant else least
        can_be_done = capacity < size and space.size >= enough
        if can_be_done and is_done(space, values, space.beta * np.abs(vectors[-1])):
            return values, vectors
        if space.size == capacity:
            kept = _find_ends(
                capacity, (capacity + ends.wanted) // 2 // len(ends.signs), ends.signs
            )
            space.restart(values[kept], vectors[:, kept])
        if not space.beta:
            space.set_next(generator.standard_normal(size))


def _find_ends(size: int, k: int, signs: Sequence[int]) -> np.ndarray:
    """Returns the indices of k values at one or both ends, of values in increasing order."""
    ends = {1: np.arange(size - k, size), -1: np.arange(k)}
    return np.concatenate([ends[sign] for sign in signs])


def _limit(multiply: Multiply, limit: int, max_products: int) -> Multiply:
    """Returns `multiply`, which raises before more than `limit` products."""
    used = 0

    def multiply_once(vectors: np.ndarray) -> np.ndarray:
        nonlocal used
        used += len(vectors)
        if used > limit:
            raise np.linalg.LinAlgError(
                "`max_products` must be large enough for the eigenvalues to converge. Received: "
                f"max_products={max_products}. Increase `max_products` or `rtol`"
            )
        return multiply(vectors)

    return multiply_once
