"""The Lanczos process with full reorthogonalisation and thick restarts."""

from __future__ import annotations

import numpy as np

from keras_fisher.traces.hessian_solver import Multiply


class KrylovSpace:
    """An orthonormal basis of a growing space, and the projection of a symmetric matrix on it.

    The first rows of the basis Q are `start`, normalised, and then

        beta_j q_{j+1} = A q_j - sum_{i <= j} (q_i^T A q_j) q_i,

    so Q spans a Krylov space, and T = Q A Q^T is tridiagonal. In exact arithmetic, A q_j is
    orthogonal to all but the last two vectors. Rounding destroys that as soon as an eigenvalue of T
    converges, and copies of it then appear. So each new vector is made orthogonal to all earlier
    ones, twice.

    With T y = theta y, the residual ||A v - theta v|| of v = Q^T y is |beta_j y_j|, where y_j is
    the last entry of y. It stays so if the basis is replaced by some of these vectors and the
    process continues with q_{j+1}: a thick restart, which forgets the rest of the space.

    References: Golub & Van Loan, "Matrix Computations", 4th edition, sections 10.1 and 10.3. Wu &
    Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems", SIAM Journal on
    Matrix Analysis and Applications, 2000.

    Args:
        multiply: Maps vectors, shape `(1, n)`, to their products with A.
        start: A vector, shape `(n,)`, other than 0.
        capacity: The largest number of vectors in the basis, at most n. They are kept in memory.

    Attributes:
        dimension: n.
        capacity: As given.
        size: The number of vectors in the basis.
        start: The index of the vector that the process last started from; `None` after a restart.
        beta: beta_j of the last vector; 0 if A maps the space into itself. If rounding hides that,
            the space grows further, and T is the projection on a larger space.
    """

    _next: np.ndarray
    start: int | None
    beta: float

    def __init__(self, multiply: Multiply, start: np.ndarray, capacity: int) -> None:
        self._multiply = multiply
        self.dimension, self.capacity = len(start), capacity
        self._basis = np.empty((capacity, len(start)))
        self._projection = np.zeros((capacity, capacity))
        self.size = 0
        self.set_next(start)

    @property
    def basis(self) -> np.ndarray:
        """Q, shape `(size, n)`."""
        return self._basis[: self.size]

    @property
    def projection(self) -> np.ndarray:
        """T, shape `(size, size)`."""
        return self._projection[: self.size, : self.size]

    def extend(self) -> None:
        """Adds the next vector to the basis, which takes one product with A."""
        last = self.size
        self._basis[last] = self._next
        self.size += 1
        product = self._multiply(self._next[np.newaxis])[0]
        overlaps = self.basis @ product
        self._projection[last, : self.size] = self._projection[: self.size, last] = overlaps
        rest = self._orthogonalise(product - overlaps @ self.basis)
        beta = float(np.linalg.norm(rest))
        rounding = len(rest) ** 0.5 * np.finfo("float64").eps * np.linalg.norm(product)
        self.beta = beta if beta > rounding else 0.0
        if self.beta:
            self._next = rest / beta

    def set_next(self, vector: np.ndarray) -> None:
        """Continues with a vector from outside of the space, shape `(n,)`, in place of q_{j+1}."""
        for _ in range(2):
            vector = self._orthogonalise(vector / np.linalg.norm(vector))
        self._next = vector / np.linalg.norm(vector)
        self.start, self.beta = self.size, 0.0

    def restart(self, values: np.ndarray, vectors: np.ndarray) -> None:
        """Keeps some eigenvalues of T, shape `(kept,)`, and their eigenvectors, in columns."""
        self._basis[: len(values)] = vectors.T @ self.basis
        self._projection[:] = 0.0
        np.fill_diagonal(self._projection[: len(values), : len(values)], values)
        self.start, self.size = None, len(values)

    def _orthogonalise(self, vector: np.ndarray) -> np.ndarray:
        return vector - (self.basis @ vector) @ self.basis
