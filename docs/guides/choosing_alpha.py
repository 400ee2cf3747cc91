"""
Title: Choosing alpha
Author: The keras_fisher developers
Date created: 2026/11/29
Last modified: 2026/11/29
Description: Find the weight of the penalty, by a short search in a measured range.
Accelerator: None
"""

"""
## Introduction

Alpha is the weight of the penalty, and the one number that you have to find. It is not universal: the
best alpha depends on the network, the data, the noise and the learning rate. The paper takes ten
values around 0.01 on a logarithmic scale (appendix G.2), and much larger ones for `"gp_x"`.

This guide looks for the range first, then searches it with keras-tuner, and then shows what a wrong
alpha looks like. Half of the training labels are noise.
"""

import logging

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_fisher as kf

train, validation, test, _ = kf.data.load_arrays("digits")
y_noisy, _ = kf.data.uniform_label_noise(train.y, 0.5, num_classes=10, seed=0)


def build_model():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def compile_model(model, learning_rate=0.015):
    model.compile(
        optimizer=keras.optimizers.SGD(learning_rate, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


"""
## A range to begin with

Train the plain model until its training loss has fallen by about a tenth: here, one epoch. Then
`alpha_range` compares the gradient of the penalty with the gradient of the loss on a few
mini-batches. `balance` is the alpha at which the penalty begins to dominate training. `value` is a
fifth of `balance`, and `alphas` is a logarithmic grid around `value`.
"""

keras.utils.set_random_seed(0)
plain = compile_model(build_model())
plain.fit(train.x, y_noisy, batch_size=32, epochs=1, verbose=0)
found = kf.tuning.alpha_range(plain, (train.x, y_noisy), num=5, batch_size=32, seed=0)
print("proposed:", [float(f"{alpha:.2g}") for alpha in found.alphas])

"""
The measurement says nothing about generalisation. It only tells you the order of magnitude of the
alphas to search.
## A search

`FisherPenaltyHyperModel` makes alpha and the learning rate hyperparameters of keras-tuner. Rank the
trials by validation accuracy. Do not shorten them much: a penalised network learns more slowly, and a
short training prefers alphas that are too small.
"""

hypermodel = kf.tuning.FisherPenaltyHyperModel(
    lambda hp: build_model(),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    learning_rates=[0.015],
    alphas=found.alphas,
)
tuner = kf.tuning.GridSearch(hypermodel, directory="search", overwrite=True)
tuner.search(train.x, y_noisy, batch_size=32, epochs=45, validation_data=validation, verbose=0)

print(f"{'alpha':>8}  best validation accuracy")
trials = tuner.oracle.get_best_trials(num_trials=len(found.alphas))
for trial in sorted(trials, key=lambda trial: trial.hyperparameters.get("alpha")):
    print(f"{trial.hyperparameters.get('alpha'):8.2g}  {trial.score:.3f}")

"""
The scores are close, because each is that of the trial's best epoch. At the end of training the alphas
differ much more, as the next picture shows. If you have no clean validation labels to stop by, compare
the ends.

Rerunning the program resumes an interrupted search. If the best alpha is the smallest or the largest
of your grid, extend the grid. `RandomSearch`, `BayesianOptimization` and `Hyperband` of keras-tuner take
the same hypermodel.

## What a wrong alpha looks like

Train without a penalty, with the alpha of the best trial, with three times as much, and with a
thousand times as much.
"""

best = tuner.get_best_hyperparameters()[0].get("alpha")
logging.getLogger("keras_fisher").setLevel(logging.ERROR)  # the warning is described below
histories = {}
for alpha in (0.0, best, 3 * best, 1000 * best):
    keras.utils.set_random_seed(0)
    model = compile_model(kf.FisherPenaltyModel(build_model(), alpha=alpha, seed=0))
    histories[alpha] = model.fit(
        train.x, y_noisy, batch_size=32, epochs=45, validation_data=validation, verbose=0
    ).history

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
for (alpha, history), style in zip(histories.items(), ("--", "-", "-.", ":"), strict=True):
    left.plot(history["accuracy"], style, label=f"alpha {alpha:.2g}")
    right.plot(history["val_accuracy"], style)
left.set(xlabel="epoch", title="Training accuracy, noisy labels")
right.set(xlabel="epoch", title="Validation accuracy, clean labels")
left.legend()
plt.show()
print({f"{a:.2g}": np.round(h["val_accuracy"][-1], 3).item() for a, h in histories.items()})

"""
- **Too large:** the training accuracy stays far below that of the plain model. In the extreme the
  outputs become the same for every input; `fit` warns of that, with the step and the numbers, by the
  end of the epoch in which it happens.
- **Too small:** the training and validation accuracies do not differ from the plain model's.

`model.alpha` can be read and set at any time, also by a callback, and acts on the next step. It may also
be a Keras learning-rate schedule.
"""
