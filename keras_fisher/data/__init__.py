"""Data sets, label noise, mixup, augmentation and resumable batches."""

from keras_fisher.data.arrays import Splits, load_arrays
from keras_fisher.data.augment import flip_and_crop
from keras_fisher.data.datasets import load
from keras_fisher.data.mixup import mixup
from keras_fisher.data.noise import uniform_label_noise
from keras_fisher.data.normalisation import Normalisation
from keras_fisher.data.pipeline import Pipelines, training_batches
from keras_fisher.data.sources import (
    NAMES,
    DatasetDamagedError,
    DatasetNotFoundError,
    Examples,
)

__all__ = [
    "NAMES",
    "DatasetDamagedError",
    "DatasetNotFoundError",
    "Examples",
    "Normalisation",
    "Pipelines",
    "Splits",
    "flip_and_crop",
    "load",
    "load_arrays",
    "mixup",
    "training_batches",
    "uniform_label_noise",
]
