"""What several replicas train, beside one device: `python -m tests.replicas NUMBER`.

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

EXAMPLES, BATCH = 21, 8  # the last batch has 5: of four replicas, one has none


class FromOutputs(Categorical):
    """Draws labels that follow from an example's outputs, on whichever replica it is."""

    def sample(self, outputs, seed):
        return ops.argmin(outputs, axis=-1)

    def sample_uniform(self, outputs, seed):
        return ops.cast(1e3 * ops.abs(outputs[:, 0]) % nets.CLASSES, "int32")


class Recorded(Categorical):
    """Keeps the labels that it draws."""

    drawn: list = []

    def sample(self, outputs, seed):
        self.drawn.append(super().sample(outputs, seed))
        return self.drawn[-1]


CASES = {
    "fp": {"penalty": "fp"},
    "gp by difference": {"penalty": "gp", "gradient": "finite_difference"},
    "gp_r of the first": {"penalty": "gp_r", "penalty_batch_size": 3},
    "gp_x": {"penalty": "gp_x", "alpha": 1.0},
    "gp_x by difference": {"penalty": "gp_x", "alpha": 1.0, "gradient": "finite_difference"},
    "fp of the first by difference": {"gradient": "finite_difference", "penalty_batch_size": 5},
    "none": {"alpha": 0.0},
}


def trained(strategy, case, run_eagerly, name="dense"):
    """The trainable weights and the logs after two epochs."""
    arguments = {"alpha": 0.1, "update_freq": 2, "likelihood": FromOutputs()} | CASES[case]
    with strategy.scope():
        model = FisherPenaltyModel(nets.build(name), **arguments)
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        model.compile(optimizer, nets.loss(), metrics=["accuracy"], run_eagerly=run_eagerly)
    x, y = nets.inputs(name, batch=EXAMPLES), nets.labels(EXAMPLES)
    fitted = model.fit(
        x, y, batch_size=BATCH, epochs=2, shuffle=False, validation_data=(x, y), verbose=0
    )
    logs = [fitted.history[key] for key in sorted(fitted.history)]
    return nets.flat([*model.backbone.trainable_weights, *logs])


def labels_of_each_replica(strategy):
    """The labels that are drawn for the same inputs."""
    with strategy.scope():
        model = FisherPenaltyModel(nets.build("dense"), likelihood=Recorded(), seed=0)
        model.compile("sgd", nets.loss(), run_eagerly=True)
    same = np.ones((64 * strategy.num_replicas_in_sync, 4))
    model.fit(same, np.zeros(len(same), int), batch_size=len(same), verbose=0)
    return [np.array(labels).tolist() for labels in Recorded.drawn]


def main(replicas):
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(cpu, devices)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    one = tf.distribute.get_strategy()
    many = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
    differences = {}
    for case in CASES:
        eager = case not in ("fp", "gp by difference")
        found, expected = trained(many, case, eager), trained(one, case, eager)
        differences[case] = float(np.abs(found - expected).max())
    print(json.dumps({"differences": differences, "labels": labels_of_each_replica(many)}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
