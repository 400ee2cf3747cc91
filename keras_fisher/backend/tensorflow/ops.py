"""Replacements of TensorFlow's derivatives during a trace.

`replace_moments` and `replace_gradients` replace wrong derivatives by correct ones, and
`replace_convolutions` slow ones by fast ones. A `tf.function` traced outside keeps TensorFlow's
own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import tensorflow as tf

from keras_fisher.backend.private_api.tensorflow import (
    look_up_gradient,
    record_operation,
    stop_recording,
)
from keras_fisher.backend.tensorflow.registry import Replacement, name_gradient
from keras_fisher.backend.types import Tensor


def replace_moments() -> contextlib.AbstractContextManager[None]:
    """Corrects the second derivative of `tf.nn.moments`, and of Keras layers that use it.

    TensorFlow computes the variance around `stop_gradient(mean)`. This does not affect the first
    derivative, but it makes the second derivative of batch, layer and group normalisation silently
    wrong in a nested tape.
    """
    return _MOMENTS.replace()


def replace_gradients() -> contextlib.AbstractContextManager[None]:
    """Corrects derivatives inside the context where TensorFlow's second ones are silently wrong.

    - Max pooling whose input and output have the same shape: in a graph on a CPU, TensorFlow's
      second derivative may overwrite the gradient that it still reads, so that overlapping windows
      get wrong values.
    - Bilinear resizing: TensorFlow registers its gradient as not differentiable, which a tape
      treats as a derivative of zero.
    - All other operations registered as not differentiable although their output depends on their
      input, such as the gradient of fake quantisation: these raise `NotImplementedError`.
    """
    return _GRADIENTS.replace()


def refuse_wrong_gradients() -> contextlib.AbstractContextManager[None]:
    """Raises inside the context for operations whose first derivative is wrong in TensorFlow.

    Layers that rotate, shear, shift or zoom an image project it. TensorFlow uses the inverse
    projection as the gradient instead of the transpose, which is wrong where pixels are
    interpolated.
    """
    return _WRONG.replace()


def replace_convolutions() -> contextlib.AbstractContextManager[None]:
    """Computes derivatives of two-dimensional convolutions in the context by forward convolutions.

    On processors for which TensorFlow disables oneDNN, its input gradient of a convolution takes up
    to thirty times as long as the convolution. It equals a convolution of the output gradient with
    the flipped kernel. This covers strides and dilation of 1, no groups, and channels last, without
    a GPU.
    """
    return _CONVOLUTIONS.replace()


def make_derivative_error(reason: object) -> NotImplementedError:
    """Returns the error for an operation that cannot be differentiated twice."""
    return NotImplementedError(
        "An operation of the model has no second derivative in TensorFlow: in training use "
        "gradient='finite_difference' (and, for an LSTM or GRU on a GPU, use_cudnn=False). "
        f"TensorFlow says: {reason}"
    )


def _moments(
    x: Tensor, axes: Any, shift: Any = None, keepdims: bool = False, name: str | None = None
) -> tuple[Tensor, Tensor]:
    """Returns mean and variance of `x` over `axes`, differentiable any number of times."""
    del shift
    with tf.name_scope(name or "moments"):
        wide = tf.cast(x, tf.float32) if x.dtype == tf.float16 else x
        mean = tf.reduce_mean(wide, axes, keepdims=True)
        variance = tf.reduce_mean(tf.math.squared_difference(wide, mean), axes, keepdims=True)
        if not keepdims:
            mean, variance = tf.squeeze(mean, axes), tf.squeeze(variance, axes)
        return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)


def _resize_bilinear_gradient(op: tf.Operation, g: Tensor) -> list[Tensor]:
    """Returns the gradient of a bilinear resize; its own gradient is a resize to the size of g.

    It records the operation: TensorFlow's tapes keep no inputs of non-differentiable operations,
    and so not the size of g. No public API records an operation.
    """
    with stop_recording():
        by_image, _ = _TF_RESIZE_BILINEAR_GRADIENT(op, g)
    size = tf.shape(g)[1:3]
    record_operation("ResizeBilinearGrad", [by_image], [g], lambda z: [_resize(op, z, size)])
    return [by_image, None]


def _resize_bilinear_grad_gradient(op: tf.Operation, z: Tensor) -> list[Tensor]:
    """Returns the gradient of the operation `ResizeBilinearGrad` in a loop or a function."""
    if op.inputs is None:
        _refuse(op)
    return [_resize(op, z, tf.shape(op.inputs[0])[1:3]), None]


def _resize(op: tf.Operation, image: Tensor, size: Tensor) -> Tensor:
    return tf.raw_ops.ResizeBilinear(
        images=image,
        size=size,
        align_corners=op.get_attr("align_corners"),
        half_pixel_centers=op.get_attr("half_pixel_centers"),
    )


def _max_pool_grad_gradient(op: tf.Operation, z: Tensor) -> list[Tensor]:
    return _pool_gradients(op, z, tf.raw_ops.MaxPoolGradGrad)


def _max_pool_3d_grad_gradient(op: tf.Operation, z: Tensor) -> list[Tensor]:
    return _pool_gradients(op, z, tf.raw_ops.MaxPool3DGradGrad)


def _pool_gradients(op: tf.Operation, z: Tensor, pool: Callable[..., Tensor]) -> list[Tensor]:
    """Returns the gradients of a max pooling's gradient: z at the largest inputs.

    It pads first, so that input and output shapes differ.
    """
    x, y = op.inputs[:2]
    names = ("ksize", "strides", "padding", "data_format")
    options = {name: op.get_attr(name) for name in names}
    padded_x, padded_z = x, z
    may_be_equal = tf.TensorShape(x.shape[1:]).is_compatible_with(y.shape[1:])
    if may_be_equal and options["padding"] in ("SAME", b"SAME"):
        options["padding"] = "VALID"
        around = _list_paddings(x, options["ksize"], options["strides"])
        padded_x = tf.pad(x, around, constant_values=x.dtype.min)  # never a maximum
        padded_z = tf.pad(z, around)
    result = pool(orig_input=padded_x, orig_output=y, grad=padded_z, **options)
    return [tf.zeros_like(x), tf.zeros_like(y), tf.ensure_shape(result, y.shape)]


def _list_paddings(
    x: Tensor, ksize: Sequence[int], strides: Sequence[int]
) -> list[tuple[int | Tensor, int | Tensor]]:
    """Returns the padding that "SAME" adds before and after each axis."""
    paddings = []
    for axis, (window, stride) in enumerate(zip(ksize, strides, strict=True)):
        size = x.shape[axis]
        if stride == 1:
            missing = window - 1
        elif size is None:
            size = tf.shape(x)[axis]
            missing = tf.maximum((-(-size // stride) - 1) * stride + window - size, 0)
        else:
            missing = max((-(-size // stride) - 1) * stride + window - size, 0)
        paddings.append((missing // 2, missing - missing // 2))
    return paddings


def _refuse(op: tf.Operation, *_: Tensor) -> NoReturn:
    raise make_derivative_error(f"operation {op.type!r} is registered as not differentiable")


def _refuse_wrong(op: tf.Operation, *_: Tensor) -> NoReturn:
    raise NotImplementedError(
        f"TensorFlow's gradient of operation {op.type!r} is wrong, so a penalty through it "
        "would be wrong too. Put layers that project images (rotate, shear, shift or zoom them) "
        "before all weights, or into the data pipeline, and use a penalty other than 'gp_x'; or "
        "use JAX."
    )


def _convolution_gradient(op: tf.Operation, g: Tensor) -> list[Tensor]:
    x, kernel = op.inputs
    around = _find_padding(op, kernel.shape)
    if around is None:
        return _TF_CONVOLUTION_GRADIENT(op, g)
    by_kernel = tf.raw_ops.Conv2DBackpropFilter(
        input=x,
        filter_sizes=tf.shape(kernel),
        out_backprop=g,
        strides=[1, 1, 1, 1],
        padding=op.get_attr("padding"),
        explicit_paddings=op.get_attr("explicit_paddings"),
    )
    return [_convolve_back(g, kernel, around), by_kernel]


def _kernel_grad_gradient(op: tf.Operation, z: Tensor) -> list[Tensor]:
    """Returns the gradients of a convolution's kernel gradient, with respect to input and g."""
    x, _, g = op.inputs
    around = _find_padding(op, z.shape)
    if around is None:
        return _TF_KERNEL_GRAD_GRADIENT(op, z)
    return [_convolve_back(g, z, around), None, _convolve(x, z, around)]


def _find_padding(op: tf.Operation, kernel_shape: tf.TensorShape) -> list[int] | None:
    """Returns the padding above, below, left and right of images; `None` if not replaced."""
    high, wide, channels, _ = kernel_shape
    covered = (
        set(op.get_attr("strides")) == set(op.get_attr("dilations")) == {1}
        and op.get_attr("data_format") in (None, "NHWC", b"NHWC")
        and None not in (high, wide, channels)
        and op.inputs[0].shape[-1] == channels
        and not tf.config.get_visible_devices("GPU")
    )
    if not covered:
        return None
    padding = op.get_attr("padding")
    if padding in ("VALID", b"VALID"):
        return [0, 0, 0, 0]
    if padding in ("SAME", b"SAME"):
        return _same_padding(high, wide)
    around = list(op.get_attr("explicit_paddings"))[2:6]
    is_within = max(around[:2]) < high and max(around[2:]) < wide
    return around if is_within else None


def _same_padding(high: int, wide: int) -> list[int]:
    return [(high - 1) // 2, high // 2, (wide - 1) // 2, wide // 2]


def _convolve_back(g: Tensor, kernel: Tensor, around: list[int]) -> Tensor:
    """Returns the transpose of a convolution: the convolution of g with the flipped kernel."""
    high, wide = kernel.shape[:2]
    turned = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
    sizes = (high, high, wide, wide)
    return _convolve(g, turned, [k - 1 - p for k, p in zip(sizes, around, strict=True)])


def _convolve(x: Tensor, kernel: Tensor, around: list[int]) -> Tensor:
    padding, explicit = "EXPLICIT", [0, 0, *around, 0, 0]
    # Named paddings are faster.
    if not any(around):
        padding, explicit = "VALID", []
    elif around == _same_padding(*kernel.shape[:2]):
        padding, explicit = "SAME", []
    return tf.raw_ops.Conv2D(
        input=x, filter=kernel, strides=[1, 1, 1, 1], padding=padding, explicit_paddings=explicit
    )


# Operations that TensorFlow registers as not differentiable although their output depends on their
# input; a tape would treat them as constant. All others are constant almost everywhere.
_REFUSED = (
    "CTCBeamSearchDecoder",
    "CTCGreedyDecoder",
    "DrawBoundingBoxes",
    "ExtractGlimpse",
    "FakeQuantWithMinMaxArgsGradient",
    "FakeQuantWithMinMaxVarsGradient",
    "FakeQuantWithMinMaxVarsPerChannelGradient",
    "GenerateBoundingBoxProposals",
    "HSVToRGB",
    "LinSpace",
    "LoadAndRemapMatrix",
    "LookupTableFind",
    "LookupTableFindV2",
    "OneHot",
    "ParameterizedTruncatedNormal",
    "PyFunc",
    "PyFuncStateless",
    "RaggedRange",
    "RandomCrop",
    "RandomShuffle",
    "Range",
    "ReduceDataset",
    "SparseAddGrad",
    "SparseConcat",
    "TensorListConcatLists",
    "TensorListPushBackBatch",
    "XlaVariadicReduce",
)

_TF_CONVOLUTION_GRADIENT = look_up_gradient("Conv2D")
_TF_KERNEL_GRAD_GRADIENT = look_up_gradient("Conv2DBackpropFilter")
_TF_RESIZE_BILINEAR_GRADIENT = look_up_gradient("ResizeBilinear")

_MOMENTS = Replacement((tf.nn, "moments", _moments))
_GRADIENTS = Replacement(
    name_gradient("MaxPool3DGrad", _max_pool_3d_grad_gradient),
    name_gradient("MaxPoolGrad", _max_pool_grad_gradient),
    name_gradient("ResizeBilinear", _resize_bilinear_gradient),
    name_gradient("ResizeBilinearGrad", _resize_bilinear_grad_gradient),
    *(name_gradient(operation, _refuse) for operation in _REFUSED),
)
_WRONG = Replacement(
    name_gradient("ImageProjectiveTransformV2", _refuse_wrong),
    name_gradient("ImageProjectiveTransformV3", _refuse_wrong),
)
_CONVOLUTIONS = Replacement(
    name_gradient("Conv2D", _convolution_gradient),
    name_gradient("Conv2DBackpropFilter", _kernel_grad_gradient),
)
