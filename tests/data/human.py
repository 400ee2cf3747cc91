"""Human labels as the official files hold them, and a data set that they belong to."""

import pickle
import zipfile

import numpy as np

from keras_fisher.data import Examples, saved
from keras_fisher.data.human_labels import ANNOTATIONS

NUM_IMAGES = 50_000
CLASSES = {"cifar10": 10, "cifar100": 100}
FILES = {"cifar10": "CIFAR-10_human.pt", "cifar100": "CIFAR-100_human.pt"}


def write_data(folder, name):
    """Writes a data set and its file, and returns which image of the file each of its images is.

    The shade of an image is the label that the last annotation gives it.
    """
    order = np.random.default_rng(1).permutation(NUM_IMAGES)
    labels = draw(name)
    clean, last = labels["clean"][order], [*labels.values()][-1][order]
    save_images(folder, name, clean, name_images(order), shades=last)
    write_labels(folder / FILES[name], name, labels)
    return order


def draw(name):
    """Labels of each annotation, in the order of the Python version."""
    generator = np.random.default_rng(0)
    return {
        annotation: generator.integers(0, CLASSES[name], NUM_IMAGES)
        for annotation in ANNOTATIONS[name]
    }


def pickled(arrays):
    """As NumPy 1 pickled them, for the official files."""
    return pickle.dumps(arrays, protocol=2).replace(b"numpy._core.", b"numpy.core.")


def write_zip(path, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
    return path


def write_labels(path, name, labels):
    coarse = {"clean_coarse_label": [3, 1, 2], "noisy_coarse_label": [19, 0]}
    arrays = {ANNOTATIONS[name][annotation]: y for annotation, y in labels.items()}
    return write_zip(path, pickled(arrays | coarse if name == "cifar100" else arrays))


def save_images(folder, name, y, ids, shades):
    """A data set of single pixels with these shades, labels and ids."""
    x = shades.astype("uint8").reshape(-1, 1, 1, 1)
    saved.save(name, (Examples(x, y), Examples(x[:5], y[:5])), ids, str(folder))


def name_images(order):
    return np.array([f"train_{position:05}" for position in order])
