"""What several replicas train, beside one device: `python -m tests.replicas NUMBER NAME ...`.

A program of its own, since devices can be split only before TensorFlow starts, and two strategies
in one process disturb each other. Prints JSON.
"""

import json
import logging
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_fisher import FisherPenaltyModel
from keras_fisher.callbacks import NonFiniteGuard
from keras_fisher.likelihoods import Categorical
from tests import nets

BATCH, LAST = 8, 5  # of the last batch, one of 4 replicas has nothing


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
        parts = 1 if ops.shape(x)[0] == FIRST else self.parts  # those are all on one replica
        return ops.concatenate([self.net(part, training=training) for part in ops.split(x, parts)])


FIRST = 2
ONLY_EAGERLY = "synchronized batch norm by difference"
EAGERLY = ", eagerly"  # after a case: not compiled, which takes less time
DIFFERENCE = {"gradient": "finite_difference"}
CASES = {
    "fp": {},
    "fp by difference": DIFFERENCE,
    "fp at every step": {"update_freq": 1},
    "fp of the first": {"penalty_batch_size": 5},
    "fp of the first by difference": {"penalty_batch_size": 3, **DIFFERENCE},
    "fp of a share": {"penalty_batch_size": 0.4},
    "fp in parts": {"micro_batch_size": 2},
    "fp of a share, in parts, by difference": {
        "penalty_batch_size": 0.6,
        "micro_batch_size": 2,
        **DIFFERENCE,
    },
    "fp with a limit": {"alpha": 10.0, "max_penalty_ratio": 0.5},
    "gp": {"penalty": "gp"},
    "gp by difference": {"penalty": "gp", **DIFFERENCE},
    "gp_r": {"penalty": "gp_r"},
    "gp_r by difference": {"penalty": "gp_r", **DIFFERENCE},
    "gp_x": {"penalty": "gp_x", "alpha": 0.1},
    "gp_x by difference": {"penalty": "gp_x", "alpha": 0.1, **DIFFERENCE},
    "gp_x of the first": {"penalty": "gp_x", "alpha": 0.1, "penalty_batch_size": 3},
    "gp_x in parts": {"penalty": "gp_x", "alpha": 0.1, "micro_batch_size": 1},
    "no penalty": {"alpha": 0.0},
    "padding": {"is_padded": True},
    "padding, of a share, in parts": {
        "is_padded": True,
        "penalty_batch_size": 0.6,
        "micro_batch_size": 2,
    },
    "attention": {"net": "attention"},
    "batch norm": {"net": "batch_norm_cnn"},
    "batch norm of the first": {"net": "batch_norm_cnn", "penalty_batch_size": FIRST},
    "batch norm by difference": {"net": "batch_norm_cnn", **DIFFERENCE},
    "synchronized batch norm": {"net": "synchronized_cnn"},
    "synchronized batch norm by difference": {"net": "synchronized_cnn", **DIFFERENCE},
    "mixed_float16": {"policy": "mixed_float16"},
    "mixed_bfloat16 by difference": {"policy": "mixed_bfloat16", **DIFFERENCE},
}


def trained(
    strategy,
    net="dense",
    parts=1,
    run_eagerly=False,
    policy="float64",
    is_padded=False,
    **arguments,
):
    """The weights of the network and, in float64, the logs."""
    keras.config.set_dtype_policy(policy)
    arguments = {"update_freq": 2, "likelihood": nets.FromOutputs()} | arguments
    with strategy.scope():
        backbone = nets.build(net)
        model = FisherPenaltyModel(InParts(backbone, parts) if parts > 1 else backbone, **arguments)
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        model.compile(optimizer, nets.loss(), metrics=["accuracy"], run_eagerly=run_eagerly)
    examples = (2 if run_eagerly else 9) * BATCH
    if net != "batch_norm_cnn":  # statistics of parts of unequal size are no mean of examples
        examples += LAST
    x, y = nets.inputs(net, batch=examples), nets.labels(examples)
    fit = {"batch_size": BATCH, "epochs": 1 if run_eagerly else 2, "shuffle": False, "verbose": 0}
    if is_padded:
        fit["sample_weight"] = (np.arange(examples) % 3 > 0).astype("float64")
    # What moving statistics are under replicas is up to Keras.
    validation = None if net == "batch_norm_cnn" else (x, y)
    history = model.fit(x, y, validation_data=validation, **fit).history
    logs = [history[key] for key in sorted(history)] if policy == "float64" else []
    return nets.flat([*backbone.trainable_weights, *logs])


def difference(many, case):
    """How far replicas end from one device."""
    name = case.removesuffix(EAGERLY)
    arguments = {"run_eagerly": name != case, **CASES[name]}
    parts = many.num_replicas_in_sync if arguments.get("net") == "batch_norm_cnn" else 1
    expected = trained(tf.distribute.get_strategy(), parts=parts, **arguments)
    return float(np.abs(trained(many, **arguments) - expected).max())


class OwnStep(FisherPenaltyModel):
    """A model with a step of its own."""

    def train_step(self, data):
        return super().train_step(data)


def refusals(strategy):
    """What `compile` says to what Keras cannot do on replicas."""
    sgd = keras.optimizers.SGD
    refused = {
        "steps_per_execution": {"optimizer": sgd(), "steps_per_execution": 2},
        "jit_compile": {"optimizer": sgd(), "jit_compile": True},
        "gradient_accumulation_steps": {"optimizer": sgd(gradient_accumulation_steps=2)},
        "global_clipnorm": {"optimizer": sgd(global_clipnorm=1.0)},
        "clipnorm": {
            "optimizer": keras.optimizers.MultiOptimizer(
                keras.optimizers.OptimizerMap(sgd(clipnorm=1.0))
            )
        },
        "ema_overwrite_frequency": {"optimizer": sgd(use_ema=True, ema_overwrite_frequency=2)},
        "loss": {"loss": keras.losses.SparseCategoricalCrossentropy(reduction="sum")},
    }
    messages = {}
    for name, arguments in refused.items():
        with strategy.scope():
            model = FisherPenaltyModel(nets.build("dense"))
        messages[name] = refusal(strategy, model, **arguments)
    for name, value in (("micro_batch_size", 2), ("gradient", "finite_difference")):
        with strategy.scope():
            model = FisherPenaltyModel(nets.build("synchronized_cnn"), **{name: value})
        messages[name] = refusal(strategy, model)
    with strategy.scope():
        messages["train_step"] = refusal(strategy, OwnStep(nets.build("dense")))
    return messages


def refusal(strategy, model, **arguments):
    """What `compile` says."""
    with strategy.scope():
        try:
            model.compile(**{"loss": nets.loss(), **arguments})
        except ValueError as error:
            return str(error)
    return "nothing"


def labels_of_each_replica(strategy):
    """The labels that are drawn for the same inputs."""
    with strategy.scope():
        model = FisherPenaltyModel(nets.build("dense"), likelihood=Recorded(), seed=0)
        model.compile("sgd", nets.loss(), run_eagerly=True)
    same = np.ones((64 * strategy.num_replicas_in_sync, 4))
    model.fit(same, np.zeros(len(same), int), batch_size=len(same), verbose=0)
    labels = [np.array(labels).tolist() for labels in model.likelihood.drawn]
    model.train_on_batch(same, np.zeros(len(same), int))
    assert len(model.likelihood.drawn[-1]) == 64  # a part of the batch, too
    return labels


def skips_an_overflow(strategy):
    """Whether a step is skipped in which the last replica alone has infinite gradients."""
    keras.config.set_dtype_policy("mixed_float16")
    with strategy.scope():
        model = FisherPenaltyModel(nets.build("dense"), penalty="gp")
        model.compile("sgd", nets.loss(), run_eagerly=True)
    before = nets.flat(model.backbone.weights)
    x, y = nets.inputs("dense", batch=8), nets.labels(8)
    x[-1] = 1e5
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    return bool(np.array_equal(nets.flat(model.backbone.weights), before))


def trouble(strategy):
    """Steps taken and what is said where one replica's loss is NaN, and to a guard that skips."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("keras_fisher").addHandler(handler)
    keras.config.set_dtype_policy("float64")
    with strategy.scope():
        model = FisherPenaltyModel(nets.build("dense"), penalty="gp")
        model.compile("sgd", nets.loss())
    x, y = nets.inputs("dense", batch=32), nets.labels(32)
    x[15] = np.nan
    given = {"batch_size": 8, "shuffle": False, "verbose": 0}
    model.fit(x, y, callbacks=[NonFiniteGuard()], **given)
    steps = int(ops.convert_to_numpy(model.optimizer.iterations))
    try:
        model.fit(x, y, callbacks=[NonFiniteGuard("skip")], **given)
    except ValueError as error:
        messages.append(str(error))
    return [steps, *messages]


class MeanOutput(keras.losses.Loss):
    """A loss that returns one number."""

    def call(self, y_true, y_pred):
        return ops.mean(y_pred)


def scalar_losses(strategy):
    """What is said to losses that return one number."""
    said = []
    for loss in (lambda y, outputs: ops.mean(outputs), MeanOutput(), [MeanOutput()]):
        with strategy.scope():
            model = FisherPenaltyModel(nets.build("dense"), likelihood=Categorical())
            model.compile("sgd", loss, run_eagerly=True)
        try:
            model.fit(nets.inputs("dense"), nets.labels(), verbose=0)
        except ValueError as error:
            said.append(str(error))
    return said


# What else is looked at, beside cases.
LOOKS = {
    "labels": labels_of_each_replica,
    "refusals": lambda strategy: {**refusals(strategy), "scalar losses": scalar_losses(strategy)},
    "trouble": trouble,
    "skips an overflow": skips_an_overflow,
}


def main(replicas, names):
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(cpu, devices)
    keras.config.set_floatx("float64")
    many = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
    cases = [case + EAGERLY * (case == ONLY_EAGERLY) for case in CASES]
    names = names or [*cases, *LOOKS]
    found = {name: LOOKS[name](many) if name in LOOKS else difference(many, name) for name in names}
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
