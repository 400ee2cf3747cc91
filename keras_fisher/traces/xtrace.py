"""XTrace: the trace of a symmetric matrix from few products with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def compute_estimates(
    multiply: Callable[[np.ndarray], np.ndarray], probes: np.ndarray, sizes: Sequence[int]
) -> np.ndarray:
    """Returns XTrace's estimates of the trace of a symmetric matrix H, one for each probe.

    Let the columns of Q_i be an orthonormal basis of the range of H times all probes but w_i, and
    P_i = I - Q_i Q_i^T. Then

        t_i = tr(Q_i^T H Q_i) + w_i^T P_i H P_i w_i

    is exact in the range of Q_i and Hutchinson's estimate in the rest. It is unbiased because w_i
    and Q_i are independent. One basis Q for all probes gives every Q_i: Q_i Q_i^T is
    Q (I - s_i s_i^T) Q^T, with s_i a unit vector orthogonal to Q^T H w_j for all j but i.

    Reference: Epperly, Tropp & Webber, "XTrace: Making the most of every sample in stochastic trace
    estimation", SIAM Journal on Matrix Analysis and Applications 45(1), 2024.

    Args:
        multiply: Maps vectors, shape `(vectors, n)`, to their products with H, in float64. It is
            called at most twice, each time with at most as many vectors as there are probes.
        probes: Shape `(probes, n)`; independent entries of mean 0 and variance 1.
        sizes: The numbers of entries of consecutive parts of a vector, of sum n.

    Returns:
        Shape `(probes, parts)`. Each estimate is the sum of its parts, which are unbiased estimates
        of the traces of the diagonal blocks of H.
    """
    products = multiply(probes)
    largest = np.max(np.abs(products))
    if not 0 < largest < np.inf:
        return np.full((len(probes), len(sizes)), 0.0 if largest == 0 else np.nan)
    basis, left_out = _decompose(products)
    basis_products = multiply(basis)
    inside = basis @ probes.T
    inside -= left_out * np.sum(left_out * inside, axis=0)  # Q^T Q_i Q_i^T w_i
    parts, end = [], 0
    for size in sizes:
        part = slice(end, end := end + size)
        q, h_q = basis[:, part].T, basis_products[:, part].T
        rest = probes[:, part].T - q @ inside
        h_rest = products[:, part].T - h_q @ inside
        without = np.sum((q @ left_out) * (h_q @ left_out), axis=0)
        parts.append(np.sum(q * h_q) - without + np.sum(rest * h_rest, axis=0))
    return np.stack(parts, axis=1)


def _decompose(products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns Q^T and the vectors s_i as columns.

    Where H w_i depends linearly on the other products, Q_i is Q, and s_i is 0.
    """
    q, r = np.linalg.qr(products.T)
    u, singular, v_t = np.linalg.svd(r, full_matrices=False)
    rounding = max(products.shape) * np.finfo("float64").eps
    rank = np.sum(singular > singular[0] * rounding)
    singular, v_t = singular[:rank], v_t[:rank]
    is_independent = np.sum(v_t**2, axis=0) > 1 - 1e-8
    left_out = np.zeros_like(v_t)
    dual = v_t[:, is_independent] / singular[:, np.newaxis]
    left_out[:, is_independent] = dual / np.linalg.norm(dual, axis=0)
    return (q @ u[:, :rank]).T, left_out
