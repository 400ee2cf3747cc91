"""Data sets, label noise, mixup, augmentation and resumable batches."""

from keras_fisher.data.arrays import Splits, load_arrays
from keras_fisher.data.augmentation import flip_and_crop
from keras_fisher.data.batches import training_batches
from keras_fisher.data.datasets import load
from keras_fisher.data.examples import DatasetDamagedError, DatasetNotFoundError, Examples
from keras_fisher.data.human_labels import human_labels
from keras_fisher.data.mixing import mixup
from keras_fisher.data.noise import uniform_label_noise
from keras_fisher.data.normalisation import Normalisation
from keras_fisher.data.pipelines import Pipelines
from keras_fisher.data.sources import NAMES
from keras_fisher.data.wrong_labels import WrongLabels, find_wrong_labels

__all__ = [
    "NAMES",
    "DatasetDamagedError",
    "DatasetNotFoundError",
    "Examples",
    "Normalisation",
    "Pipelines",
    "Splits",
    "WrongLabels",
    "find_wrong_labels",
    "flip_and_crop",
    "human_labels",
    "load",
    "load_arrays",
    "mixup",
    "training_batches",
    "uniform_label_noise",
]
