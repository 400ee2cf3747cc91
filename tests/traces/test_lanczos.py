"""The Lanczos process and its quadrature against dense eigenvalues and moments."""

import numpy as np
import pytest

from keras_fisher.traces.density import quadrature
from keras_fisher.traces.lanczos import tridiagonalise
from tests.traces.spectra import symmetric

N = 30
DECAYING = 0.5 ** np.arange(N) - 0.1


def start(seed=1):
    return np.random.default_rng(seed).normal(size=N)


def steps_of(matrix, num_steps):
    """The tridiagonal matrix and the vectors that were multiplied."""
    vectors = []

    def multiply(given):
        vectors.extend(given)
        return given @ matrix

    return tridiagonalise(multiply, start(), num_steps), np.array(vectors)


def test_the_tridiagonal_matrix_is_the_projection_on_an_orthonormal_krylov_basis():
    matrix = symmetric(DECAYING)
    tridiagonal, basis = steps_of(matrix, 8)
    np.testing.assert_allclose(basis @ basis.T, np.eye(8), rtol=0, atol=1e-14)
    np.testing.assert_allclose(tridiagonal, basis @ matrix @ basis.T, rtol=0, atol=1e-14)
    krylov = [start()]
    for _ in range(7):
        krylov.append(matrix @ krylov[-1])
    inside = basis.T @ basis
    for vector in krylov:
        assert np.linalg.norm(vector - inside @ vector) < 1e-10 * np.linalg.norm(vector)


def test_all_steps_give_all_eigenvalues_and_no_copies():
    tridiagonal, basis = steps_of(symmetric(DECAYING), 2 * N)
    assert len(basis) == N
    values = np.linalg.eigvalsh(tridiagonal)
    np.testing.assert_allclose(values, np.sort(DECAYING), rtol=0, atol=1e-13)


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_each_eigenvalue_is_found_once_with_its_weight_where_the_krylov_space_ends(rank):
    eigenvalues = np.r_[np.arange(1, rank + 1), np.zeros(N - rank)]
    nodes, weights = quadrature(lambda z: z @ symmetric(eigenvalues), start(), 20)
    vectors = np.linalg.eigh(symmetric(eigenvalues))[1][:, N - rank :]
    exact = (vectors.T @ start() / np.linalg.norm(start())) ** 2
    np.testing.assert_allclose(nodes[nodes > 0.5], np.arange(1, rank + 1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(weights[nodes > 0.5], exact, rtol=1e-10)
    np.testing.assert_allclose(nodes[nodes <= 0.5], 0, rtol=0, atol=1e-12)
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_the_quadrature_is_exact_for_all_powers_below_twice_the_number_of_nodes(num_steps):
    matrix, v = symmetric(DECAYING), start() / np.linalg.norm(start())
    nodes, weights = quadrature(lambda z: z @ matrix, start(), num_steps)
    assert nodes.shape == weights.shape == (num_steps,)
    for power in range(2 * num_steps):
        exact = v @ np.linalg.matrix_power(matrix, power) @ v
        assert weights @ nodes**power == pytest.approx(exact, rel=1e-10)
    power = 2 * num_steps
    exact = v @ np.linalg.matrix_power(matrix, power) @ v
    assert abs(weights @ nodes**power - exact) > 1e-8 * abs(exact)


def test_nodes_without_a_step_have_no_weight():
    nodes, weights = quadrature(lambda z: 2.0 * z, start(), 4)
    assert nodes.tolist() == pytest.approx([2.0] * 4)
    assert weights.tolist() == pytest.approx([1.0, 0.0, 0.0, 0.0])
