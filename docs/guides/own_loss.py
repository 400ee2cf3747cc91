"""
Title: Your own loss or likelihood
Author: The keras_fisher developers
Date created: 2026/11/29
Last modified: 2026/11/29
Description: Which losses have a Fisher penalty at once, and how to give a likelihood for another one.
Accelerator: None
"""

"""
## Introduction

The Fisher penalty draws labels from the model's own prediction. So it needs to know which distribution
the outputs describe: the *likelihood*. For the usual losses it follows from the compiled loss:

| compiled loss | likelihood |
|---|---|
| `SparseCategoricalCrossentropy`, `CategoricalCrossentropy` | `kf.likelihoods.Categorical` |
| `BinaryCrossentropy` | `kf.likelihoods.Bernoulli` |
| `MeanSquaredError` | `kf.likelihoods.Gaussian`, of variance 1/2 |

For every other loss, pass `likelihood=`. The model still trains on your loss; only the penalty
and the traces use the likelihood. The penalties `"gp"` and `"gp_x"` use the labels in the data,
but they also need the likelihood, because they differentiate its negative logarithm.
"""

import textwrap

import keras
import numpy as np
from keras import ops

import keras_fisher as kf

train, validation, test, _ = kf.data.load_arrays("digits")


def build_model(outputs):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(outputs),
        ]
    )


"""
## Another loss, a known likelihood

If a loss has no known likelihood, `compile` raises an error that says what to do. Generalised
cross-entropy is a robust loss for classification. It takes the probabilities of the classes, so the
likelihood is `Categorical`.
"""

backbone = build_model(10)
backbone.add(keras.layers.Softmax())
loss = keras.losses.CategoricalGeneralizedCrossEntropy(q=0.5)

try:
    kf.FisherPenaltyModel(backbone).compile("sgd", loss)
except ValueError as error:
    print(textwrap.fill(str(error), 80))

model = kf.FisherPenaltyModel(
    backbone, alpha=0.01, likelihood=kf.likelihoods.Categorical(from_logits=False), seed=0
)
model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss, metrics=["accuracy"])
history = model.fit(train.x, train.y, batch_size=32, epochs=10, verbose=0)
print(f"training accuracy {history.history['accuracy'][-1]:.3f}")

"""
## A likelihood of your own

Subclass `Likelihood` and write two functions with `keras.ops` and `keras.random`: the negative
log-likelihood of every observation, and how labels are drawn from the outputs. Here the labels are
waiting times, the outputs are the logarithms of rates, and a time `t` has the density
`rate * exp(-rate * t)`.
"""


@keras.saving.register_keras_serializable()
class Exponential(kf.likelihoods.Likelihood):
    def observation_nll(self, labels, outputs):
        return ops.exp(outputs) * ops.cast(labels, outputs.dtype) - outputs

    def sample(self, outputs, seed):
        uniform = keras.random.uniform(ops.shape(outputs), minval=1e-7, seed=seed)
        return -ops.log(uniform) / ops.exp(outputs)


"""
`sample` must draw from the distribution that `observation_nll` describes; otherwise the penalty
is not the Fisher penalty. You can test this: the score, which is the derivative of the
log-likelihood with respect to the outputs, has mean 0 over drawn labels.
"""

outputs = np.full((100_000, 1), 0.7, "float32")
likelihood = Exponential()
drawn = likelihood.sample(outputs, keras.random.SeedGenerator(0))
score = 1.0 - np.exp(outputs) * ops.convert_to_numpy(drawn)
error = score.std() / len(score) ** 0.5
print(f"mean score {score.mean():.4f}, standard error {error:.4f}")

"""
Then train. The loss is the mean of the same negative log-likelihood.
"""


def loss(y_true, y_pred):
    return ops.mean(likelihood.observation_nll(y_true, y_pred), axis=-1)


generator = np.random.default_rng(0)
x = generator.normal(size=(1000, 5)).astype("float32")
rates = np.exp(x[:, :1] - 0.5 * x[:, 1:2])
times = (generator.exponential(size=(1000, 1)) / rates).astype("float32")

keras.utils.set_random_seed(0)
backbone = keras.Sequential(
    [keras.Input((5,)), keras.layers.Dense(32, activation="tanh"), keras.layers.Dense(1)]
)
model = kf.FisherPenaltyModel(backbone, alpha=0.01, likelihood=Exponential(), seed=0)
model.compile(keras.optimizers.Adam(0.01), loss)
history = model.fit(x, times, batch_size=50, epochs=20, verbose=0)
print(f"loss {history.history['loss'][0]:.3f}, later {history.history['loss'][-1]:.3f}")
print("Tr(F):", round(kf.fisher_trace(model, (x, times), seed=0).value, 2))

"""
`likelihood=` is saved with the model: register the class, as above, and import it before you load.

What a likelihood can add:

- `sample_uniform` for the penalty `"gp_r"`, if there are finitely many labels.
- `num_outcomes` and `outcome` for `fisher_trace(labels="expected")`, which sums over all labels.

## Several outputs

A model with several outputs has no single likelihood, and is refused. Concatenate the outputs into one,
and write a likelihood that splits them again. Its observations may be of different kinds; the
negative log-likelihood of an example is the mean over them.
"""
