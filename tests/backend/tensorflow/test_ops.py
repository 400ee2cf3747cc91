"""Operations whose derivatives are replaced for the time of a trace."""

import itertools
import threading

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from keras_fisher.backend.private_api.tensorflow import list_gradients, look_up_gradient
from keras_fisher.backend.tensorflow import ops as tensorflow_ops
from keras_fisher.backend.tensorflow.autodiff import Line
from keras_fisher.backend.tensorflow.ops import (
    replace_convolutions,
    replace_gradients,
    replace_moments,
)
from keras_fisher.backend.tensorflow.tapes import differentiate_again, use_exact_gradients

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


@pytest.mark.matrix
@pytest.mark.parametrize(("kernel_size", "padding"), SIZES)
def test_quick_convolutions_have_the_derivatives_of_tensorflows_own(kernel_size, padding):
    expected = derivatives(kernel_size, padding)
    with replace_convolutions():
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

    with replace_convolutions():
        graph = twice.get_concrete_function(tf.ones((2, 8, 8, 4)), tf.ones((3, 3, 4, 4))).graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.skipif(bool(tf.config.get_visible_devices("GPU")), reason="they are for the CPU")
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_quick_convolutions_do_without_the_slow_operation(padding):
    assert "Conv2DBackpropInput" not in operations(padding)


def test_strided_convolutions_stay_tensorflows_own():
    assert "Conv2DBackpropInput" in operations("SAME", strides=2)


REPLACED = {
    replace_moments: lambda: tf.nn.moments,
    replace_gradients: lambda: look_up_gradient("MaxPoolGrad"),
    replace_convolutions: lambda: look_up_gradient("Conv2D"),
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


@pytest.mark.matrix
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("size", "ksize", "strides"), OVERLAPPING)
def test_pooling_is_right_when_differentiated_twice(size, ksize, strides, padding):
    ksize = ksize if padding == "SAME" else tuple(np.minimum(size, ksize))
    expected = pooled_form(largest, size, ksize, strides, padding, "float64")
    with replace_gradients():
        found = pooled_form(max_pool, size, ksize, strides, padding)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.skipif(bool(tf.config.get_visible_devices("GPU")), reason="it is wrong on the CPU")
@pytest.mark.parametrize("case", [0, 1, 3, 4, 6])
def test_tensorflows_own_pooling_would_be_silently_wrong(case):
    expected = pooled_form(largest, *OVERLAPPING[case], "SAME", "float64")
    found = pooled_form(max_pool, *OVERLAPPING[case], "SAME")
    assert found != pytest.approx(expected, rel=1e-3)


def second_derivative(function, x, z):
    """H z of a function, in a graph."""

    @tf.function
    def product():
        with tf.GradientTape() as outer, use_exact_gradients():
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = function(x)
            gradient = inner.gradient(value, x)
        return differentiate_again(outer, gradient, [x], [z])[0]

    return product()


def form_along_a_line(function, x, z):
    """z^T H z of a function, forward."""

    @tf.function
    def form():
        with Line() as line:
            return line.acceleration(function(line.attach_velocity(x, z)))

    return form()


def in_a_loop(function):
    """The same, evaluated in a loop."""

    def loop(x):
        def body(index, total):
            return index + 1, total + 0.5 * function(x)

        return tf.while_loop(lambda index, _: index < 2, body, (0, tf.zeros((), x.dtype)))[1]

    return loop


PLACES = {"plain": lambda function: function, "loop": in_a_loop, "function": tf.function}


@pytest.mark.matrix
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", [(6, 9), (3, 2)])
@pytest.mark.parametrize("options", [{"half_pixel_centers": True}, {"align_corners": True}, {}])
def test_bilinear_resizing_has_the_second_derivative_of_a_product(options, size, place):
    generator = np.random.default_rng(0)
    x, z = (tf.constant(generator.normal(size=(2, 4, 5, 3))) for _ in range(2))

    def resize(images):
        return tf.raw_ops.ResizeBilinear(images=images, size=size, **options)

    matrix = resize(tf.reshape(tf.eye(20, dtype=x.dtype), (20, 4, 5, 1)))
    matrix = tf.cast(tf.reshape(matrix, (4, 5, *size)), x.dtype)

    def multiplied(x):
        return tf.reduce_sum(tf.sin(2.0 * tf.einsum("nijc,ijkl->nklc", x, matrix)))

    def resized(x):
        return tf.reduce_sum(tf.sin(2.0 * tf.cast(resize(x), x.dtype)))

    expected = second_derivative(multiplied, x, z)
    found = second_derivative(PLACES[place](resized), x, z)
    # TensorFlow resizes in single precision.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    if place == "plain":
        form = form_along_a_line(resized, x, z)
        np.testing.assert_allclose(form, tf.reduce_sum(expected * z), rtol=1e-5)


# Registered as not differentiable, with inputs and outputs that may be floating-point.
CARRY_NOTHING = {
    "constant almost everywhere": [
        "EditDistance",
        "SampleDistortedBoundingBox",
        "SampleDistortedBoundingBoxV2",
        "StatelessRandomBinomial",
        "StatelessRandomPoisson",
    ],
    "constant": ["OnesLike", "StopGradient", "ZerosLike"],
    "no part of a model": [
        "Assign",
        "AssignAdd",
        "AssignSub",
        "ScatterAdd",
        "ScatterDiv",
        "ScatterMul",
        "ScatterNdAdd",
        "ScatterNdSub",
        "ScatterNdUpdate",
        "ScatterSub",
        "SdcaOptimizer",
        "SdcaOptimizerV2",
        "StackPush",
        "TPUReplicatedInput",
        "TensorArrayGradV3",
        "TensorArrayGradWithShape",
    ],
}


def may_carry(arguments, definition):
    """Whether one of an operation's arguments may be floating-point, or hold what is."""
    kinds = {attr.name: attr.allowed_values.list.type for attr in definition.attr}
    for argument in arguments:
        name = argument.type_attr or argument.type_list_attr
        types = [argument.type] if argument.type else kinds[name] or [tf.float32.as_datatype_enum]
        if any(tf.as_dtype(t).is_floating or t == tf.variant for t in types):
            return True
    return False


def test_all_that_tensorflow_takes_for_not_differentiable_is_refused_or_carries_nothing():
    found = set()
    for name, entry in list_gradients().items():
        definition = op_def_registry.get(name)
        if entry["type"] is None and definition is not None:
            ends = definition.input_arg, definition.output_arg
            if all(may_carry(arguments, definition) for arguments in ends):
                found.add(name)
    found -= {"ResizeBilinearGrad"}  # which is right
    refused = set(tensorflow_ops._REFUSED)
    assert refused == found - {name for names in CARRY_NOTHING.values() for name in names}
