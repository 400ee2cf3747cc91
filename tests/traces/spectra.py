"""Symmetric matrices of known eigenvalues."""

import numpy as np


def symmetric(eigenvalues, seed=0):
    """Returns a dense matrix with these eigenvalues."""
    n = len(eigenvalues)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    matrix = basis * eigenvalues @ basis.T
    return (matrix + matrix.T) / 2
