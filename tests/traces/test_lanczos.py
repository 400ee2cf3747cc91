"""The Lanczos process and its quadrature against dense eigenvalues and moments."""

import numpy as np
import pytest

from keras_fisher.traces.density import quadrature
from keras_fisher.traces.lanczos import KrylovSpace
from tests.traces.spectra import symmetric

N = 30
DECAYING = 0.5 ** np.arange(N) - 0.1


def start(seed=1):
    return np.random.default_rng(seed).normal(size=N)


def space_of(matrix, size, capacity=N):
    """The Krylov space of a matrix."""
    space = KrylovSpace(lambda vectors: vectors @ matrix, start(), capacity)
    for _ in range(size):
        space.extend()
    return space


def check_space(space, matrix):
    """Checks that the basis is orthonormal, and both properties of the projection."""
    basis, size = space.basis, space.size
    np.testing.assert_allclose(basis @ basis.T, np.eye(size), rtol=0, atol=1e-13)
    np.testing.assert_allclose(space.projection, basis @ matrix @ basis.T, rtol=0, atol=1e-13)
    values, vectors = np.linalg.eigh(space.projection)
    found = vectors.T @ basis
    residuals = np.linalg.norm(found @ matrix - values[:, np.newaxis] * found, axis=1)
    np.testing.assert_allclose(space.beta * np.abs(vectors[-1]), residuals, rtol=0, atol=1e-13)


def test_the_basis_spans_the_krylov_space_and_the_projection_is_tridiagonal():
    matrix = symmetric(DECAYING)
    space = space_of(matrix, 8)
    check_space(space, matrix)
    np.testing.assert_allclose(np.triu(space.projection, 2), 0, atol=1e-14)
    krylov = [start()]
    for _ in range(7):
        krylov.append(matrix @ krylov[-1])
    inside = space.basis.T @ space.basis
    for vector in krylov:
        assert np.linalg.norm(vector - inside @ vector) < 1e-10 * np.linalg.norm(vector)


def test_all_steps_give_all_eigenvalues_and_no_copies():
    values = np.linalg.eigvalsh(space_of(symmetric(DECAYING), N).projection)
    np.testing.assert_allclose(values, np.sort(DECAYING), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kept", [1, 3, 7])
def test_a_restart_keeps_eigenvectors_and_the_residuals_of_all_that_follows(kept):
    matrix = symmetric(DECAYING)
    space = space_of(matrix, 8, capacity=8)
    for _ in range(3):
        values, vectors = np.linalg.eigh(space.projection)
        space.restart(values[-kept:], vectors[:, -kept:])
        assert np.diag(space.projection).tolist() == values[-kept:].tolist()
        while space.size < 8:
            space.extend()
            check_space(space, matrix)
        assert np.linalg.eigvalsh(space.projection)[-1] >= values[-1] - 1e-14


def test_an_invariant_space_continues_with_a_vector_from_outside():
    matrix = np.zeros((N, N))
    space = space_of(matrix, 1)
    assert space.beta == 0.0
    space.set_next(start(seed=2))
    space.extend()
    check_space(space, matrix)


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
