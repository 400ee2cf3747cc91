"""Operations whose derivatives are replaced for the time of a trace."""

import itertools
import threading

import numpy as np
import pytest
import tensorflow as tf

from keras_fisher.autodiff.tensorflow_ops import (
    exact_gradients,
    exact_moments,
    quick_convolutions,
)
from keras_fisher.autodiff.tensorflow_registry import gradient_of

SIZES = [
    ((3, 3), "SAME"),
    ((3, 3), "VALID"),
    ((1, 5), "SAME"),
    ((2, 4), "VALID"),
    ((2, 4), "SAME"),
    ((3, 2), [[0, 0], [2, 1], [0, 1], [0, 0]]),
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
                    y = tf.nn.conv2d(x, kernel, 1, padding)
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
    """The kinds of operation in the graph of all second derivatives."""

    @tf.function
    def twice(x, kernel):
        with tf.GradientTape() as second:
            second.watch([x, kernel])
            with tf.GradientTape() as first:
                first.watch([x, kernel])
                y = tf.nn.convolution(x, kernel, padding=padding, **options) ** 2
            norm = tf.add_n([tf.reduce_sum(g**2) for g in first.gradient(y, [x, kernel])])
        return second.gradient(norm, [x, kernel])

    with quick_convolutions():
        graph = twice.get_concrete_function(tf.ones((2, 8, 8, 4)), tf.ones((3, 3, 4, 4))).graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.skipif(bool(tf.config.get_visible_devices("GPU")), reason="they are for the CPU")
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_quick_convolutions_do_without_the_slow_operation(padding):
    assert "Conv2DBackpropInput" not in operations(padding)


def test_strided_convolutions_stay_tensorflows_own():
    assert "Conv2DBackpropInput" in operations("SAME", strides=2)


REPLACED = {
    exact_moments: lambda: tf.nn.moments,
    exact_gradients: lambda: gradient_of("MaxPoolGrad"),
    quick_convolutions: lambda: gradient_of("Conv2D"),
}


@pytest.mark.parametrize("replaced", REPLACED)
def test_the_original_is_back_when_the_last_of_several_threads_has_left(replaced):
    original = REPLACED[replaced]()
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
    assert REPLACED[replaced]() is not original
    leave.set()
    thread.join()
    assert REPLACED[replaced]() is original


def largest(x, ksize, strides, padding):
    """A max pooling put together from shifted slices."""
    sizes, slices = x.shape[1:-1], []
    if padding == "SAME":
        outputs = [-(-n // step) for n, step in zip(sizes, strides, strict=True)]
        missing = [
            max((m - 1) * step + k - n, 0)
            for n, m, k, step in zip(sizes, outputs, ksize, strides, strict=True)
        ]
        around = [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)]
        x = tf.pad(x, around, constant_values=-np.inf)
    else:
        outputs = [(n - k) // step + 1 for n, k, step in zip(sizes, ksize, strides, strict=True)]
    for first in itertools.product(*map(range, ksize)):
        spatial = [
            slice(start, start + (m - 1) * step + 1, step)
            for start, m, step in zip(first, outputs, strides, strict=True)
        ]
        slices.append(x[(slice(None), *spatial)])
    return tf.reduce_max(tf.stack(slices), axis=0)


def pooled_form(pool, size, ksize, strides, padding, dtype="float32"):
    """z^T H z of a pooled tanh, in a graph."""
    generator = np.random.default_rng(0)
    x, z, c = (tf.constant(generator.normal(size=(3, *size, 2)), dtype) for _ in range(3))

    @tf.function
    def form():
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = pool(tf.tanh(c * x), ksize, strides, padding) ** 2
                value = tf.reduce_sum(y * tf.cast(tf.reshape(tf.range(tf.size(y)), y.shape), dtype))
            gradient = inner.gradient(value, x)
        return tf.reduce_sum(outer.gradient(gradient, x, z) * z)

    return float(form())


OVERLAPPING = [
    ((6,), (3,), (1,)),
    ((6, 5), (3, 2), (1, 1)),
    ((6, 5), (1, 4), (1, 1)),
    ((6, 1), (3, 3), (1, 2)),
    ((5, 4, 3), (3, 3, 3), (1, 1, 1)),
    ((5, 4, 3), (2, 3, 1), (1, 1, 1)),
    ((5, 1, 3), (3, 3, 2), (1, 2, 1)),
    ((5, 5), (3, 3), (2, 2)),
    ((5, 4, 3), (3, 3, 3), (2, 1, 1)),
]


def max_pool(x, ksize, strides, padding):
    data_format = {3: "NWC", 4: "NHWC", 5: "NDHWC"}[len(x.shape)]
    return tf.nn.max_pool(x, ksize, strides, padding, data_format)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("size", "ksize", "strides"), OVERLAPPING)
def test_pooling_is_right_when_differentiated_twice(size, ksize, strides, padding):
    ksize = ksize if padding == "SAME" else tuple(np.minimum(size, ksize))
    expected = pooled_form(largest, size, ksize, strides, padding, "float64")
    with exact_gradients():
        found = pooled_form(max_pool, size, ksize, strides, padding)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.skipif(bool(tf.config.get_visible_devices("GPU")), reason="it is wrong on the CPU")
@pytest.mark.parametrize("case", [0, 1, 3, 4, 6])
def test_tensorflows_own_pooling_would_be_silently_wrong(case):
    expected = pooled_form(largest, *OVERLAPPING[case], "SAME", "float64")
    found = pooled_form(max_pool, *OVERLAPPING[case], "SAME")
    assert found != pytest.approx(expected, rel=1e-3)
