"""Squared norms of kernels' gradients that are not computed."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from keras_fisher.backend.tensorflow import gram
from keras_fisher.backend.tensorflow.penalty import differentiate_penalty

ROWS, INPUTS, HIDDEN, OUTPUTS = 5, 12, 16, 10
LAYERS = {
    "matmul": lambda x, kernel: x @ kernel,
    "transposed": lambda x, kernel: tf.matmul(x, tf.transpose(kernel), transpose_b=True),
    "stored transposed": lambda x, kernel: tf.matmul(x, kernel, transpose_b=True),
    "inputs transposed": lambda x, kernel: tf.matmul(tf.transpose(x), kernel, transpose_a=True),
    "einsum": lambda x, kernel: tf.einsum("bi,io->bo", x, kernel),
    "tensordot": lambda x, kernel: tf.tensordot(x[:, tf.newaxis], kernel, 1)[:, 0],
    "reshaped": lambda x, kernel: x @ tf.reshape(kernel, (INPUTS, HIDDEN)),
    "used twice": lambda x, kernel: x @ kernel + tf.sin(x) @ kernel,
}
SHAPES = {"stored transposed": (HIDDEN, INPUTS), "reshaped": (INPUTS, 4, HIDDEN // 4)}
NOT_FOUND = ("einsum", "used twice")  # their gradient is not one product of matrices


def differentiate(layer, rows=ROWS, **options):
    """The squared norm of a gradient, and the norm's own, in double precision."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(ROWS, INPUTS))
    shapes = [SHAPES.get(layer, (INPUTS, HIDDEN)), (HIDDEN, OUTPUTS)]
    kernels = [tf.constant(generator.normal(size=shape)) for shape in shapes]

    @tf.function(input_signature=[tf.TensorSpec((rows, INPUTS), "float64")], **options)
    def compute(x):
        def objective(at, _):
            hidden = tf.tanh(LAYERS[layer](x, at[0]))
            return None, tf.reduce_sum(tf.sin(hidden @ at[1]) ** 2)

        found = differentiate_penalty(objective, kernels)
        return found.squared_norm, found.of_penalty

    return compute(x)


@functools.cache
def from_gradients(layer):
    return differentiate(layer)


@pytest.fixture
def found(monkeypatch):
    """The shapes of the gradients that are not computed."""
    monkeypatch.setattr(gram, "LARGE", 0)
    shapes, original = [], gram._multiply_gram_matrices

    def multiply(x, d):
        shapes.append((x.shape[1], d.shape[1]))
        return original(x, d)

    monkeypatch.setattr(gram, "_multiply_gram_matrices", multiply)
    return shapes


@pytest.mark.matrix
@pytest.mark.parametrize("rows", [ROWS, None])
@pytest.mark.parametrize("layer", LAYERS)
def test_norms_and_their_gradients_are_those_of_the_computed_gradients(layer, rows, found):
    norm, penalty = differentiate(layer, rows)
    assert len(found) == (1 if layer in NOT_FOUND or (layer, rows) == ("tensordot", None) else 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gram, "LARGE", 2**20)
        expected_norm, expected_penalty = from_gradients(layer)
    np.testing.assert_allclose(norm, expected_norm, rtol=1e-12)
    for ours, expected in zip(penalty, expected_penalty, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)


def test_xla_compiles_them(found):
    norm, penalty = differentiate("matmul", jit_compile=True)
    assert len(found) == 2
    expected_norm, expected_penalty = differentiate("matmul")
    np.testing.assert_allclose(norm, expected_norm, rtol=1e-12)
    np.testing.assert_allclose(penalty[0], expected_penalty[0], rtol=1e-10, atol=1e-12)


def test_many_rows_take_the_gradient(found):
    many = INPUTS * HIDDEN // (INPUTS + HIDDEN) + 1
    x, d = (tf.ones((many, size)) for size in (INPUTS, HIDDEN))
    norm = tf.function(lambda: gram.squared_norm([tf.matmul(x, d, transpose_a=True)]))
    np.testing.assert_allclose(norm(), many**2 * INPUTS * HIDDEN)
    assert not found


@pytest.mark.parametrize(("inputs", "outputs"), [(1024, 1024), (4096, 512), (2048, 4096)])
def test_the_choice_counts_multiplications(inputs, outputs):
    def count(rows):
        with_gradient = 2 * rows * inputs * outputs
        without = 2 * rows**2 * inputs + 2 * rows**2 * outputs
        return with_gradient, without

    for rows in (1, 100, 500, 1000, 2000):
        with_gradient, without = count(rows)
        assert gram.saves_time(rows, inputs, outputs) == (without < with_gradient)
    assert not gram.saves_time(1, 100, 100)  # stays in the cache


def test_the_choice_does_not_overflow():
    for rows, is_quicker in ((10**6, False), (100, True)):
        assert bool(gram.saves_time(tf.constant(rows), 2**18, 2**14)) == is_quicker


def test_eager_gradients_are_computed(monkeypatch):
    monkeypatch.setattr(gram, "LARGE", 0)
    assert float(gram.squared_norm([None, tf.constant([[3.0, 4.0]])])) == 25.0
