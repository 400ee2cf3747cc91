"""Whole networks of the paper, at reduced size, in float32 against a float64 loop."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_fisher as kf
from keras_fisher import zoo
from tests import reference
from tests.traces.per_example import loop

CLASSES, EXAMPLES = 3, 3


SMALL = (8, 8, 3)
ARCHITECTURES = {
    "simple_cnn": lambda: zoo.simple_cnn((10, 10, 3), CLASSES, width=4),
    "vgg11": lambda: zoo.vgg11(SMALL, CLASSES, width=4),
    "wide_resnet": lambda: zoo.wide_resnet(SMALL, CLASSES, depth=8, width=1),
    "wide_resnet-skip_init": lambda: zoo.wide_resnet(
        SMALL, CLASSES, depth=8, width=1, batch_norm=False
    ),
    "densenet": lambda: zoo.densenet(SMALL, CLASSES, depth=10, growth=4),
    "resnet": lambda: zoo.resnet(SMALL, CLASSES, depth=8),
    "resnet-weight_norm": lambda: zoo.resnet(SMALL, CLASSES, depth=8, batch_norm=False),
    "resnet18": lambda: zoo.resnet18((32, 32, 3), CLASSES, width=4),
}


def weights_of(model):
    """Kernels from He's normal distribution; all else off its special value."""
    generator = np.random.default_rng(1)
    for variable in model.variables:
        value = generator.normal(size=variable.shape)
        if variable.path.endswith("kernel"):
            value *= np.sqrt(2 / np.prod(variable.shape[:-1]))
        elif variable.path.endswith(("gamma", "variance", "scale", "gain")):
            value = 1 + 0.3 * np.abs(value)
        else:
            value *= 0.1
        yield value.astype("float32")


def in_precision(policy, name):
    """The network, images and labels in that precision, the same in all."""
    keras.config.set_floatx(policy)
    keras.config.set_dtype_policy(policy)
    model = ARCHITECTURES[name]()
    model.set_weights(list(weights_of(model)))
    y = np.random.default_rng(3).integers(0, CLASSES, EXAMPLES)
    return model, loop.normal(EXAMPLES, *model.input_shape[1:]), y


def nll(labels, outputs):
    return kf.likelihoods.Categorical().nll(labels, outputs)


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_norms_of_the_papers_networks_agree_with_a_float64_loop(name):
    expected = loop.loop(*in_precision("float64", name), nll)
    found, fallbacks = loop.measured(*in_precision("float32", name), nll)
    assert not fallbacks
    assert loop.relative_error(found.mean(axis=0), expected.mean(axis=0)) < 1e-5
    # In a single example the one number of a SkipInit layer can be a sum that nearly cancels; plain
    # Keras in float32 is off by up to 3e-5 then.
    assert loop.relative_error(found, expected) < 1e-4


@reference.tensorflow_only  # with JAX, Keras's losses do not see what the activation was given
@pytest.mark.usefixtures("float64")
def test_probabilities_have_the_trace_of_their_logits():
    traces = []
    for activation in (None, "softmax"):
        head = layers.Dense(CLASSES, activation=activation)
        model = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), head])
        likelihood = kf.likelihoods.Categorical(from_logits=activation is None)
        data = loop.normal(EXAMPLES, 4), np.arange(EXAMPLES) % CLASSES
        loop.randomise(model)
        head.kernel.assign(head.kernel * 100)  # saturated, so that a clipped logarithm would differ
        trace = kf.fisher_trace(model, data, labels="given", likelihood=likelihood)
        traces.append(trace.value)
    assert traces[0] == pytest.approx(traces[1], rel=1e-10)
    assert traces[0] > 1
