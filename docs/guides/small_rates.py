"""
Title: Small learning rates and large batches
Author: The keras_fisher developers
Date created: 2026/11/29
Last modified: 2026/11/29
Description: Recover the accuracy that a learning rate loses because it is too small.
Accelerator: None
"""

"""
## Introduction

A network that trains with a small learning rate or a large batch may fit the training data just as
well, and still classify new data worse. The paper
([Jastrzebski et al., 2021](https://proceedings.mlr.press/v139/jastrzebski21a.html)) observes that Tr(F),
the trace of the Fisher Information Matrix, explodes early in such training runs, and that the Fisher penalty
recovers most of the accuracy (section 4).

Tuning the learning rate is the first remedy. The penalty is for training whose rate or batch you cannot
choose freely: the hardware asks for a large batch, a larger rate diverges in another part of the network,
or fine-tuning needs small steps.

This guide trains a small network on 2,000 images of CIFAR-10: with a good learning rate, with one that is
ten times smaller, and with the smaller one under the penalty.
"""

import keras
import matplotlib.pyplot as plt

import keras_fisher as kf

"""
## Data and model

`load_arrays` downloads CIFAR-10 unless it finds it in `TFDS_DATA_DIR` (`pip install '.[datasets]'`). On JAX
and PyTorch, save the images as arrays first: [Backends](../backends.md#what-differs-on-jax-and-pytorch). All three
networks start from the same weights.
"""

train, validation, test, _ = kf.data.load_arrays("cifar10", num_train=2000, validation_size=2000)


def build_model(alpha, learning_rate):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((32, 32, 3))]
    for filters in (16, 32, 64):
        layers.append(keras.layers.Conv2D(filters, 3, padding="same", activation="relu"))
        layers.append(keras.layers.MaxPooling2D())
    layers += [
        keras.layers.Flatten(),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(10),
    ]
    model = kf.FisherPenaltyModel(
        keras.Sequential(layers),
        alpha=alpha,
        update_freq=1,  # penalise at every step,
        penalty_batch_size=1 / 32,  # a thirty-second part of the batch
        seed=0,
    )
    model.compile(
        optimizer=keras.optimizers.SGD(learning_rate, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


"""
`penalty_batch_size=1/32` computes the penalty on 4 of the 128 images of a batch. This takes about a tenth of a
plain step, and alpha keeps its meaning. With alpha 0, `FisherPenaltyModel` trains exactly as the
plain model does.

## Train

`FisherTrace` measures Tr(F) after each epoch.
"""

models = {
    "rate 0.03": build_model(0.0, 0.03),
    "rate 0.003": build_model(0.0, 0.003),
    "rate 0.003, Fisher penalty": build_model(0.03, 0.003),
}
histories = {
    name: model.fit(
        train.x,
        train.y,
        batch_size=128,
        epochs=40,
        validation_data=validation,
        validation_batch_size=500,
        callbacks=[kf.callbacks.FisherTrace(train, num_examples=200, seed=0)],
        verbose=0,
    ).history
    for name, model in models.items()
}

"""
## Compare
"""

keys = {
    "fisher_trace": "Tr(F)",
    "accuracy": "Training accuracy",
    "val_accuracy": "Validation accuracy",
}
figure, axes = plt.subplots(1, 3, figsize=(13, 3.7), layout="constrained")
for (name, history), style in zip(histories.items(), ("--", ":", "-"), strict=True):
    for axis, key in zip(axes, keys, strict=True):
        axis.plot(history[key], style, label=name)
for axis, title in zip(axes, keys.values(), strict=True):
    axis.set(xlabel="epoch", title=title)
axes[0].set_yscale("log")
axes[0].legend()
plt.show()

for name, model in models.items():
    accuracy = model.evaluate(*test, batch_size=500, verbose=0, return_dict=True)["accuracy"]
    print(f"{name}: test accuracy {accuracy:.1%}")

"""
The penalty keeps Tr(F) low, and the network fits the training data more slowly, but it generalises better
than the plain network with the same learning rate. These are single runs of a small network, so
differences of a point mean little. [Results](../results.md) has a larger
comparison, with three seeds and standard errors.

## Choose alpha

An alpha that is too large keeps the network from learning: the training accuracy falls far behind that of the
plain model. `kf.tuning.find_alpha` compares 0.03, 0.1 and 0.3 for the cost of 2.5 training runs:
[Finding alpha](finding_alpha.py).

## Large batches

A large batch has the same symptoms in the paper (appendix E), and you use the penalty in the same way.
Compute it on as many examples as a small batch has. With an integer `penalty_batch_size`, alpha has the
meaning that it has for batches of that size:

    kf.FisherPenaltyModel(backbone, alpha=0.1, update_freq=1, penalty_batch_size=128)

Check first that the large batch is the cause. The penalty does not help if the training takes too few steps
to fit the data, or if a tuned learning rate makes up for the large batch. Our own runs do not decide whether it
helps: [Results](../results.md#a-large-batch-figure-17).
"""
