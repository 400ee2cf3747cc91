"""
Title: Finding alpha
Author: The keras_fisher developers
Date created: 2026/11/29
Last modified: 2026/11/29
Description: Find the weight of the penalty for the cost of 2.5 training runs.
Accelerator: None
"""

"""
## Introduction

Alpha is the weight of the penalty, and the one number that you have to find. It is not universal: the
best alpha depends on the network, the data, the noise and the learning rate. The paper trains with ten
values on a logarithmic scale (appendix G.2). `find_alpha` costs 2.5 training runs.

Half of the training labels of this guide are noise. We find alpha, look at the size of the penalty's
gradient, and see what an alpha does that is far too large.
"""

import logging

import keras
import matplotlib.pyplot as plt

import keras_fisher as kf

train, validation, test, _ = kf.data.load_arrays("digits")
y_noisy, _ = kf.data.uniform_label_noise(train.y, 0.5, num_classes=10, seed=0)

"""
## Find alpha

Write a function from alpha to a compiled model. It sets the random seed, so that all candidates start
from the same weights.
"""


def build_model(alpha, **options):
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    model = kf.FisherPenaltyModel(backbone, alpha=alpha, update_freq=1, seed=0, **options)
    model.compile(
        optimizer=keras.optimizers.SGD(0.015, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


"""
`find_alpha` trains with 0.03, 0.1 and 0.3 for half of the epochs. It continues with the best two, and
returns the better one.
"""

found = kf.tuning.find_alpha(
    build_model,
    (train.x, y_noisy),
    validation_data=validation,
    epochs=45,
    directory="find_alpha",
    overwrite=True,
    verbose=0,  # 1 for a progress bar
)
print(found)

"""
The score is the mean validation accuracy over the last fifth of the epochs that a candidate trained for.
`found.model` is the model of the best alpha, trained to the end.

Without `overwrite=True`, the same call resumes an interrupted search. If the best alpha is the largest, a
larger one may be better: `alphas=(0.03, 0.1, 0.3, 1.0)` then trains only the new one.

The validation labels here are clean. If yours are as noisy as the training labels, the search works as
well, because noise lowers the accuracies of all candidates alike:
[Results](../results.md#ways-to-choose-alpha).
"""

test_accuracy = found.model.evaluate(test.x, test.y, verbose=0, return_dict=True)["accuracy"]
print(f"alpha {found.alpha:.2g}: test accuracy {test_accuracy:.1%}")

"""
## How large is the penalty's gradient?

The penalty ratio is the norm of alpha times the penalty's gradient, relative to the norm of the gradient
of the loss. `PenaltyRatio` logs it. Far below 0.1 the penalty changes little. Far above 1 it
keeps the model from learning.

We train without a penalty, with the alpha that we found, and twice with a hundred times as much: once as
it is, and once with `max_penalty_ratio=0.7`. Where alpha exceeds this limit, the step uses the alpha that
reaches it.
"""

logging.getLogger("keras_fisher").setLevel(logging.ERROR)  # the warnings are described below
models = {
    "no penalty": build_model(0.0),
    f"alpha {found.alpha:.2g}": build_model(found.alpha),
    f"alpha {100 * found.alpha:.2g}": build_model(100 * found.alpha),
    f"alpha {100 * found.alpha:.2g}, limited": build_model(
        100 * found.alpha, max_penalty_ratio=0.7
    ),
}
histories = {
    name: model.fit(
        train.x,
        y_noisy,
        epochs=45,
        validation_data=validation,
        callbacks=[kf.callbacks.PenaltyRatio()],
        verbose=0,
    ).history
    for name, model in models.items()
}

figure, axes = plt.subplots(1, 3, figsize=(13, 3.7), layout="constrained")
for (name, history), style in zip(histories.items(), ("--", "-", ":", "-."), strict=True):
    for axis, key in zip(axes, ("accuracy", "val_accuracy", "penalty_ratio"), strict=True):
        axis.plot(history[key], style, label=name)
titles = ("Training accuracy, noisy labels", "Validation accuracy, clean labels", "Penalty ratio")
for axis, title in zip(axes, titles, strict=True):
    axis.set(xlabel="epoch", title=title)
axes[0].legend()
axes[2].set_ylim(0, 2.5)
plt.show()

for name, history in histories.items():
    print(f"{name}: validation accuracy at the end {history['val_accuracy'][-1]:.1%}")

"""
- **Too large:** the training accuracy stays far below that of the plain model. `fit` warns if the ratio
  stays above 2 before the model has learnt, and names the alpha at which both gradients have the same
  norm. In the extreme the outputs become the same for every input, and `fit` warns of that, too.
- **Too small:** the training and validation accuracies do not differ from the plain model's, and the
  ratio stays far below 0.1.

With a limit below 1 and `update_freq=1`, the sum of both gradients points downhill on the loss of the
mini-batch. This makes an alpha that is far too large harmless in this example, but the accuracy still
depends on alpha:
[Results](../results.md#ways-to-choose-alpha).

`model.alpha` can be read and set at any time, also by a callback, and acts on the next step. It may also
be a Keras learning-rate schedule.

## Search other hyperparameters, too

`FisherPenaltyHyperModel` makes the seed, the learning rate and alpha hyperparameters of keras-tuner, and
your own function may add more. keras-tuner ranks trials by the validation accuracy of their best epoch, so
with noisy labels it prefers alphas that are too small, and so does a short training, because a penalised
network learns more slowly. For alpha alone, use `find_alpha`.
[Choosing alpha](../choosing_alpha.md#a-search-of-other-hyperparameters) has an example. `RandomSearch`
and `BayesianOptimization` of keras-tuner take the same hypermodel.
"""
