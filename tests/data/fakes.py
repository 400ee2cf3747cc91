"""A small data set to prepare and to damage, no network, and batches beside each other."""

import urllib.error

import numpy as np
import pytest


def unreachable(*args, **kwargs):
    raise urllib.error.URLError("no network")


def write_cifar10(folder, num_classes=10):
    """A data set of 40 and 20 images that TFDS takes for CIFAR-10."""
    tfds = pytest.importorskip("tensorflow_datasets")
    generator = np.random.default_rng(0)

    def examples(size):
        images = generator.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
        for position, image in enumerate(images):
            label = position % num_classes
            yield position, {"id": str(position), "image": image, "label": label}

    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(num_classes=num_classes),
        }
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        "cifar10",
        "3.0.2",
        features,
        {"train": examples(40), "test": examples(20)},
        data_dir=folder,
    )


def arrays(batches):
    """Returns a list of the pairs of arrays in batches."""
    return [(np.asarray(x), np.asarray(y)) for x, y in batches]


def assert_same(actual, expected):
    """Asserts that batches hold the same numbers, to the last bit."""
    for (x, y), (x_expected, y_expected) in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(x, x_expected)
        np.testing.assert_array_equal(y, y_expected)


def change(path):
    content = bytearray(path.read_bytes())
    content[1000:1010] = bytes(10)
    path.write_bytes(content)
