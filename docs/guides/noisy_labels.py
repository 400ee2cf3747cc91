"""
Title: Training on noisy labels with the Fisher penalty
Author: The keras_fisher developers
Date created: 2026/11/29
Last modified: 2026/11/29
Description: Keep a classifier from memorising wrong labels by penalising the Fisher trace.
Accelerator: None
"""

"""
## Introduction

A neural network can fit any labels, even random ones. It learns the regularities of the data first
and memorises the wrong labels later, so its test accuracy rises and then falls. You can stop early,
if validation labels tell you when. The Fisher penalty makes the memorisation itself expensive.

The penalty is the squared norm of a gradient: that of the loss of a mini-batch whose labels are
drawn from the model's own prediction. For a mini-batch of B examples its mean is about Tr(F)/B.
Tr(F) is the trace of the Fisher Information Matrix, which grows sharply when a network begins to
memorise
([Jastrzebski et al., 2021](https://proceedings.mlr.press/v139/jastrzebski21a.html)). Training
minimises

    loss + alpha * ||gradient of the loss of drawn labels||^2.

`keras_fisher` adds this to any Keras model: `FisherPenaltyModel(model, alpha=...)`. This example
trains the same network with and without the penalty on handwritten digits. Half of the training
images have a random label.
"""

"""
## Setup
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_fisher as kf

keras.utils.set_random_seed(0)

"""
## Prepare the data

`uniform_label_noise` replaces half of the training labels with labels drawn uniformly at random,
and returns a mask of the replaced ones. A drawn label may be correct by chance, so about 45% of
the labels are wrong. The validation and test labels stay clean.
"""

num_classes = 10
x, y = load_digits(return_X_y=True)
x = (x / 16.0).astype("float32")
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.3, random_state=0)
x_train, x_val, y_train, y_val = train_test_split(x_train, y_train, test_size=0.15, random_state=0)
y_noisy, is_noisy = kf.data.uniform_label_noise(y_train, 0.5, num_classes=num_classes, seed=0)

print(f"{len(x_train)} training images, {np.mean(y_noisy != y_train):.0%} of them mislabelled")

"""
## Build the model

Two hidden layers are more than enough to memorise a thousand labels.
"""


def build_model():
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(num_classes),
        ]
    )


"""
## Train with and without the penalty

Both models are trained by `fit()` with the same settings. `LabelNoiseMonitor` logs after each epoch the
accuracy on the clean labels and on the *noisy* ones, that is, all replaced labels. The latter is the
fraction memorised. About 10% of them are correct by chance, so without memorisation it is about 10%.

With alpha 0, `FisherPenaltyModel` trains exactly as the plain model does.
"""

epochs = 60


def train(alpha):
    keras.utils.set_random_seed(0)
    model = kf.FisherPenaltyModel(build_model(), alpha=alpha, seed=0)
    model.compile(
        optimizer=keras.optimizers.SGD(0.015, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    monitor = kf.callbacks.LabelNoiseMonitor(x_train, y_noisy, is_noisy)
    history = model.fit(
        x_train,
        y_noisy,
        batch_size=32,
        epochs=epochs,
        validation_data=(x_val, y_val),
        callbacks=[monitor],
        verbose=0,
    )
    return model, history.history


models, histories = {}, {}
for name, alpha in (("plain", 0.0), ("Fisher penalty", 0.3)):
    models[name], histories[name] = train(alpha)

"""
## Compare

The plain network reaches its best validation accuracy early and loses it again while it memorises
the noisy labels. The penalised network keeps it to the end.
"""

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
for (name, history), style in zip(histories.items(), ("--", "-"), strict=True):
    left.plot(history["val_accuracy"], style, label=name)
    right.plot(history["noisy_accuracy"], style, label=name)
left.set(xlabel="epoch", title="Validation accuracy")
right.set(xlabel="epoch", title="Noisy labels memorised")
left.legend()
plt.show()

"""
The wrapped model trains your own model in place: `backbone` is that model, without the penalty, ready
to be saved. It is not compiled, so compile it before you evaluate it.
"""

for name, model in models.items():
    plain = model.backbone
    plain.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    _, accuracy = plain.evaluate(x_test, y_test, verbose=0)
    memorised = histories[name]["noisy_accuracy"][-1]
    print(f"{name}: test accuracy {accuracy:.1%}, noisy labels memorised {memorised:.0%}")

"""
## Choose alpha

Alpha is the one number to find. An alpha that is far too large keeps the network from learning at all,
and with cleaner labels smaller values are better. The alpha of 0.3 here is for the default schedule,
which computes the penalty on the whole batch every 10 steps. In a comparison on slightly fewer images,
with tuned alphas, this schedule ends at 82%, and the penalty on a quarter of the batch at every step at
90%: [Which method should I use?](../which_method.md).

For your own data, compute the penalty at every step on a part of the batch, with
`update_freq=1, penalty_batch_size=1 / 4`, and let `kf.tuning.find_alpha` compare 0.03, 0.1 and 0.3 for
the cost of 2.5 training runs: [Finding alpha](finding_alpha.py).

## Conclusion

One line, `FisherPenaltyModel(model, alpha=0.3)`, keeps the network from memorising most of the wrong
labels. It needs no clean labels during training and no second network, and it works with every
optimizer of Keras. Losses other than cross-entropy and the mean squared error need a
`likelihood=`. Early stopping by itself does well on this easy task:
[Which method should I use?](../which_method.md) compares them.
"""
