"""What one of several worker processes trains: `TF_CONFIG=... python -m tests.workers FOLDER`.

Without TF_CONFIG it is the same on one device. Worker 1 kills itself once if
FOLDER holds a file "kill". Prints JSON.
"""

import json
import os
import sys
from pathlib import Path

import keras
import tensorflow as tf

import keras_fisher as kf
from tests import nets
from tests.killed_worker import Killed

EPOCHS = 4


def main(folder):
    task = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"]
    strategy = tf.distribute.get_strategy()
    if "TF_CONFIG" in os.environ:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    is_chief = task == 0
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    with strategy.scope():
        model = kf.FisherPenaltyModel(
            nets.build("synchronized_cnn"), alpha=0.1, update_freq=2, likelihood=nets.FromOutputs()
        )
        model.compile(keras.optimizers.Adam(0.01), nets.loss(), metrics=["accuracy"])
    x, y = nets.inputs("synchronized_cnn", batch=21), nets.labels(21)
    backup = keras.callbacks.BackupAndRestore(
        folder / "backup",
        save_freq="epoch" if is_chief else sys.maxsize,
        delete_checkpoint=is_chief,
    )
    callbacks = [backup, kf.callbacks.FisherTrace((x, y), num_examples=9, seed=0)]
    if is_chief:
        callbacks += [
            keras.callbacks.TensorBoard(folder / "tensorboard"),
            keras.callbacks.ModelCheckpoint(folder / "model.keras"),
        ]
    if task == 1:
        callbacks.append(Killed(folder / "kill"))
    history = model.fit(
        x,
        y,
        batch_size=8,
        epochs=EPOCHS,
        shuffle=False,
        validation_data=(x, y),
        callbacks=callbacks,
        verbose=0,
    ).history
    last = {key: values[-1] for key, values in history.items()}
    weights = nets.flat(model.backbone.weights).tolist()
    print(json.dumps({"weights": weights, "last": last}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
