"""Operations whose derivatives are replaced while a trace is measured."""

import contextlib
import threading

import numpy as np
import pytest
import tensorflow as tf

from keras_fisher.autodiff.tensorflow_ops import exact_moments, exact_pooling, quick_convolutions

SIZES = [
    ((3, 3), "SAME"),
    ((3, 3), "VALID"),
    ((1, 5), "SAME"),
    ((2, 4), "VALID"),
    ((1, 1), "VALID"),
]


def derivatives(kernel_size, padding):
    """A convolution, and its derivatives up to the third, in a graph."""
    generator = np.random.default_rng(0)
    x = tf.constant(generator.normal(size=(2, 6, 7, 3)))
    kernel = tf.constant(generator.normal(size=(*kernel_size, 3, 4)))

    @tf.function
    def all_of_them():
        with tf.GradientTape() as third:
            third.watch([x, kernel])
            with tf.GradientTape() as second:
                second.watch([x, kernel])
                with tf.GradientTape() as first:
                    first.watch([x, kernel])
                    y = tf.nn.convolution(x, kernel, 1, padding)
                    value = tf.reduce_sum(tf.sin(y))
                gradient = first.gradient(value, [x, kernel])
                norm = tf.add_n([tf.reduce_sum(g**2) for g in gradient])
            of_norm = second.gradient(norm, [x, kernel])
            again = tf.add_n([tf.reduce_sum(tf.cos(g)) for g in of_norm])
        return [y, *gradient, *of_norm, *third.gradient(again, [x, kernel])]

    return all_of_them()


@pytest.mark.parametrize(("kernel_size", "padding"), SIZES)
def test_quick_convolutions_have_the_derivatives_of_tensorflows_own(kernel_size, padding):
    expected = derivatives(kernel_size, padding)
    with quick_convolutions():
        found = derivatives(kernel_size, padding)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def operations(padding, **options):
    """The kinds of operation in the graph of the gradient by the input."""

    @tf.function
    def by_input(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nn.convolution(x, kernel, padding=padding, **options)
        return tape.gradient(y, x)

    with quick_convolutions():
        graph = by_input.get_concrete_function(tf.ones((2, 8, 8, 4)), tf.ones((3, 3, 4, 4))).graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.skipif(bool(tf.config.get_visible_devices("GPU")), reason="they are for the CPU")
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_quick_convolutions_do_without_the_slow_operation(padding):
    assert "Conv2DBackpropInput" not in operations(padding)


def test_strided_convolutions_stay_tensorflows_own():
    assert "Conv2DBackpropInput" in operations("SAME", strides=2)


@pytest.mark.parametrize(
    ("replaced", "name"),
    [(exact_moments, "moments"), (exact_pooling, "max_pool"), (quick_convolutions, "convolution")],
)
def test_the_original_is_back_when_the_last_of_several_threads_has_left(replaced, name):
    original = getattr(tf.nn, name)
    entered, leave = threading.Event(), threading.Event()

    def stay():
        with replaced():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=stay)
    thread.start()
    entered.wait()
    with pytest.raises(ZeroDivisionError), replaced():
        raise ZeroDivisionError
    assert getattr(tf.nn, name) is not original
    leave.set()
    thread.join()
    assert getattr(tf.nn, name) is original


def pooled_form(rank, replaced):
    """z^T H z of a pooled convolution, in a graph, and by central differences."""
    generator = np.random.default_rng(0)
    size, kernel = (6,) * rank, (2,) * rank
    x, c = (tf.constant(generator.normal(size=(3, *size, 2))) for _ in range(2))
    w0, z = (tf.constant(generator.normal(size=(*kernel, 2, 2))) for _ in range(2))

    def slope(w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            y = tf.tanh(tf.nn.convolution(x, w, padding="SAME"))
            value = tf.reduce_sum(c * tf.nn.max_pool(y, 3, 1, "SAME") ** 2)
        return tf.reduce_sum(tape.gradient(value, w) * z)

    @tf.function
    def form():
        with tf.GradientTape() as tape, replaced():
            tape.watch(w0)
            value = slope(w0)
        return tf.reduce_sum(tape.gradient(value, w0) * z)

    step = 1e-6
    return float(form()), float(slope(w0 + step * z) - slope(w0 - step * z)) / (2 * step)


@pytest.mark.parametrize("rank", [1, 2])
def test_overlapping_pooling_is_right_when_differentiated_twice(rank):
    found, expected = pooled_form(rank, exact_pooling)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.skipif(bool(tf.config.get_visible_devices("GPU")), reason="it is wrong on the CPU")
def test_tensorflows_own_pooling_would_be_silently_wrong():
    found, expected = pooled_form(2, contextlib.nullcontext)
    assert found != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("ksize", [1, 2, 3, (2, 3)])
def test_exact_pooling_gives_the_same_values(ksize):
    x = tf.random.stateless_normal((2, 5, 6, 3), [1, 2])
    expected = tf.nn.max_pool(x, ksize, 1, "SAME")
    with exact_pooling():
        np.testing.assert_array_equal(tf.nn.max_pool(x, ksize, 1, "SAME"), expected)
