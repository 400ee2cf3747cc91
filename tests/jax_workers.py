"""What one of several JAX processes trains: `python -m tests.jax_workers FOLDER CASE ...`.

Keras's environment variables KERAS_DISTRIBUTION_* say which process it is. Without them it is the
same on one device. Each process gets its rows of each batch. After the cases it trains with a
backup in FOLDER; process 1 kills itself once if FOLDER holds a file "kill". Prints JSON.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

import keras

if "KERAS_DISTRIBUTION_PROCESS_ID" in os.environ:
    keras.distribution.initialize()  # before anything is computed

import jax
import numpy as np
from jax.experimental.multihost_utils import sync_global_devices

import keras_fisher as kf
from tests import nets
from tests.double_precision import use_double_precision
from tests.killed_worker import Killed

BATCH, EXAMPLES = 8, 20  # the last batch is smaller
PROCESSES, PROCESS = jax.process_count(), jax.process_index()
EPOCHS = 4
CASES = {
    "fp, sampled labels": {"likelihood": None, "seed": 0},
    "fp, batch normalisation": {"net": "subclassed"},
    "gp_x of the first": {"penalty": "gp_x", "penalty_batch_size": 3},
    "gp_r of a share, in parts, by difference": {
        "penalty": "gp_r",
        "penalty_batch_size": 0.5,
        "micro_batch_size": 2,
        "gradient": "finite_difference",
    },
}


def own_rows(array):
    """This process's rows of each batch, one batch after another."""
    batches = [array[start : start + BATCH] for start in range(0, len(array), BATCH)]
    return np.concatenate([np.split(batch, PROCESSES)[PROCESS] for batch in batches])


def make_model(net="dense", **arguments):
    arguments = {"likelihood": nets.FromOutputs(), "alpha": 0.5, "update_freq": 2} | arguments
    model = kf.FisherPenaltyModel(nets.build(net), **arguments)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), nets.loss(), metrics=["accuracy"])
    return model


def fit(model, data, **options):
    x, y = map(own_rows, data)
    return model.fit(
        x,
        y,
        batch_size=BATCH // PROCESSES,
        validation_data=(x, y),
        shuffle=False,
        verbose=0,
        **options,
    ).history


def trained(net="dense", **arguments):
    """The weights and the logs of a training."""
    model = make_model(net, **arguments)
    logs = fit(model, (nets.inputs(net, EXAMPLES), nets.labels(EXAMPLES)), epochs=2)
    return [*nets.flat(model.weights).tolist(), *(v for key in sorted(logs) for v in logs[key])]


def resumed(folder):
    """What a training with a backup ends with: weights, logs, traces and predictions."""
    is_chief = PROCESS == 0
    model = make_model("subclassed")
    data = nets.inputs("subclassed", EXAMPLES), nets.labels(EXAMPLES)
    callbacks = [
        keras.callbacks.BackupAndRestore(
            folder / "backup",
            save_freq="epoch" if is_chief else sys.maxsize,
            delete_checkpoint=is_chief,
        ),
        kf.callbacks.FisherTrace(data, num_examples=9, seed=0),
        kf.callbacks.BatchNormRecalibration(data[:1], batch_size=BATCH),
    ]
    if is_chief:
        callbacks.append(keras.callbacks.ModelCheckpoint(folder / "model.keras"))
    if PROCESS == 1:
        callbacks.append(Killed(folder / "kill"))
    logs = fit(model, data, epochs=EPOCHS, callbacks=callbacks)
    logs.pop("fisher_trace_peak")  # a backup of Keras's holds the model, and not what callbacks saw
    last = [values[-1] for _, values in sorted(logs.items())]
    predicted = model.predict(data[0], batch_size=EXAMPLES, verbose=0)
    traces = [
        kf.traces.accuracy(model, *data),
        kf.gradient_norm(model, data, batch_size=BATCH).value,
        kf.hessian_trace(model, data, num_examples=9, seed=0).value,
        kf.fisher_trace(model, data, labels="expected", num_examples=9).value,
    ]
    return [*nets.flat(model.weights).tolist(), *last, *traces, *nets.flat([predicted]).tolist()]


def reloaded(folder):
    """The weights after one more epoch of what the chief has saved."""
    if PROCESSES > 1:
        sync_global_devices("saved")
    own = {"FromOutputs": nets.FromOutputs}
    model = keras.models.load_model(folder / "model.keras", custom_objects=own)
    fit(model, (nets.inputs("subclassed", EXAMPLES), nets.labels(EXAMPLES)), epochs=1)
    return nets.flat(model.weights).tolist()


def refusal():
    """What is said to a training that would not reach the other processes."""
    model = make_model()
    keras.distribution.set_distribution(None)
    try:
        fit(model, (nets.inputs("dense", EXAMPLES), nets.labels(EXAMPLES)))
    except ValueError as error:
        return str(error)


def main(folder, names):
    use_double_precision()
    several = keras.distribution.DataParallel(auto_shard_dataset=False)
    with several.scope() if PROCESSES > 1 else contextlib.nullcontext():
        found = {"resumed": resumed(folder), "reloaded": reloaded(folder)}
        found |= {name: trained(**CASES[name]) for name in names}
        found["refusal"] = refusal() if PROCESSES > 1 else None
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
