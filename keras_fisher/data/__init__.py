"""Data sets, label noise, mixup, augmentation and resumable batches."""

from keras_fisher.data.augment import flip_and_crop
from keras_fisher.data.datasets import NAMES, DatasetNotFoundError, Examples, Splits, load
from keras_fisher.data.mixup import mixup
from keras_fisher.data.noise import uniform_label_noise
from keras_fisher.data.pipeline import training_batches

__all__ = [
    "NAMES",
    "DatasetNotFoundError",
    "Examples",
    "Splits",
    "flip_and_crop",
    "load",
    "mixup",
    "training_batches",
    "uniform_label_noise",
]
