"""The Lanczos process with full reorthogonalisation."""

from __future__ import annotations

import numpy as np

from keras_fisher.traces.hessian_solver import Multiply


def tridiagonalise(multiply: Multiply, start: np.ndarray, num_steps: int) -> np.ndarray:
    """Returns T = Q^T A Q, for a symmetric matrix A and an orthonormal basis Q of a Krylov space.

    The columns of Q are `start`, normalised, and then

        beta_j q_{j+1} = A q_j - alpha_j q_j - beta_{j-1} q_{j-1},

    where alpha_j and beta_j are the entries of the tridiagonal matrix T. In exact arithmetic, each
    new vector is orthogonal to all earlier ones. Rounding destroys that as soon as an eigenvalue of
    T converges, and copies of it then appear. So each new vector is made orthogonal to all earlier
    ones, twice.

    Reference: Golub & Van Loan, "Matrix Computations", 4th edition, sections 10.1 and 10.3.

    Args:
        multiply: Maps vectors, shape `(1, n)`, to their products with A.
        start: A vector, shape `(n,)`, other than 0.
        num_steps: The number of products with A, and of vectors in Q, which are kept in memory.

    Returns:
        Shape `(steps, steps)`, in float64. There are fewer than `num_steps` if the Krylov space
        ends before; then the eigenvalues of T are eigenvalues of A. If rounding hides that it
        ends, T has more rows, and is the projection on a larger space.
    """
    num_steps = min(num_steps, len(start))
    basis = np.empty((num_steps, len(start)))
    tridiagonal = np.zeros((num_steps, num_steps))
    vector = start / np.linalg.norm(start)
    for j in range(num_steps):
        basis[j] = vector
        vector = multiply(vector[np.newaxis])[0]
        size = np.linalg.norm(vector)
        tridiagonal[j, j] = basis[j] @ vector
        for _ in range(2):
            vector = vector - (basis[: j + 1] @ vector) @ basis[: j + 1]
        beta = np.linalg.norm(vector)
        rounding = len(start) ** 0.5 * np.finfo("float64").eps * size
        if j + 1 == num_steps or beta <= rounding:
            break
        tridiagonal[j, j + 1] = tridiagonal[j + 1, j] = beta
        vector = vector / beta
    return tridiagonal[: j + 1, : j + 1]
