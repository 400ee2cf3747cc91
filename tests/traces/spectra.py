"""Symmetric matrices of known eigenvalues."""

import numpy as np


def symmetric(eigenvalues):
    """Returns a dense matrix with these eigenvalues."""
    n = len(eigenvalues)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]
    matrix = basis * eigenvalues @ basis.T
    return (matrix + matrix.T) / 2
