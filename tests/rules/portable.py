"""Convolutions that TensorFlow lacks on a CPU, made of those that it has."""

import contextlib
from unittest import mock

import keras
from keras import ops


@contextlib.contextmanager
def convolutions():
    """Lets every convolution run on a CPU.

    Keras 3.15 with TensorFlow 2.21 on a CPU has no `channels_first` Conv1D, Conv2D and transposed
    convolution and no dilated transposed convolution, and it compiles a grouped convolution, or
    a `channels_first` Conv3D, with XLA for 0.3 seconds whenever one is called. Here axes are moved,
    groups convolved apart and dilated kernels filled with zeros.
    """
    nn = keras.src.backend.nn
    plain, plain_transpose = nn.conv, nn.conv_transpose

    def conv(x, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1):
        def channels_last(x):
            groups = x.shape[-1] // kernel.shape[-2]
            pairs = zip(ops.split(x, groups, -1), ops.split(kernel, groups, -1), strict=True)
            options = (strides, padding, "channels_last", dilation_rate)
            return ops.concatenate([plain(*pair, *options) for pair in pairs], axis=-1)

        return _moved(channels_last, x, data_format)

    def conv_transpose(
        x,
        kernel,
        strides=1,
        padding="valid",
        output_padding=None,
        data_format=None,
        dilation_rate=1,
    ):
        def channels_last(x):
            filled = _filled(ops.convert_to_tensor(kernel), dilation_rate)
            return plain_transpose(x, filled, strides, padding, output_padding, "channels_last")

        return _moved(channels_last, x, data_format)

    with mock.patch.multiple(nn, conv=conv, conv_transpose=conv_transpose):
        yield


def _moved(function, x, data_format):
    if data_format == "channels_first":
        return ops.moveaxis(function(ops.moveaxis(x, 1, -1)), -1, 1)
    return function(x)


def _filled(kernel, dilation):
    """A kernel with zeros between its entries."""
    spatial = len(kernel.shape) - 2
    dilation = (dilation,) * spatial if isinstance(dilation, int) else dilation
    for axis, d in enumerate(dilation):
        size = kernel.shape[axis]
        apart = ops.expand_dims(kernel, axis + 1)
        paddings = [(0, d - 1 if i == axis + 1 else 0) for i in range(len(apart.shape))]
        shape = (*kernel.shape[:axis], size * d, *kernel.shape[axis + 1 :])
        kernel = ops.reshape(ops.pad(apart, paddings), shape)
        kernel = ops.take(kernel, range((size - 1) * d + 1), axis=axis)
    return kernel
