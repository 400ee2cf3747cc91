"""Eigenvalues from products against those of dense matrices of every kind of spectrum."""

import numpy as np
import pytest

from keras_fisher.traces.eigensolver import bound_component, find_eigenpairs
from keras_fisher.traces.lanczos import KrylovSpace
from tests.traces.spectra import symmetric

N, K = 60, 4
normal = np.random.default_rng(3).normal(size=N)
SPECTRA = {
    "decaying, with a small negative end": np.r_[0.7 ** np.arange(N - 3), -0.03, -0.02, -0.01],
    "of low rank": np.r_[5.0, 3.0, np.zeros(N - 2)],
    "negative": -3.0 + np.tanh(normal),
    "of large negative eigenvalues": np.r_[1e-3 * normal[:-2], -7.0, -9.0],
    "of a bulk and some outliers": np.r_[20.0, 12.0, 11.0, 8.0, 0.1 * normal[:-4]],
    "of eigenvalues that occur three times": np.repeat(2.0 + np.sort(normal[: N // 3]), 3),
    "of an outlier that occurs three times": np.r_[9.0, 9.0, 9.0, 5.0, 0.1 * normal[:-4]],
    "zero": np.zeros(N),
    "tiny": 1e-30 * normal,
    "huge": 1e30 * normal,
}


def find(matrix, *, dtype="float64", **options):
    """The eigenpairs, and how many vectors were multiplied."""
    counts = []

    def multiply(vectors):
        counts.append(len(vectors))
        return (vectors.astype(dtype) @ matrix.astype(dtype)).astype("float64")

    options = {"k": K, "signs": (1, -1), "rtol": 1e-5, "max_products": 1000} | options
    found = find_eigenpairs(multiply, len(matrix), np.random.default_rng(0), **options)
    return found, sum(counts)


def expected(eigenvalues, signs):
    ordered = np.sort(eigenvalues)[::-1]
    ends = {1: ordered[:K], -1: ordered[-K:]}
    return np.concatenate([ends[sign] for sign in signs])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("signs", [(1,), (-1,), (1, -1)])
@pytest.mark.parametrize("name", SPECTRA)
def test_finds_the_ends_of_every_spectrum(name, signs, dtype):
    matrix, norm = symmetric(SPECTRA[name]), np.max(np.abs(SPECTRA[name]))
    found, _ = find(matrix, signs=signs, dtype=dtype)
    exact = expected(SPECTRA[name], signs)
    np.testing.assert_allclose(found.values, exact, rtol=0, atol=1e-5 * norm)
    assert np.max(found.residuals) <= 1e-5 * norm


@pytest.mark.parametrize("name", SPECTRA)
def test_residuals_are_those_of_unit_vectors_and_bound_the_error(name):
    matrix, exact = symmetric(SPECTRA[name]), SPECTRA[name]
    found, _ = find(matrix, rtol=1e-2)
    rounding = 1e-14 * np.max(np.abs(exact))
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-12)
    rest = found.vectors @ matrix - found.values[:, np.newaxis] * found.vectors
    np.testing.assert_allclose(
        found.residuals, np.linalg.norm(rest, axis=1), rtol=1e-6, atol=rounding
    )
    distances = np.min(np.abs(exact - found.values[:, np.newaxis]), axis=1)
    assert np.all(distances <= found.residuals + rounding)


def test_a_small_eigenvalue_beside_large_ones_is_right_to_their_scale_and_its_own():
    matrix = symmetric(SPECTRA["decaying, with a small negative end"])
    found, _ = find(matrix, signs=(-1,), k=1)
    assert found.values[0] == pytest.approx(-0.03, rel=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_component_of_a_missing_eigenvector_is_bounded(sign):
    eigenvalues, component = sign * np.r_[1.3, np.linspace(-1, 1, N - 1)], 1e-6
    start = np.random.default_rng(1).normal(size=N)
    start[0] = 0
    start /= np.linalg.norm(start)
    start[0] = component
    space = KrylovSpace(lambda vectors: vectors * eigenvalues, start, 20)
    bounds, below = [], []
    for _ in range(20):
        space.extend()
        bounds.append(bound_component(space, sign * 1.3, sign))
        below.append(bound_component(space, sign * 1.2, sign))
    assert component <= min(bounds) < 2 * component
    assert np.all(np.array(bounds) <= below)
    assert bounds[0] > 0.1
    assert below[-1] == 1


def test_a_forgotten_start_vector_excludes_nothing():
    space = KrylovSpace(lambda vectors: vectors * normal, np.ones(N), 10)
    for _ in range(10):
        space.extend()
    assert bound_component(space, 100.0, 1) < 1e-9
    values, vectors = np.linalg.eigh(space.projection)
    space.restart(values[5:], vectors[:, 5:])
    assert bound_component(space, 100.0, 1) == 1
    space.extend()
    assert bound_component(space, 100.0, 1) == 1


@pytest.mark.parametrize("size", [1, 5, 20, 21, 22])
@pytest.mark.parametrize("signs", [(1,), (-1,)])
def test_small_matrices_are_solved_to_their_last_eigenvalue(size, signs):
    eigenvalues = np.random.default_rng(0).normal(size=size)
    found, _ = find(symmetric(eigenvalues), k=size, signs=signs)
    np.testing.assert_allclose(found.values, np.sort(eigenvalues)[::-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [12, N])
def test_stops_before_more_than_max_products(size):
    matrix = symmetric(normal[:size])
    _, needed = find(matrix)
    find(matrix, max_products=needed)
    message = rf"`max_products` must be large enough.*Received: max_products={needed - 1}"
    with pytest.raises(np.linalg.LinAlgError, match=message):
        find(matrix, max_products=needed - 1)


def test_a_tolerance_below_the_rounding_of_products_is_refused():
    matrix = symmetric(SPECTRA["of a bulk and some outliers"])
    find(matrix, rtol=1e-9)
    with pytest.raises(np.linalg.LinAlgError, match=r"`rtol` is too small.*Received: rtol=1e-09"):
        find(matrix, rtol=1e-9, dtype="float32")
