"""The networks of the zoo, one table for all tests: at the paper's size, and small."""

from functools import partial

import keras
import numpy as np

from keras_fisher import zoo
from tests import reference

# Each is called with what differs from the default: `FULL["resnet-56"](seed=0)`.
FULL = {
    "simple_cnn": zoo.simple_cnn,
    "vgg11": partial(zoo.vgg11, num_classes=100),
    "wide_resnet": partial(zoo.wide_resnet, num_classes=100),
    "wide_resnet-skip_init": partial(zoo.wide_resnet, num_classes=100, batch_norm=False),
    "densenet": partial(zoo.densenet, num_classes=100),
    "resnet-26": zoo.resnet,
    "resnet-50": partial(zoo.resnet, depth=50),
    "resnet-56": partial(zoo.resnet, depth=56),
    "resnet-26-weight_norm": partial(zoo.resnet, batch_norm=False),
    "resnet-50-weight_norm": partial(zoo.resnet, depth=50, batch_norm=False),
    "resnet-56-weight_norm": partial(zoo.resnet, depth=56, batch_norm=False),
    "resnet18": zoo.resnet18,
}

SMALL = {
    "simple_cnn": partial(zoo.simple_cnn, (10, 10, 3), width=4),
    "vgg11": partial(zoo.vgg11, (8, 8, 3), width=4),
    "wide_resnet": partial(zoo.wide_resnet, (8, 8, 3), depth=14, width=2),
    "wide_resnet-skip_init": partial(
        zoo.wide_resnet, (8, 8, 3), depth=14, width=2, batch_norm=False
    ),
    "densenet": partial(zoo.densenet, (8, 8, 3), depth=10, growth=4),
    "resnet": partial(zoo.resnet, (8, 8, 3), depth=14),
    "resnet-weight_norm": partial(zoo.resnet, (8, 8, 3), depth=14, batch_norm=False),
    "resnet18": partial(zoo.resnet18, (8, 8, 3), 10, width=4),
}


def images(*shape, seed=0):
    """Images of a shape (batch, height, width, channels), each number standard normal."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def values_at(model, names, x):
    """Returns what the named layers return, and for an `Add` what it adds, as arrays."""
    found = {name: model.get_layer(name) for name in names}
    adds = {n: layer.input for n, layer in found.items() if isinstance(layer, keras.layers.Add)}
    outputs = {name: adds.get(name, layer.output) for name, layer in found.items()}
    return keras.tree.map_structure(np.asarray, keras.Model(model.input, outputs)(x))


def adds_of(model):
    """The names of the layers in which residual branches end, in order."""
    return [layer.name for layer in model.layers if isinstance(layer, keras.layers.Add)]


def gradient_norms(model, x):
    """The norm of the gradient of cross-entropy by each trainable weight, by the weight's path."""
    labels = np.arange(len(x)) % model.output_shape[-1]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found = reference.gradients(
        lambda: loss(labels, model(x, training=True)), model.trainable_weights
    )
    paths = [weight.path for weight in model.trainable_weights]
    return {path: float(np.linalg.norm(g)) for path, g in zip(paths, found, strict=True)}
