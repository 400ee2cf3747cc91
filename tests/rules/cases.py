"""Layers with rules, in every configuration, one table for all tests of the rules.

A case is a piece of a model. All cases of a group are measured side by side, in one model: each has
its own input, and its outputs are a part of the model's.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from keras_fisher.zoo.fixup import FixupBias, FixupScale
from keras_fisher.zoo.skip_init import SkipInitScale
from keras_fisher.zoo.weight_norm import WeightNormConv2D, WeightNormDense
from tests import reference
from tests.traces.per_example.loop import normal, randomise


class Case(NamedTuple):
    shape: tuple[int, ...]  # of one input
    apply: Callable[[Any], Any]  # makes layers and calls them on an input
    vocabulary: int | None = None  # inputs are integers below it
    lowest: int = 0  # and not below this


def chain(*kinds):
    """Makes the layers and calls one after another."""

    def apply(x):
        for kind in kinds:
            x = kind()(x)
        return x

    return apply


def layer(kind, *args, **kwargs):
    return functools.partial(kind, *args, **kwargs)


def once(shape, kind, *args, **kwargs):
    """A layer alone."""
    return Case(shape, chain(layer(kind, *args, **kwargs)))


def einsum(shape, equation, output_shape, bias_axes=None, **kwargs):
    return once(shape, layers.EinsumDense, equation, output_shape, bias_axes=bias_axes, **kwargs)


class Tied(layers.Dense):
    """A dense layer with the kernel of another."""

    def __init__(self, kernel):
        super().__init__(kernel.shape[-1], use_bias=False)
        self._kernel, self.bias = kernel, None

    def build(self, input_shape):
        pass


def twice(kind, *args, **kwargs):
    """One layer called on its own outputs."""

    def apply(x):
        called = kind(*args, **kwargs)
        return called(keras.ops.tanh(called(x)))

    return apply


def embedded_twice(tokens):
    table = layers.Embedding(4, 3)
    return table(tokens) * table(3 - tokens)


def reversible(lora=None, **kwargs):
    """A table that is read and, in reverse, multiplied by."""

    def apply(tokens):
        table = layers.ReversibleEmbedding(5, 3, **kwargs)
        table.build()
        if lora is not None:
            table.enable_lora(*lora)
        return table(keras.ops.tanh(2 * table(tokens)), reverse=True)

    return Case((6,), apply, vocabulary=5, lowest=-5)


def tied(x):
    first = layers.Dense(4, use_bias=False)
    x = keras.ops.tanh(first(x))
    return Tied(first.kernel)(x)


def nested(x):
    inner = keras.Sequential([layers.Dense(4, activation="tanh"), layers.BatchNormalization()])
    inside = keras.Input((3,))
    middle = keras.Model(inside, layers.Dense(2)(inner(inside)))
    return middle(x) + middle(x**2)


def frozen(x):
    x = layers.Dense(4, activation="tanh")(x)
    x = layers.Dense(4, activation="tanh", trainable=False)(x)
    normalization = layers.BatchNormalization()
    x = normalization(x)
    normalization.gamma.trainable = False
    return layers.Dense(2)(x)


def attention(kind, *args, **kwargs):
    def apply(x):
        return kind(*args, use_bias=False, **kwargs)(x, x[:, :3], use_causal_mask=True)

    return apply


# Where kernels move: sizes, kernel, strides, dilation; all different along different axes.
# (Channels differ from all sizes of the last axis: where they do not, Keras 3.15 with TensorFlow
# adds the bias of a channels-first layer along that axis.)
_SIZES = {1: (11,), 2: (8, 9), 3: (4, 6, 5)}
_SMALL_SIZES = {1: (5,), 2: (4, 5), 3: (4, 2, 3)}
_KERNELS = {1: (3,), 2: (2, 3), 3: (2, 1, 3)}
_STRIDES = {1: (2,), 2: (2, 3), 3: (3, 2, 1)}
_DILATIONS = {1: (2,), 2: (3, 2), 3: (3, 2, 1)}
_FORMATS = ("channels_last", "channels_first")


def _steps(rank):
    """What Keras accepts: strides or dilation, not both."""
    return [{}, {"strides": _STRIDES[rank]}, {"dilation_rate": _DILATIONS[rank]}]


def _case(kind, size, channels, *args, data_format, **options):
    """A named layer that reads images of that size."""
    first = data_format == "channels_first"
    shape = (channels, *size) if first else (*size, channels)
    parts = [f"{key}={value}".replace(" ", "") for key, value in options.items()]
    case = once(shape, kind, *args, data_format=data_format, **options)
    return "-".join([*parts, f"{channels}-channels", data_format]), case


def convolutions(kind, rank):
    """Both formats in turn; and every way of the rule: shifting input or output, or neither."""
    paddings = ("valid", "same", "causal") if rank == 1 else ("valid", "same")
    forms = [(_SIZES[rank], 2, 4, 1), (_SIZES[rank], 4, 2, 1), (_SIZES[rank], 4, 8, 2)]
    forms.append((_SMALL_SIZES[rank], 80, 90, 1))
    combinations = itertools.product(paddings, _steps(rank), forms)
    return dict(
        _case(
            kind,
            size,
            channels,
            filters,
            _KERNELS[rank],
            padding=padding,
            **step,
            groups=groups,
            data_format=_FORMATS[i % 2],
        )
        for i, (padding, step, (size, channels, filters, groups)) in enumerate(combinations)
    )


def transposed(kind, rank):
    """Both formats in turn, and both more and fewer channels out than in."""
    padded = {"strides": (3,) * rank, "output_padding": (1,) * rank}
    size = tuple(n // 2 for n in _SIZES[rank])
    combinations = itertools.product(("valid", "same"), [*_steps(rank), padded])
    return dict(
        _case(
            kind,
            size,
            (2, 5)[i % 3 % 2],
            3,
            (3, 3, 1)[:rank],
            padding=padding,
            **step,
            data_format=_FORMATS[(i + i // 4) % 2],
        )
        for i, (padding, step) in enumerate(combinations)
    )


def by_channel(kind, rank, *filters):
    """Depthwise and separable: strides and dilation are alike along all axes, and both at once."""
    steps = [{"strides": s, "dilation_rate": d} for s, d in ((1, 1), (2, 1), (1, 2), (2, 3))]
    combinations = itertools.product(("valid", "same"), steps)
    return dict(
        _case(
            kind,
            _SIZES[2][-rank:],
            3,
            *filters,
            3,
            padding=padding,
            **step,
            depth_multiplier=(2, 1)[i % 3 % 2],
            data_format=_FORMATS[(i + i // 4) % 2],
        )
        for i, (padding, step) in enumerate(combinations)
    )


DENSE = {
    "matrix": once((4,), layers.Dense, 5),
    "two-by-two": once((2,), layers.Dense, 2),
    "no-bias": once((4,), layers.Dense, 3, use_bias=False),
    "relu": once((4,), layers.Dense, 6, activation="relu"),
    "softmax": once((4,), layers.Dense, 3, activation="softmax"),
    "activation-layer": Case((4,), lambda x: layers.Dense(3, layers.LeakyReLU())(x)),
    "many-steps": once((9, 2), layers.Dense, 3, activation="tanh"),
    "few-steps": once((2, 7), layers.Dense, 6),
    "four-axes": once((2, 3, 4), layers.Dense, 2, use_bias=False),
    "called-twice": Case((4,), twice(layers.Dense, 4, activation="tanh")),
    "called-twice-on-steps": Case((5, 3), twice(layers.Dense, 3)),
    "kernel-shared-by-two": Case((4,), tied),
    "nested-models-called-twice": Case((3,), nested),
    "frozen": Case((3,), frozen),
    "lora": once((4,), layers.Dense, 5, activation="tanh", lora_rank=2),
    "lora-no-bias-many-steps": once((9, 2), layers.Dense, 3, use_bias=False, lora_rank=1),
    "lora-scaled": once((2, 7), layers.Dense, 6, lora_rank=3, lora_alpha=5),
    "lora-called-twice": Case((5, 3), twice(layers.Dense, 3, lora_rank=2)),
    "reshaped": Case((4, 3), chain(layer(layers.Reshape, (-1, 2)), layer(layers.Dense, 2))),
}

EINSUM = {
    "ab,bc->ac": einsum((4,), "ab,bc->ac", 3, "c"),
    "ab,cb->ac": einsum((4,), "ab,cb->ac", 3),
    "ab,b->ab": einsum((4,), "ab,b->ab", 4, "b"),
    "ab,bcd->acd": einsum((4,), "ab,bcd->acd", (2, 3), "cd"),
    "abc,cd->abd": einsum((5, 4), "abc,cd->abd", (5, 3), "bd", activation="tanh"),
    "abc,cd->adb": einsum((5, 4), "abc,cd->adb", (3, 5), "d"),
    "abc,cde->abde": einsum((3, 4), "abc,cde->abde", (3, 2, 3), "e"),
    "abcd,cde->abe": einsum((3, 4, 2), "abcd,cde->abe", (3, 3), "e"),
    "abc,bcd->abd": einsum((3, 4), "abc,bcd->abd", (3, 2), "d"),
    "abc,bcd->adb": einsum((3, 4), "abc,bcd->adb", (2, 3), "db"),
    "abcd,dbe->acbe": einsum((2, 3, 4), "abcd,dbe->acbe", (3, 2, 5), "be"),
    "abc,cd->ad": einsum((3, 4), "abc,cd->ad", 2),
    "...x,xy->...y": einsum((2, 3, 4), "...x,xy->...y", 3, "y"),
    "called-twice": Case((3, 2, 2), twice(layers.EinsumDense, "abcd,ced->abec", (3, 2, 2))),
    "lora-abc,cde->abde": einsum((3, 4), "abc,cde->abde", (3, 2, 3), "e", lora_rank=2),
    "lora-abcd,cde->abe": einsum((3, 4, 2), "abcd,cde->abe", (3, 3), "e", lora_rank=2),
    "lora-abc,bcd->abd": einsum((3, 4), "abc,bcd->abd", (3, 2), "d", lora_rank=1, lora_alpha=3),
    "lora-abc,cd->ad": einsum((3, 4), "abc,cd->ad", 2, lora_rank=1),
    "lora-...x,xy->...y": einsum((2, 3, 4), "...x,xy->...y", 3, "y", lora_rank=2),
    "lora-called-twice": Case(
        (3, 2, 2), twice(layers.EinsumDense, "abcd,cde->abec", (3, 2, 2), lora_rank=2)
    ),
    "multi-head-attention": Case((4, 3), attention(layers.MultiHeadAttention, 2, 2)),
    "grouped-query-attention": Case((4, 3), attention(layers.GroupQueryAttention, 2, 4, 2)),
}

CONVOLUTION = {
    "many-positions": once((8, 8, 2), layers.Conv2D, 3, 3, activation="relu"),
    "few-positions": once((2, 2, 8), layers.Conv2D, 6, 2, padding="same", activation="tanh"),
    "a-position": once((2, 2, 20), layers.Conv2D, 9, 2, activation="tanh"),
    "few-positions-called-twice": Case((3, 30), twice(layers.Conv1D, 30, 3, padding="same")),
    "no-bias": once((5, 2), layers.Conv1D, 3, 2, use_bias=False),
    "one-by-one": once((5, 4, 3), layers.Conv2D, 2, 1),
    "kernel-larger-than-input": once((2, 3, 2), layers.Conv2D, 3, 5, padding="same"),
    "strides-larger-than-kernel": once((8, 7, 2), layers.Conv2D, 3, 2, strides=3),
    "one-after-another": Case(
        (6, 7, 2),
        chain(
            layer(layers.Conv2D, 3, 3, padding="same", activation="relu"),
            layer(layers.Conv2D, 4, (2, 3), activation="tanh"),
            layer(layers.Conv2D, 2, 3, strides=2),
        ),
    ),
    "called-twice": Case((5, 5, 2), twice(layers.Conv2D, 2, (2, 3), padding="same")),
    "called-twice-causal": Case((6, 3), twice(layers.Conv1D, 3, 2, padding="causal")),
    "grouped-called-twice": Case((5, 4), twice(layers.Conv1D, 4, 2, groups=2)),
    "transposed": once((3, 3, 2), layers.Conv2DTranspose, 3, 3, strides=2, activation="tanh"),
    "transposed-called-twice": Case((3, 2), twice(layers.Conv1DTranspose, 2, 3, strides=2)),
    "depthwise": once((5, 5, 3), layers.DepthwiseConv2D, 3, activation="relu"),
    "depthwise-called-twice": Case((6, 3), twice(layers.DepthwiseConv1D, 2)),
    "separable": once((5, 5, 3), layers.SeparableConv2D, 2, 3, activation="tanh"),
    "separable-called-twice": Case((7, 2), twice(layers.SeparableConv1D, 2, 3, depth_multiplier=2)),
}

EMBEDDING = {
    "repeated-ids": Case((6,), chain(layer(layers.Embedding, 3, 4)), vocabulary=3),
    "one-id": Case((), chain(layer(layers.Embedding, 5, 4)), vocabulary=5),
    "two-axes": Case((3, 2), chain(layer(layers.Embedding, 3, 4)), vocabulary=3),
    "masked": Case(
        (6,),
        chain(layer(layers.Embedding, 3, 4, mask_zero=True), layers.GlobalAveragePooling1D),
        vocabulary=3,
    ),
    "called-twice": Case((5,), embedded_twice, vocabulary=4),
    "lora": Case((6,), chain(layer(layers.Embedding, 3, 4, lora_rank=2)), vocabulary=3),
    "lora-scaled-from-the-end": Case(
        (6,),
        chain(layer(layers.Embedding, 3, 4, lora_rank=2, lora_alpha=5)),
        vocabulary=3,
        lowest=-3,
    ),
    "reversible": reversible(),
    "reversible-untied": reversible(tie_weights=False),
    "reversible-capped": reversible(logit_soft_cap=2.0),
    "reversible-untied-capped": reversible(logit_soft_cap=2.0, tie_weights=False),
    "reversible-masked": reversible(mask_zero=True),
    "reversible-lora": reversible(lora=(2, 3)),
    "reversible-lora-capped": reversible(lora=(2,), logit_soft_cap=2.0),
    "reversible-untied-lora": reversible(lora=(2,), tie_weights=False),
    "reversible-forward-alone": Case(
        (6,), chain(layer(layers.ReversibleEmbedding, 3, 4)), vocabulary=3
    ),
    "reversible-in-reverse-alone": Case(
        (6, 3), lambda x: layers.ReversibleEmbedding(5, 3)(x, reverse=True)
    ),
    "reversible-square": Case((4, 5), lambda x: layers.ReversibleEmbedding(5, 5)(x, reverse=True)),
    "from-the-end": Case((7,), chain(layer(layers.Embedding, 3, 4)), vocabulary=3, lowest=-3),
}

NORMALIZATION = {
    "batch": once((4,), layers.BatchNormalization),
    "batch-images": once((3, 4, 2), layers.BatchNormalization, epsilon=0.1),
    "batch-axis-1": once((3, 4, 2), layers.BatchNormalization, axis=1),
    "batch-no-scale": once((3, 2), layers.BatchNormalization, scale=False),
    "batch-no-center": once((3, 2), layers.BatchNormalization, center=False),
    "batch-called-twice": Case((3, 2), twice(layers.BatchNormalization)),
    "layer": once((3, 5), layers.LayerNormalization, epsilon=0.1),
    "layer-two-axes": once((3, 4, 2), layers.LayerNormalization, axis=(3, 1)),
    "layer-axes-from-both-ends": once((3, 4, 2), layers.LayerNormalization, axis=(1, -1)),
    # On PyTorch, Keras 3.15 takes an axis that is not the last for the last one.
    **(
        {}
        if reference.IS_TORCH
        else {"layer-axis-1": once((4, 3), layers.LayerNormalization, axis=1)}
    ),
    "layer-no-scale": once((3, 4), layers.LayerNormalization, scale=False),
    "layer-no-center": once((3, 4), layers.LayerNormalization, center=False),
    "layer-rms-scaling": once((3, 4), layers.LayerNormalization, rms_scaling=True),
    "group": once((3, 3, 4), layers.GroupNormalization, 2),
    "group-axis-1": once((4, 3, 3), layers.GroupNormalization, 2, axis=1),
    "group-no-scale": once((3, 4), layers.GroupNormalization, 2, scale=False),
    "instance": once((3, 3, 4), layers.GroupNormalization, -1),
    "rms": once((3, 4), layers.RMSNormalization, epsilon=0.1),
    "rms-two-axes": once((3, 4), layers.RMSNormalization, axis=(1, 2)),
    "rms-called-twice": Case((3, 4), twice(layers.RMSNormalization)),
}

_TANH = layer(layers.Activation, "tanh")
SCALE = {
    "prelu": once((4, 3), layers.PReLU),
    "prelu-shared-axes": once((3, 4, 2), layers.PReLU, shared_axes=(1, 2)),
    "prelu-called-twice": Case((4, 2), twice(layers.PReLU, shared_axes=(1,))),
    "skip-init": once((3, 4), SkipInitScale),
    "fixup": Case((5, 4), chain(FixupBias, _TANH, FixupScale, FixupBias, _TANH)),
}

_SCATTERED = {"gain_initializer": keras.initializers.RandomUniform(0.5, 2.0, seed=3)}
WEIGHT_NORM_LAYERS = {
    "dense": layer(WeightNormDense, 5, **_SCATTERED),
    "dense-activation": layer(WeightNormDense, 5, activation="tanh", **_SCATTERED),
    "conv": layer(WeightNormConv2D, 5, 3, padding="same", **_SCATTERED),
    "conv-strides": layer(WeightNormConv2D, 5, 3, 2, use_bias=False, gain_initializer="ones"),
    "conv-groups": layer(WeightNormConv2D, 4, (2, 3), groups=2, **_SCATTERED),
}

# Every kind of layer, and every way to use one.
KINDS = {
    "dense": DENSE,
    "einsum": EINSUM,
    "convolution": CONVOLUTION,
    "embedding": EMBEDDING,
    "normalization": NORMALIZATION,
    "scale": SCALE,
    "weight-norm": {
        name: Case((6, 7, 4), chain(make)) for name, make in WEIGHT_NORM_LAYERS.items()
    },
}

# One layer for each rule.
ONE_OF_EACH = {
    "dense": DENSE["relu"],
    "einsum": EINSUM["abcd,cde->abe"],
    "grouped-einsum": EINSUM["abc,bcd->abd"],
    "convolution": CONVOLUTION["few-positions"],
    "shifted-convolution": once((5, 5, 4), layers.Conv2D, 2, 3),
    "grouped-convolution": once((7, 4), layers.Conv1D, 6, 3, groups=2, padding="causal"),
    "transposed-convolution": CONVOLUTION["transposed"],
    "depthwise-convolution": CONVOLUTION["depthwise"],
    "separable-convolution": once((6, 6, 3), layers.SeparableConv2D, 4, 2),
    "embedding": EMBEDDING["repeated-ids"],
    "reversible-embedding": EMBEDDING["reversible"],
    "lora": DENSE["lora"],
    "batch-normalization": NORMALIZATION["batch-images"],
    "layer-normalization": NORMALIZATION["layer"],
    "group-normalization": NORMALIZATION["group"],
    "rms-normalization": NORMALIZATION["rms"],
    "prelu": SCALE["prelu-shared-axes"],
    "skip-init": SCALE["skip-init"],
}

# Every combination of options of a convolution, in one data format.
COMBINATIONS = {
    "conv1d": convolutions(layers.Conv1D, 1),
    "conv2d": convolutions(layers.Conv2D, 2),
    "conv3d": convolutions(layers.Conv3D, 3),
    "conv1d-transpose": transposed(layers.Conv1DTranspose, 1),
    "conv2d-transpose": transposed(layers.Conv2DTranspose, 2),
    "conv3d-transpose": transposed(layers.Conv3DTranspose, 3),
    "depthwise-conv1d": by_channel(layers.DepthwiseConv1D, 1),
    "depthwise-conv2d": by_channel(layers.DepthwiseConv2D, 2),
    "separable-conv1d": by_channel(layers.SeparableConv1D, 1, 3),
    "separable-conv2d": by_channel(layers.SeparableConv2D, 2, 3),
}

# What Keras itself can do on a CPU of what `portable.convolutions` does in its place.
BY_XLA = once((4, 4, 5), layers.Conv2D, 2, 2, groups=2, data_format="channels_first")


class Model(NamedTuple):
    model: keras.Model
    x: dict[str, np.ndarray]
    y: np.ndarray
    columns: dict[str, list[int]]  # the weights of each case


def side_by_side(cases, examples=3):
    """Returns a model of all the cases, an input and a target for each example."""
    inputs, outputs, weights = {}, [], {}
    for number, (key, case) in enumerate(cases.items()):
        dtype = None if case.vocabulary is None else "int32"
        inputs[f"x{number}"] = start = keras.Input(case.shape, dtype=dtype, name=f"x{number}")
        end = case.apply(start)
        weights[key] = keras.Model(start, end).trainable_weights
        outputs.append(layers.Flatten()(end))
    model = keras.Model(inputs, layers.Concatenate()(outputs) if outputs[1:] else outputs[0])
    randomise(model)
    x = {
        f"x{number}": normal(examples, *case.shape, seed=number)
        if case.vocabulary is None
        else np.random.default_rng(number).integers(
            case.lowest, case.vocabulary, (examples, *case.shape)
        )
        for number, case in enumerate(cases.values())
    }
    index = {id(weight): i for i, weight in enumerate(model.trainable_weights)}
    columns = {key: [index[id(weight)] for weight in found] for key, found in weights.items()}
    return Model(model, x, normal(examples, model.output_shape[-1]), columns)
