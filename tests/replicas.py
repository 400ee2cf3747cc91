"""What several replicas train, beside one device: `python -m tests.replicas NUMBER CASE ...`.

A program of its own, since devices can be split only before TensorFlow starts, and two strategies
in one process disturb each other. Prints JSON.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_fisher import FisherPenaltyModel
from keras_fisher.likelihoods import Categorical
from tests import nets

EXAMPLES, BATCH, EPOCHS = 21, 8, 7  # of the last of 3 batches, one of 4 replicas has nothing


class FromOutputs(Categorical):
    """Draws labels that follow from an example's outputs, on whichever replica it is."""

    def sample(self, outputs, seed):
        return ops.argmin(outputs, axis=-1)

    def sample_uniform(self, outputs, seed):
        return ops.cast(1e3 * ops.abs(outputs[:, 0]) % nets.CLASSES, "int32")


class Recorded(Categorical):
    """Keeps the labels that it draws."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def sample(self, outputs, seed):
        self.drawn.append(super().sample(outputs, seed))
        return self.drawn[-1]


class InParts(keras.Model):
    """A network that sees a batch as replicas do, one part after another."""

    def __init__(self, net, parts):
        super().__init__()
        self.net, self.parts = net, parts

    def call(self, x, training=None):
        return ops.concatenate(
            [self.net(part, training=training) for part in ops.split(x, self.parts)]
        )


DIFFERENCE = {"gradient": "finite_difference"}
CASES = {
    "fp": {},
    "fp by difference": DIFFERENCE,
    "fp at every step": {"update_freq": 1},
    "fp of the first": {"penalty_batch_size": 5},
    "fp of the first by difference": {"penalty_batch_size": 3, **DIFFERENCE},
    "gp": {"penalty": "gp"},
    "gp by difference": {"penalty": "gp", **DIFFERENCE},
    "gp_r": {"penalty": "gp_r"},
    "gp_r by difference": {"penalty": "gp_r", **DIFFERENCE},
    "gp_x": {"penalty": "gp_x", "alpha": 0.1},
    "gp_x by difference": {"penalty": "gp_x", "alpha": 0.1, **DIFFERENCE},
    "gp_x of the first": {"penalty": "gp_x", "alpha": 0.1, "penalty_batch_size": 3},
    "no penalty": {"alpha": 0.0},
    "eagerly": {"run_eagerly": True},
    "attention": {"net": "attention"},
    "batch norm": {"net": "batch_norm_cnn"},
    "batch norm by difference": {"net": "batch_norm_cnn", **DIFFERENCE},
    "synchronized batch norm": {"net": "synchronized_cnn"},
    "synchronized batch norm by difference": {"net": "synchronized_cnn", **DIFFERENCE},
}


def trained(strategy, net="dense", parts=1, run_eagerly=False, **arguments):
    """The weights of the network and the logs."""
    arguments = {"update_freq": 2, "likelihood": FromOutputs()} | arguments
    with strategy.scope():
        backbone = nets.build(net)
        model = FisherPenaltyModel(InParts(backbone, parts) if parts > 1 else backbone, **arguments)
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        model.compile(optimizer, nets.loss(), metrics=["accuracy"], run_eagerly=run_eagerly)
    # Statistics of parts of unequal size are no mean of examples.
    examples = 2 * BATCH if net == "batch_norm_cnn" else EXAMPLES
    x, y = nets.inputs(net, batch=examples), nets.labels(examples)
    fit = {"batch_size": BATCH, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    # What moving statistics are under replicas is up to Keras.
    validation = None if net == "batch_norm_cnn" else (x, y)
    history = model.fit(x, y, validation_data=validation, **fit).history
    return nets.flat([*backbone.trainable_weights, *(history[key] for key in sorted(history))])


def difference(many, case):
    """How far replicas end from one device."""
    arguments = CASES[case]
    parts = many.num_replicas_in_sync if arguments.get("net") == "batch_norm_cnn" else 1
    expected = trained(tf.distribute.get_strategy(), parts=parts, **arguments)
    return float(np.abs(trained(many, **arguments) - expected).max())


def labels_of_each_replica(strategy):
    """The labels that are drawn for the same inputs."""
    with strategy.scope():
        model = FisherPenaltyModel(nets.build("dense"), likelihood=Recorded(), seed=0)
        model.compile("sgd", nets.loss(), run_eagerly=True)
    same = np.ones((64 * strategy.num_replicas_in_sync, 4))
    model.fit(same, np.zeros(len(same), int), batch_size=len(same), verbose=0)
    return [np.array(labels).tolist() for labels in model.likelihood.drawn]


def main(replicas, cases):
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(cpu, devices)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    many = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
    differences = {case: difference(many, case) for case in cases or CASES}
    print(json.dumps({"differences": differences, "labels": labels_of_each_replica(many)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
