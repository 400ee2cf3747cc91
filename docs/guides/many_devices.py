"""
Title: Several devices
Author: The keras_fisher developers
Date created: 2026/11/29
Last modified: 2026/11/29
Description: Train on all GPUs of a machine, with the penalty of the whole batch.
Accelerator: GPU
"""

"""
## Introduction

This guide is for users with several GPUs and the TensorFlow backend. For JAX, see
[Many devices](../distributed.md#several-gpus-with-jax).

The penalty is the squared norm of the mean gradient over the whole mini-batch. If each of R devices
squared the gradient of its own part, the penalty would be about R times too large, and the best
alpha would depend on the number of devices. `FisherPenaltyModel` averages the gradient over the
devices before it takes the norm. So R devices train as one device does on the same batches, up to
rounding, except for drawn labels, dropout, batch normalisation and masks: [Many devices](../distributed.md).

This guide runs on two virtual devices of a CPU. On a machine with GPUs, leave out the lines that
create the virtual devices, and call `MirroredStrategy()` without arguments: it uses all GPUs.
"""

import keras
import numpy as np
import tensorflow as tf

import keras_fisher as kf

tf.get_logger().setLevel("ERROR")
cpu = tf.config.list_physical_devices("CPU")[0]
virtual = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, virtual)

train, validation, test, _ = kf.data.load_arrays("digits")

"""
## Train

Build and compile the model in the scope of the strategy. Call `fit` as usual; `batch_size` is the size of the
whole mini-batch. Here each device gets 32 of 64 examples.
"""


def train_model(strategy):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        backbone = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(8, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(10),
            ]
        )
        model = kf.FisherPenaltyModel(backbone, alpha=0.03, penalty="gp", update_freq=1)
        model.compile(
            optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    history = model.fit(
        train.x,
        train.y,
        batch_size=64,
        epochs=3,
        shuffle=False,
        validation_data=validation,
        verbose=0,
    )
    return model, history.history


one, history_of_one = train_model(tf.distribute.OneDeviceStrategy("CPU:0"))
two, history_of_two = train_model(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))

"""
## Compare

The penalties and the weights agree up to rounding. This guide uses `penalty="gp"`, which takes the labels of
the data. Under `"fp"`, each device draws its own labels, from the same distribution as a single
device.
"""

for name, history in (("one device", history_of_one), ("two devices", history_of_two)):
    print(name, [f"{value:.5f}" for value in history["penalty"]])
difference = max(
    np.abs(a - b).max() for a, b in zip(one.get_weights(), two.get_weights(), strict=True)
)
print(f"largest difference between weights: {difference:.0e}")

"""
## More

- With JAX, call `keras.distribution.set_distribution(keras.distribution.DataParallel())` before you build the
  model; no scope is needed.
- `BatchNormalization(synchronized=True)` computes its statistics over the whole batch, as one device
  does. By default, each device uses the statistics of its own part.
- On several machines, use `tf.distribute.MultiWorkerMirroredStrategy()` instead of `MirroredStrategy()`, or
  `keras.distribution.initialize` with JAX: [Many devices](../distributed.md).
"""
