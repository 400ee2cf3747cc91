"""Trains a model and saves its weights, or resumes from them; prints the result as JSON.

Run by test_agreement.py: `python -m tests.backend.moves save PATH` prints the result of the
uninterrupted training, `python -m tests.backend.moves resume PATH` that of the rest of it.
"""

import json
import sys

import keras

from tests import nets

STEPS = 3  # the kept gradient is then in use for one more step


def made():
    model = nets.compiled(
        "batch_norm_cnn",
        keras.optimizers.SGD(0.01, momentum=0.9),
        alpha=0.1,
        penalty="gp",
        update_freq=4,
    )
    return model


def trained(model):
    for _ in range(STEPS):
        logs = model.train_on_batch(nets.inputs("batch_norm_cnn"), nets.labels(), return_dict=True)
    weights = nets.flat(model.backbone.weights).tolist()
    return {"weights": weights, "penalty": float(logs["penalty"]), "alpha": model.alpha}


if __name__ == "__main__":
    what, path = sys.argv[1:]
    model = made()
    if what == "save":
        model.alpha = 0.03
        trained(model)
        model.save_weights(path)
    else:
        model.optimizer.build(model.trainable_variables)
        model.load_weights(path)
    json.dump(trained(model), sys.stdout)
