"""A worker process that is killed once."""

import os
import signal

import keras


class Killed(keras.callbacks.Callback):
    """Kills the process in the third epoch, the first time."""

    def __init__(self, order):
        super().__init__()
        self.order = order

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 2 and batch == 1 and self.order.exists():
            self.order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
