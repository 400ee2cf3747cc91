"""Models in which an example has no gradient of its own are refused."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_fisher as kf
from tests import nets

EXAMPLES = 32
X = np.random.default_rng(0).normal(size=(EXAMPLES, 4)).astype("float32")
MESSAGE = "`model` must give an example the same outputs alone and within a batch.*Received: "


class Noise(layers.Layer):
    """A layer that draws noise in evaluation too, as the sampling layer of an autoencoder does."""

    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs):
        return inputs + 2 * keras.random.normal(ops.shape(inputs), seed=self.seed_generator)


class BatchStatistics(keras.Model):
    """A network that normalises by the batch in evaluation too."""

    def __init__(self):
        super().__init__()
        self.hidden, self.norm = layers.Dense(5, "tanh"), layers.BatchNormalization()
        self.head = layers.Dense(nets.CLASSES)

    def call(self, inputs):
        return self.head(self.norm(self.hidden(inputs), training=True))


class NoisyKernel(keras.Model):
    """A network whose layer with weights is not called, so that no rule measures it."""

    def __init__(self):
        super().__init__()
        self.noise, self.head = Noise(), layers.Dense(nets.CLASSES)
        self.head.build((None, 4))

    def call(self, inputs):
        return ops.matmul(self.noise(inputs), self.head.kernel) + self.head.bias


MODELS = {
    "noise": lambda: keras.Sequential(
        [keras.Input((4,)), layers.Dense(6), Noise(), layers.Dense(nets.CLASSES)]
    ),
    "batch-statistics": BatchStatistics,
    "noise-without-rules": NoisyKernel,
}
MEASURES = {
    "fisher_trace": lambda model: kf.fisher_trace(model, (X, None), seed=0),
    "expected": lambda model: kf.fisher_trace(model, (X, None), labels="expected"),
    "ggn_trace": lambda model: kf.ggn_trace(model, (X, None)),
    "norms": lambda model: kf.per_example_gradient_norms(model, (X, nets.labels(EXAMPLES))),
}


def made(name):
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    model(X)
    model.compile("sgd", nets.loss())
    return model


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("name", MODELS)
def test_noise_and_batch_statistics_in_evaluation_are_refused(name, measure):
    with pytest.raises(ValueError, match=MESSAGE):
        MEASURES[measure](made(name))


@pytest.mark.parametrize("name", MODELS)
def test_what_needs_no_gradient_of_an_example_measures_them(name):
    model = made(name)
    assert float(kf.minibatch_fisher_trace(model, (X, None), batch_size=EXAMPLES, seed=0)) > 0
    assert float(kf.gradient_norm(model, (X, nets.labels(EXAMPLES)), batch_size=EXAMPLES)) > 0
