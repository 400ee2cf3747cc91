"""A search of alphas on digits, as a program: `python grid_of_digits.py FOLDER`."""

import sys
import time

import keras
import tensorflow as tf

from keras_fisher import data, tuning

ALPHAS = tuning.alphas(0.1, num=3)


def main(folder):
    tf.config.run_functions_eagerly(True)  # a few steps take less time than to compile one
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
    try:
        tuner.search(x, y, validation_data=validation, callbacks=[slow], verbose=0)
    finally:
        tf.config.run_functions_eagerly(False)


if __name__ == "__main__":
    main(sys.argv[1])
