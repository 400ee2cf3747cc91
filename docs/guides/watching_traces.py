"""
Title: Watching Tr(F) and Tr(H)
Author: The keras_fisher developers
Date created: 2026/11/29
Last modified: 2026/11/29
Description: Measure Tr(F), Tr(H) and the Hessian's spectrum, once and during training.
Accelerator: None
"""

"""
## Introduction

Tr(F), the trace of the Fisher Information Matrix, is the mean squared norm of the gradients of single
examples whose labels are drawn from the model (eq. 2 of
[Jastrzebski et al., 2021](https://proceedings.mlr.press/v139/jastrzebski21a.html)). Tr(H) is the trace
of the Hessian of the loss. The paper observes that with a small learning rate Tr(F) explodes early in
training, that such networks end in sharper minima, and that they generalise worse.

This guide measures both on your own model, without a penalty.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_fisher as kf

train, validation, test, _ = kf.data.load_arrays("digits")


def build_model(learning_rate):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.SGD(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


"""
## Measure once

Each function takes a model and data and returns an `Estimate` with a value and its standard error. Tr(F)
is exact for the labels that are drawn, and its error is that of a mean over examples. Tr(H) is
Hutchinson's estimate, and its error is that of a mean over random probes.
"""

model = build_model(0.1)
fisher = kf.fisher_trace(model, train, num_examples=500, by_layer=True, seed=0)
hessian = kf.hessian_trace(model, train, num_examples=500, num_probes=30, seed=0)
print(f"Tr(F) = {fisher.value:.2f} ± {fisher.stderr:.2f}")
print(f"Tr(H) = {hessian.value:.2f} ± {hessian.stderr:.2f}")
print("by layer:", {name: round(float(value), 2) for name, value in fisher.layers.items()})

"""
Measuring changes no weight, no metric and no random state of the model.

## Measure during training

The callbacks write into the logs of each epoch. `History`, `CSVLogger`, `EarlyStopping`,
`ModelCheckpoint` and `TensorBoard` find the values there, in whatever order the callbacks are listed.
By default they measure at the end of each epoch; with `freq=n` they measure every n steps instead.
Each callback keeps all its measurements in `history`. On the TensorFlow backend,
`keras.callbacks.TensorBoard` shows them beside the loss: run `tensorboard --logdir logs`.

Here two learning rates are compared, a good one and one that is ten times smaller.
"""

curves, losses = {}, {}
for learning_rate in (0.2, 0.02):
    fisher = kf.callbacks.FisherTrace(train, freq=10, num_examples=500, seed=0)
    hessian = kf.callbacks.HessianTrace(train, freq=10, num_examples=500, seed=0)
    callbacks = [fisher, hessian]
    if keras.backend.backend() == "tensorflow":
        callbacks.append(keras.callbacks.TensorBoard(f"logs/rate_{learning_rate}"))
    fit = build_model(learning_rate).fit(
        *train, batch_size=32, epochs=15, callbacks=callbacks, verbose=0
    )
    curves[learning_rate] = (fisher.history, hessian.history)
    losses[learning_rate] = fit.history["loss"]

figure, axes = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
for (learning_rate, traces), style in zip(curves.items(), ("-", "--"), strict=True):
    for ax, history in zip(axes, traces, strict=False):
        steps, estimates = zip(*history, strict=True)
        ax.plot(steps, [estimate.value for estimate in estimates], style)
    axes[2].plot(losses[learning_rate], style, label=f"learning rate {learning_rate}")
for ax, title in zip(axes, ("Tr(F)", "Tr(H)", "Training loss"), strict=True):
    ax.set(xlabel="epoch" if title == "Training loss" else "step", title=title)
axes[2].legend()
plt.show()
for learning_rate, (history, _) in curves.items():
    peak = max(estimate.value for _, estimate in history)
    print(f"learning rate {learning_rate}: largest Tr(F) {peak:.1f}")

"""
With the small learning rate both traces rise higher early in training, and they stay higher when the
training loss is small: the paper's observation, on a small network. (It is not a law: how strong it is
depends on the network and the data.)

## Look at the whole spectrum

Tr(H) is the sum of all eigenvalues of the Hessian. `sharpness` is the largest one, and
`hessian_eigenvalues` finds the k largest or smallest ones. Gradient descent with the learning rate `r`
is stable only where the sharpness is at most `2 / r`
([Cohen et al., 2021](https://arxiv.org/abs/2103.00065)). `callbacks.HessianEigenvalues` logs them during
training.

`spectral_density` estimates how all eigenvalues are distributed. In trained networks, most are close to
0, and few are large.
"""

model = build_model(0.2)
spectra = {"before training": kf.spectral_density(model, train, num_examples=500, seed=0)}
model.fit(*train, batch_size=32, epochs=5, verbose=0)
spectra["after five epochs"] = kf.spectral_density(model, train, num_examples=500, seed=0)
largest = kf.hessian_eigenvalues(model, train, k=10, num_examples=500, seed=0)
print("largest eigenvalues:", largest.values.round(2))
print("largest residual:", largest.residuals.max())

figure, axes = plt.subplots(1, 2, figsize=(12, 3.5), sharey=True, layout="constrained")
for ax, (title, density) in zip(axes, spectra.items(), strict=True):
    low, high = density.nodes.min(), density.nodes.max()
    margin = (high - low) / 20
    points = np.linspace(low - margin, high + margin, 1000)
    ax.semilogy(points, density.evaluate(points))
    ax.set(xlabel="eigenvalue", title=title, ylim=(1e-6, None))
    trace = density.moment(1)
    n = density.dimension
    print(f"{title}: Tr(H) = {n * trace.value:.2f} ± {n * trace.stderr:.2f}")
axes[0].set(ylabel="density")
plt.show()

"""
The density integrates to 1. Its first moment times the number of weights is Tr(H), and its moments have
standard errors over the random vectors that it is estimated from.

## What it costs

- `num_examples` sets the cost of a measurement. A few hundred examples are enough to see a peak; the
  standard error says how well it is known.
- `MinibatchFisherTrace` measures the squared norm of the mini-batch gradient, which is about Tr(F)
  divided by the batch size. It is the quantity that the penalty penalises, and the `penalty` in the
  logs of a `FisherPenaltyModel`.
- A product with the Hessian takes longer than a probe of Tr(H), and needs all examples again. Eigenvalues
  take some tens of products, and the density `num_probes * num_steps`.
- `FisherTrace(explosion_factor=5)` warns when Tr(F) exceeds five times the first value that it
  measures at or after the end of the first epoch.
"""
