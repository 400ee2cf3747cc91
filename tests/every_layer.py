"""Every layer of Keras in a small network, one table; those that cannot be in one, with the reason.

The layer stands between two with weights, so that its second derivative counts.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import activations, layers, ops

from tests import reference

BATCH, CLASSES = 3, 3

VECTOR, SEQUENCE, IMAGE, VOLUME = (4,), (5, 4), (6, 6, 3), (4, 4, 4, 2)
FRAMES = (3, 4, 4, 2)


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer in a network.

    Attributes:
        make: Makes the layer.
        shape: Of what is put into it, without the axis of examples.
        call: Calls it.
        before: The activation of what is put into it.
        tokens: Whether it takes integers below this number, which have no weights before them.
        in_graph: Whether TensorFlow takes the step in a graph, where some operations differ.
        is_single: Whether the backend has it in single precision alone.
        is_opaque: Whether TensorFlow has no gradient of it. Then it stands before all weights, as
            augmentation does.
        seed: One with which it acts, if it acts at random.
    """

    make: Callable[[], Any]
    shape: tuple[int, ...] = VECTOR
    call: Callable[[Any, Any], Any] = lambda layer, x: layer(x)
    before: str = "tanh"
    tokens: int = 0
    in_graph: bool = False
    is_single: bool = False
    is_opaque: bool = False
    seed: int = 0

    @property
    def tolerance(self):
        """The largest relative error."""
        return 2e-4 if self.is_single else 1e-5

    @property
    def step(self):
        """The step of a difference."""
        return 3e-4 if self.is_single else 1e-5

    def model(self):
        """The network, with its weights off their special values; what it can in float64."""
        keras.utils.set_random_seed(self.seed)
        layer = self._layer()
        inputs = x = keras.Input(self.shape, dtype="int32" if self.tokens else None)
        if not self.tokens and not self.is_opaque:
            x = layers.Dense(self.shape[-1], activation=self.before)(inputs)
        x = layers.Flatten()(self.call(layer, x))
        model = keras.Model(inputs, layers.Dense(CLASSES)(x))
        generator = np.random.default_rng(0)
        for weight in model.trainable_weights:
            weight.assign(weight + 0.3 * generator.normal(size=weight.shape))
        return model

    def _layer(self):
        if not self.is_single:
            return self.make()
        # What else is computed in double precision says so by its policy.
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
        layer = self.make()
        keras.config.set_dtype_policy("float64")
        return layer

    def inputs(self):
        """A batch of inputs."""
        generator = np.random.default_rng(1)
        if self.tokens:
            return generator.integers(0, self.tokens, (BATCH, *self.shape)).astype("int32")
        draw = generator.random if self.is_opaque else generator.normal
        return draw(size=(BATCH, *self.shape)).astype(keras.config.floatx())


def _with_itself(layer, x):
    """A layer of two inputs."""
    return layer([x, layers.Dense(x.shape[-1], activation="tanh")(x)])


def _query_and_value(layer, x):
    return layer(x, layers.Dense(x.shape[-1], activation="tanh")(x))


def _one_step(layer, x):
    """A cell of a recurrent layer, with states of its own."""
    sizes = keras.tree.flatten(layer.state_size)
    states = [layers.Dense(size, activation="tanh")(x) for size in sizes]
    return layer(x, states)[0]


def _averaged(layer, x):
    """A layer of images whose output has another size in training."""
    return layers.GlobalAveragePooling2D()(layer(x))


def _image(make, **options):
    """A layer of images whose values are from 0 to 1."""
    return Case(make, IMAGE, before="sigmoid", **options)


def _of_rank(name, *args, ranks=(1, 2, 3), note="", in_graph=False, is_single=False):
    """The layers of a name for sequences, images and volumes; only volumes can be single."""
    return {
        name.format(rank) + note: Case(
            functools.partial(getattr(layers, name.format(rank)), *args),
            {1: SEQUENCE, 2: IMAGE, 3: VOLUME}[rank],
            in_graph=in_graph,
            is_single=is_single and rank == 3,
        )
        for rank in ranks
    }


_MERGING = ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")
_WITHOUT_ARGUMENTS = (
    *("ActivityRegularization", "ELU", "Identity", "LayerNormalization", "LeakyReLU", "PReLU"),
    *("RMSNormalization", "ReLU", "Softmax", "UnitNormalization"),
)
_ON_TENSORFLOW, _ON_JAX = reference.IS_TENSORFLOW, reference.IS_JAX
_UNIT = {"value_range": (0.0, 1.0)}

CASES = {
    **{name: Case(getattr(layers, name)) for name in _WITHOUT_ARGUMENTS},
    **{name: Case(getattr(layers, name), call=_with_itself) for name in _MERGING},
    **_of_rank("AdaptiveAveragePooling{}D", 3, ranks=(1, 3), is_single=_ON_TENSORFLOW),
    **_of_rank("AdaptiveMaxPooling{}D", 3, ranks=(1, 3), is_single=_ON_TENSORFLOW),
    **_of_rank("AveragePooling{}D", 2, is_single=_ON_TENSORFLOW),
    **_of_rank("Conv{}D", 2, 2),
    **_of_rank("Conv{}DTranspose", 2, 2),
    **_of_rank("Cropping{}D", 1),
    **_of_rank("DepthwiseConv{}D", 2, ranks=(1, 2)),
    **_of_rank("GlobalAveragePooling{}D"),
    **_of_rank("GlobalMaxPooling{}D"),
    **_of_rank("MaxPooling{}D", 2, is_single=_ON_TENSORFLOW),
    **_of_rank(
        "MaxPooling{}D", 3, 1, "same", note=", overlapping", in_graph=True, is_single=_ON_TENSORFLOW
    ),
    **_of_rank("SeparableConv{}D", 2, 2, ranks=(1, 2)),
    **_of_rank("SpatialDropout{}D", 0.5),
    **_of_rank("UpSampling{}D", 2),
    **_of_rank("ZeroPadding{}D", 1),
    "Activation": Case(lambda: layers.Activation("tanh")),
    "AdaptiveAveragePooling2D": Case(lambda: layers.AdaptiveAveragePooling2D(4), IMAGE),
    "AdaptiveMaxPooling2D": Case(lambda: layers.AdaptiveMaxPooling2D(4), IMAGE),
    "AdditiveAttention": Case(layers.AdditiveAttention, SEQUENCE, _with_itself),
    "AlphaDropout": Case(lambda: layers.AlphaDropout(0.3)),
    "Attention": Case(layers.Attention, SEQUENCE, _with_itself),
    "AutoContrast": _image(lambda: layers.AutoContrast(**_UNIT)),
    "BatchNormalization": Case(layers.BatchNormalization, IMAGE),
    "Bidirectional": Case(lambda: layers.Bidirectional(layers.LSTM(3)), SEQUENCE),
    "CenterCrop": _image(lambda: layers.CenterCrop(4, 4)),
    "ContrastLimitedAdaptiveHistogramEqualization": _image(
        lambda: layers.ContrastLimitedAdaptiveHistogramEqualization(tile_grid_size=(2, 2), **_UNIT),
        is_opaque=True,
    ),
    "ConvLSTM1D": Case(lambda: layers.ConvLSTM1D(2, 2), (3, 4, 2)),
    "ConvLSTM2D": Case(lambda: layers.ConvLSTM2D(2, 2), FRAMES),
    "ConvLSTM3D": Case(lambda: layers.ConvLSTM3D(2, 2), (2, 3, 3, 3, 1)),
    "CutMix": _image(layers.CutMix, seed=2),
    "Dense": Case(lambda: layers.Dense(3)),
    "Dot": Case(lambda: layers.Dot(axes=2), SEQUENCE, _with_itself),
    "Dropout": Case(lambda: layers.Dropout(0.3, seed=1)),
    "EinsumDense": Case(lambda: layers.EinsumDense("abc,cd->abd", (5, 3), bias_axes="d"), SEQUENCE),
    "Embedding": Case(lambda: layers.Embedding(7, 3), (5,), tokens=7),
    "Flatten": Case(layers.Flatten, SEQUENCE),
    "GRU": Case(lambda: layers.GRU(3), SEQUENCE),
    "GRUCell": Case(lambda: layers.GRUCell(3), call=_one_step),
    "GaussianDropout": Case(lambda: layers.GaussianDropout(0.3)),
    "GaussianNoise": Case(lambda: layers.GaussianNoise(0.3)),
    "GroupNormalization": Case(lambda: layers.GroupNormalization(3), IMAGE),
    "GroupedQueryAttention": Case(
        lambda: layers.GroupQueryAttention(2, 2, 1),
        SEQUENCE,
        _query_and_value,
        is_single=_ON_JAX,
    ),
    "LSTM": Case(lambda: layers.LSTM(3), SEQUENCE),
    "LSTMCell": Case(lambda: layers.LSTMCell(3), call=_one_step),
    "Lambda": Case(lambda: layers.Lambda(ops.sin)),
    "Masking": Case(layers.Masking, SEQUENCE),
    "MelSpectrogram": Case(
        lambda: layers.MelSpectrogram(fft_length=16, sequence_stride=8, num_mel_bins=4),
        (40,),
        is_single=_ON_TENSORFLOW,
    ),
    "MixUp": _image(layers.MixUp),
    "MultiHeadAttention": Case(
        lambda: layers.MultiHeadAttention(2, 2), SEQUENCE, _query_and_value, is_single=_ON_JAX
    ),
    "Normalization": Case(lambda: layers.Normalization(mean=0.3, variance=2.0)),
    "Permute": Case(lambda: layers.Permute((2, 1)), SEQUENCE),
    "Pipeline": Case(lambda: layers.Pipeline([layers.Rescaling(2.0)])),
    "RNN": Case(lambda: layers.RNN(layers.SimpleRNNCell(3)), SEQUENCE),
    "RandAugment": _image(lambda: layers.RandAugment(**_UNIT), is_single=_ON_TENSORFLOW),
    "RandomBrightness": _image(lambda: layers.RandomBrightness(0.3, **_UNIT)),
    "RandomColorDegeneration": _image(lambda: layers.RandomColorDegeneration(0.5, **_UNIT)),
    "RandomColorJitter": _image(
        lambda: layers.RandomColorJitter(
            brightness_factor=0.2,
            contrast_factor=0.2,
            saturation_factor=0.2,
            hue_factor=0.2,
            **_UNIT,
        )
    ),
    "RandomContrast": _image(lambda: layers.RandomContrast(0.3, **_UNIT)),
    "RandomCrop": _image(lambda: layers.RandomCrop(4, 4), call=_averaged),
    "RandomElasticTransform": _image(lambda: layers.RandomElasticTransform(**_UNIT), seed=2),
    "RandomErasing": _image(lambda: layers.RandomErasing(**_UNIT)),
    "RandomFlip": _image(layers.RandomFlip),
    "RandomGaussianBlur": _image(lambda: layers.RandomGaussianBlur(kernel_size=3, **_UNIT), seed=2),
    "RandomGrayscale": _image(layers.RandomGrayscale),
    "RandomHue": _image(lambda: layers.RandomHue(0.3, **_UNIT)),
    "RandomInvert": _image(lambda: layers.RandomInvert(**_UNIT), seed=2),
    "RandomPerspective": _image(layers.RandomPerspective, is_single=_ON_TENSORFLOW),
    "RandomPosterization": _image(lambda: layers.RandomPosterization(4, **_UNIT), is_opaque=True),
    "RandomRotation": _image(lambda: layers.RandomRotation(0.3), is_single=_ON_TENSORFLOW),
    "RandomSaturation": _image(lambda: layers.RandomSaturation(0.3, **_UNIT)),
    "RandomSharpness": _image(lambda: layers.RandomSharpness(0.3, **_UNIT)),
    "RandomShear": _image(lambda: layers.RandomShear(0.3, 0.3), is_single=_ON_TENSORFLOW),
    "RandomTranslation": _image(
        lambda: layers.RandomTranslation(0.3, 0.3), is_single=_ON_TENSORFLOW
    ),
    "RandomZoom": _image(lambda: layers.RandomZoom(0.3), is_single=_ON_TENSORFLOW),
    "RepeatVector": Case(lambda: layers.RepeatVector(2)),
    "Rescaling": Case(lambda: layers.Rescaling(2.0, 0.5)),
    "Reshape": Case(lambda: layers.Reshape((2, 2))),
    "Resizing": _image(lambda: layers.Resizing(4, 4), is_single=_ON_TENSORFLOW),
    "ReversibleEmbedding": Case(lambda: layers.ReversibleEmbedding(7, 3), (5,), tokens=7),
    "STFTSpectrogram": Case(
        lambda: layers.STFTSpectrogram(frame_length=16, frame_step=8, fft_length=16), (40, 1)
    ),
    "SimpleRNN": Case(lambda: layers.SimpleRNN(3), SEQUENCE),
    "SimpleRNNCell": Case(lambda: layers.SimpleRNNCell(3), call=_one_step),
    "Solarization": _image(lambda: layers.Solarization(0.3, 0.5, **_UNIT)),
    "StackedRNNCells": Case(
        lambda: layers.RNN(layers.StackedRNNCells([layers.SimpleRNNCell(3), layers.GRUCell(2)])),
        SEQUENCE,
    ),
    "TimeDistributed": Case(lambda: layers.TimeDistributed(layers.Dense(3)), SEQUENCE),
    "UpSampling2D, bilinear": Case(
        lambda: layers.UpSampling2D(2, interpolation="bilinear"), IMAGE, is_single=_ON_TENSORFLOW
    ),
}

_BASE = "a base class, which computes nothing by itself"
_LABELS = "turns what is no floating-point number into one; nothing before it has a gradient"
_TEXT = "takes text, which no layer with weights gives"
_OTHERS = "wraps a program of another framework"
WITHOUT_A_CASE = {
    "AugMix": "draws with Python's own generator, so that no two passes are alike",
    "CategoryEncoding": _LABELS,
    "Discretization": _LABELS,
    "Equalization": "gives its symbolic input back, so that Keras's functional models leave it out",
    "FlaxLayer": _OTHERS,
    "HashedCrossing": _LABELS,
    "Hashing": _LABELS,
    "InputLayer": "computes nothing; every network here has one",
    "InputSpec": "is no layer",
    "IntegerLookup": _LABELS,
    "JaxLayer": _OTHERS,
    "Layer": _BASE,
    "MaxNumBoundingBoxes": "takes bounding boxes, which no layer with weights gives",
    "SpectralNormalization": "assigns its own weight in the forward pass; has tests of its own",
    "StringLookup": _TEXT,
    "TFSMLayer": _OTHERS,
    "TextVectorization": _TEXT,
    "TorchModuleWrapper": _OTHERS,
    "Wrapper": _BASE,
}


def classes_of_keras():
    """The names of all classes in `keras.layers`, each once."""
    return {kind.__name__ for kind in vars(layers).values() if inspect.isclass(kind)}


_THRESHOLD = functools.partial(activations.threshold, threshold=0.1, default_value=0.0)
_NO_ACTIVATIONS = ("deserialize", "get", "serialize")


def activations_of_keras():
    """All functions in `keras.activations` by name, aliases once, each with what it needs."""
    functions = {
        function: name
        for name, function in vars(activations).items()
        if inspect.isfunction(function) and name not in _NO_ACTIVATIONS
    }
    return {
        name: _THRESHOLD if name == "threshold" else function
        for function, name in functions.items()
    }


# What is refused on TensorFlow behind a layer with weights: the operation that the error names.
REFUSED_BY_TENSORFLOW = {
    "RandAugment": "ImageProjectiveTransformV3",
    "RandomColorJitter": "HSVToRGB",
    "RandomHue": "HSVToRGB",
    "RandomPerspective": "ImageProjectiveTransformV3",
    "RandomRotation": "ImageProjectiveTransformV3",
    "RandomSaturation": "HSVToRGB",
    "RandomShear": "ImageProjectiveTransformV3",
    "RandomTranslation": "ImageProjectiveTransformV3",
    "RandomZoom": "ImageProjectiveTransformV3",
    "activations.softsign": "SoftsignGrad",
}
REFUSED_BY_TORCH = {"activations.hard_sigmoid": "hardsigmoid_backward"}
REFUSED = {
    "tensorflow": REFUSED_BY_TENSORFLOW,
    "jax": {},
    "torch": REFUSED_BY_TORCH,
}[keras.backend.backend()]

# What JAX cannot compile, as the differences here are, with the reason.
_NOT_COMPILED_BY_JAX = {
    "RandomCrop": "its slices have bounds that are drawn",
    "RandomElasticTransform": "fails in a plain `fit` too",
}
_NOT_TRAINED_BY_TORCH = {
    "RandomBrightness": "fails in a plain `fit` too: it overwrites its input",
    "RandomColorJitter": "fails in a plain `fit` too: it overwrites its input",
    "RandomElasticTransform": "draws without its seed",
}
NOT_TRAINED = {
    "tensorflow": {},
    "jax": _NOT_COMPILED_BY_JAX,
    "torch": _NOT_TRAINED_BY_TORCH,
}[keras.backend.backend()]

# A `Lambda`, as the output of some is smaller than their input.
ACTIVATIONS = {
    f"activations.{name}": Case(functools.partial(layers.Lambda, function), SEQUENCE)
    for name, function in activations_of_keras().items()
}
