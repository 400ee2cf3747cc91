"""The real data sets. Each is decoded once, so all that needs them is in this file."""

from types import SimpleNamespace

import numpy as np
import pytest

from keras_fisher.data import arrays, load, sources
from tests import reference

tf = pytest.importorskip("tensorflow")
pytestmark = reference.tensorflow_only

# Images, classes, images held out, and those that training and test images are known to share.
SETS = {
    "cifar10": (50_000, 10, 5000, 0),
    "cifar100": (50_000, 100, 5000, 10),
    "tiny_imagenet32": (100_000, 200, 0, 7),
}


PARAMS = ["cifar10", "cifar100", pytest.param("tiny_imagenet32", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=PARAMS)
def data(request):
    pytest.importorskip("tensorflow_datasets")
    if not sources.find(request.param).is_prepared():
        pytest.skip(f"{request.param} is not prepared: set TFDS_DATA_DIR to a folder that holds it")
    images, classes, held_out, shared = SETS[request.param]
    train, test = sources.read(request.param)
    return SimpleNamespace(
        name=request.param,
        train=train,
        test=test,
        images=images,
        classes=classes,
        held_out=held_out,
        shared=shared,
    )


@pytest.fixture(autouse=True)
def read_once(data, monkeypatch):
    monkeypatch.setattr(arrays, "read", lambda name: (data.train, data.test))


def contents(examples):
    return {hash(image.tobytes()) for image in examples.x}


def test_counts_and_balance(data):
    assert data.train.x.shape == (data.images, 32, 32, 3)
    assert data.test.x.shape == (10_000, 32, 32, 3)
    for part in (data.train, data.test):
        assert (part.x.dtype, part.y.dtype) == ("uint8", "int32")
        assert set(np.bincount(part.y)) == {len(part.y) // data.classes}


def test_parts_share_no_image_but_for_the_known_ones(data):
    assert len(contents(data.train) & contents(data.test)) <= data.shared
    splits, _ = arrays.read_splits(data.name, None, None, seed=0)
    assert len(splits.train.y) == data.images - data.held_out
    assert len(splits.validation.y) == data.held_out
    twice = data.images - len(contents(data.train))  # the images that CIFAR-100 has twice
    assert len(contents(splits.train) & contents(splits.validation)) <= twice


def test_training_images_are_normalised_and_the_others_likewise(data):
    pipelines = load(data.name, batch_size=1000)
    mean, variance = moments(pipelines.train.take(pipelines.steps_per_epoch))
    np.testing.assert_allclose(mean, 0, atol=1e-4)
    np.testing.assert_allclose(variance, 1, atol=1e-4)
    mean, variance = moments(pipelines.test)
    np.testing.assert_allclose(mean, 0, atol=0.05)
    np.testing.assert_allclose(variance, 1, atol=0.1)


def moments(batches):
    """Mean and variance of each channel, over batches of one size."""
    pixels = (tf.reshape(x, (-1, 3)).numpy() for x, _ in batches)
    sums = [(np.ones(len(x), x.dtype) @ x / len(x), np.diag(x.T @ x) / len(x)) for x in pixels]
    mean, mean_of_squares = np.array(sums, np.float64).mean(axis=0)
    return mean, mean_of_squares - mean**2
