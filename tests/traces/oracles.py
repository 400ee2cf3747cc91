"""Closed forms for linear models, and slow and plain programs, to compare measurements with."""

import functools

import keras
import numpy as np
from keras import layers

from keras_fisher.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood
from tests import nets, reference


class Head:
    """A linear model and its likelihood; outputs have an axis of positions if `steps` is given.

    All closed forms follow from the gradient by the outputs o of an observation, r (p - y, or
    (o - y)/variance), and from its second derivative s (diag(p) - p p^T, or p (1 - p), or
    1/variance): an example's gradient is sum_t [x_t; 1] r_t^T / observations.
    """

    def __init__(self, likelihood: Likelihood, *, steps=None, units=3, activation=None, after=()):
        self.likelihood, self.units = likelihood, units
        self._steps, self._activation, self._after = steps, activation, after
        self._one_class = isinstance(likelihood, Categorical)
        self.observations = (steps or 1) * (1 if self._one_class else units)

    def model(self, hidden=()):
        """The linear model, with random weights; `hidden` layers before it make it another one."""
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4,) if self._steps is None else (self._steps, 4))
        linear = layers.Dense(
            self.units, self._activation, bias_initializer="random_normal", name="linear"
        )
        return keras.Sequential([inputs, *hidden, linear, *(make() for make in self._after)])

    def inputs(self, examples, seed=1):
        shape = (examples, 4) if self._steps is None else (examples, self._steps, 4)
        return np.random.default_rng(seed).normal(size=shape)

    def labels(self, examples, seed=2):
        """Labels in a layout that the likelihood accepts."""
        generator = np.random.default_rng(seed)
        shape = (examples,) if self._steps is None else (examples, self._steps)
        if self._one_class:
            return generator.integers(0, self.units, shape)
        if isinstance(self.likelihood, Bernoulli):
            return generator.integers(0, 2, (*shape, self.units))
        return generator.normal(size=(*shape, self.units))

    def expected(self, model, x):
        """Tr(F) of each example, shape (n,)."""
        return np.sum(self._sizes(x) * self._curvatures(model, x), axis=1) / self.observations**2

    def given(self, model, x, y):
        """The squared norm of each example's gradient for labels y, shape (n,)."""
        p = self._predictions(model, x)
        if self._one_class:
            residuals = p - np.eye(self.units)[y].reshape(p.shape)
        elif isinstance(self.likelihood, Bernoulli):
            residuals = p - y.reshape(p.shape)
        else:
            residuals = (p - y.reshape(p.shape)) / self.likelihood.variance
        gradients = np.einsum("ntd,ntc->ndc", self._with_one(x), residuals)
        return np.sum(gradients**2, axis=(1, 2)) / self.observations**2

    def hessian(self, model, x):
        """Tr(H) of each example, shape (n,)."""
        return np.sum(self._sizes(x) * self._curvatures(model, x), axis=1) / self.observations

    def _curvatures(self, model, x):
        """The trace of s at each position, shape (n, positions)."""
        p = self._predictions(model, x)
        if self._one_class:
            return 1 - np.sum(p**2, axis=-1)
        if isinstance(self.likelihood, Bernoulli):
            return np.sum(p * (1 - p), axis=-1)
        return np.full(p.shape[:2], self.units / self.likelihood.variance)

    def _predictions(self, model, x):
        """Probabilities (for a Gaussian, means), shape (n, positions, units)."""
        kernel, bias = (keras.ops.convert_to_numpy(w) for w in model.get_layer("linear").weights)
        outputs = x.reshape(len(x), -1, 4) @ kernel + bias
        if self._one_class:
            exponentials = np.exp(outputs - outputs.max(-1, keepdims=True))
            return exponentials / exponentials.sum(-1, keepdims=True)
        return 1 / (1 + np.exp(-outputs)) if isinstance(self.likelihood, Bernoulli) else outputs

    def _with_one(self, x):
        x = x.reshape(len(x), -1, 4)
        return np.concatenate([x, np.ones((*x.shape[:2], 1))], axis=-1)

    def _sizes(self, x):
        """||x||^2 + 1 (the 1 is the bias's) at each position."""
        return np.sum(self._with_one(x) ** 2, axis=-1)


HEADS = {
    "softmax, logits": Head(Categorical()),
    "softmax, probabilities": Head(Categorical(from_logits=False), activation="softmax"),
    "softmax, probabilities that lost their logits": Head(
        Categorical(from_logits=False),
        activation="softmax",
        after=[lambda: layers.Rescaling(1.0)],
    ),
    "softmax over time": Head(Categorical(), steps=3),
    "bits, logits": Head(Bernoulli()),
    "bits, probabilities": Head(Bernoulli(from_logits=False), activation="sigmoid"),
    "bits over time": Head(Bernoulli(), steps=2),
    "one bit": Head(Bernoulli(), units=1),
    "numbers": Head(Gaussian()),
    "numbers of another variance": Head(Gaussian(variance=2.0)),
    "numbers over time": Head(Gaussian(), steps=3),
}


def gradient(net, x, y, loss=None):
    """The gradient of the mean loss in inference mode: a vector for each trainable weight."""

    def value():
        return (loss or nets.loss())(y, net(x, training=False))

    return [np.ravel(g) for g in reference.gradients(value, net.trainable_weights)]


def squares(net, x, y, batch_size=1, loss=None):
    """Squared norms of the gradients of full mini-batches, shape (mini-batches, weights)."""
    rows = [slice(i, i + batch_size) for i in range(0, len(y) - batch_size + 1, batch_size)]
    found = [
        gradient(net, keras.tree.map_structure(lambda a, r=r: a[r], x), y[r], loss) for r in rows
    ]
    return np.array([[np.sum(g**2) for g in weights] for weights in found])


def layer_of(weight):
    """The path of the layer that has the weight."""
    return weight.path.removesuffix(f"/{weight.name}")


def by_layer(net, parts):
    """What each layer adds: `parts`, one for each trainable weight, summed by layer."""
    sums = {}
    for weight, part in zip(net.trainable_weights, parts, strict=True):
        sums[layer_of(weight)] = sums.get(layer_of(weight), 0.0) + part
    return sums


def full_hessian(net, x, y):
    """The Hessian of the mean loss in inference mode, by central differences of its gradient."""
    weights, loss = net.trainable_weights, nets.loss()
    start = nets.flat(weights)

    def gradient_at(values):
        nets.assign_flat(weights, values)
        return nets.flat(reference.gradients(lambda: loss(y, net(x, training=False)), weights))

    h = 1e-5
    rows = [(gradient_at(start + h * e) - gradient_at(start - h * e)) for e in np.eye(len(start))]
    gradient_at(start)  # puts the weights back
    return np.array(rows) / (2 * h)


def problem(name):
    """Returns the net, compiled, with a batch of inputs and labels."""
    return nets.plain(name), nets.inputs(name), nets.labels()


@functools.cache
def hessian_of(name):
    """Returns the full Hessian of `problem(name)`, made symmetric.

    It is kept for later tests, hence the test that asks first must compute in double precision.
    """
    assert keras.config.floatx() == "float64"
    h = full_hessian(*problem(name))
    return (h + h.T) / 2
