"""A search of alphas on digits, as a program: `python grid_of_digits.py FOLDER`."""

import sys
import time

import keras

from keras_fisher import data, tuning
from tests import reference

ALPHAS = tuning.alphas(0.1, num=3)


def main(folder):
    train, validation, *_ = data.load_arrays("digits")
    hypermodel = tuning.FisherPenaltyHyperModel(
        lambda hp: keras.Sequential(
            [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        learning_rates=[0.003],
        alphas=ALPHAS,
    )
    tuner = tuning.GridSearch(hypermodel, directory=folder)
    slow = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: time.sleep(0.5))
    x, y = train.x[:200], train.y[:200]
    with reference.run_eagerly():
        tuner.search(x, y, validation_data=validation, callbacks=[slow], verbose=0)


if __name__ == "__main__":
    main(sys.argv[1])
