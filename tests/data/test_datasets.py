import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from keras_fisher.data import DatasetNotFoundError, load

CIFAR = {"cifar10": 10, "cifar100": 100}


def pixels(examples):
    """The images as a set, for telling which are where."""
    return {image.tobytes() for image in examples.x}


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_digits_sizes_shapes_and_dtypes(digits):
    assert [len(part.y) for part in digits[:3]] == [1078, 180, 539]
    assert digits.num_classes == 10
    for x, y in digits[:3]:
        assert x.shape == (len(y), 8, 8, 1)
        assert (x.dtype, y.dtype) == ("float32", "int32")
        assert set(y) == set(range(10))


def test_images_keep_their_labels(digits):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    true_labels = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    mean, std = _digits_statistics(digits)
    for x, y in digits[:3]:
        restored = np.rint(x.reshape(len(x), -1).astype("float64") * std + mean)
        assert [true_labels[image.tobytes()] for image in restored] == list(y)


def _digits_statistics(digits):
    """Mean and standard deviation, from the pixel values 0 and 16 that digits begin and end at."""
    low = min(part.x.min() for part in digits[:3])
    high = max(part.x.max() for part in digits[:3])
    std = 16 / (float(high) - float(low))
    return -float(low) * std, std


def test_normalised_by_the_training_images_before_num_train_cuts_them(digits):
    assert digits.train.x.mean() == pytest.approx(0, abs=1e-5)
    assert digits.train.x.std() == pytest.approx(1, abs=1e-5)
    assert abs(digits.test.x.mean()) > 1e-4
    cut = load("digits", num_train=50)
    assert pixels(cut.train) < pixels(digits.train)
    np.testing.assert_array_equal(cut.test.x, digits.test.x)


def test_the_seed_moves_the_validation_images_but_never_the_test_images(digits):
    same, other = load("digits"), load("digits", seed=1)
    for part, part_again in zip(digits[:3], same[:3], strict=True):
        np.testing.assert_array_equal(part.x, part_again.x)
    np.testing.assert_array_equal(digits.test.y, other.test.y)
    assert np.any(digits.validation.y != other.validation.y)


def test_no_image_is_in_two_parts(digits):
    # Rounding makes the pixels comparable between parts; digits itself holds no image twice.
    parts = [{np.round(image, 3).tobytes() for image in part.x} for part in digits[:3]]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1797


@pytest.mark.parametrize("num_train", [10, 203])
def test_num_train_keeps_as_many_of_each_class(num_train):
    counts = np.bincount(load("digits", num_train=num_train).train.y, minlength=10)
    assert counts.sum() == num_train
    assert counts.max() - counts.min() <= 1


def test_validation_size():
    splits = load("digits", validation_size=0)
    assert [len(part.y) for part in splits[:3]] == [1258, 0, 539]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "imagenet"}, ValueError, "digits, cifar10, cifar100.*imagenet"),
        ({"name": "digits", "validation_size": -1}, ValueError, "`validation_size`.*-1"),
        ({"name": "digits", "validation_size": 1258}, ValueError, r"\[0, 1257\].*1258"),
        ({"name": "digits", "validation_size": 0.1}, TypeError, "`validation_size`.*0.1"),
        ({"name": "digits", "num_train": 0}, ValueError, "`num_train`.*0"),
        ({"name": "digits", "num_train": 1079}, ValueError, r"\[1, 1078\].*1079"),
        ({"name": "digits", "num_train": True}, TypeError, "`num_train`.*True"),
        ({"name": "digits", "seed": -1}, ValueError, "`seed`.*-1"),
    ],
)
def test_errors_name_the_argument_and_what_was_given(arguments, error, message):
    with pytest.raises(error, match=message):
        load(**arguments)


def test_without_data_and_network_the_error_says_what_to_do(monkeypatch, tmp_path):
    pytest.importorskip("tensorflow_datasets")

    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    start = time.monotonic()
    with pytest.raises(DatasetNotFoundError, match=r"cifar100.*TFDS_DATA_DIR.*digits") as caught:
        load("cifar100")
    assert str(tmp_path) in str(caught.value)
    assert isinstance(caught.value.__cause__, urllib.error.URLError)
    assert time.monotonic() - start < 60
    assert not any(tmp_path.iterdir())


def test_where_a_server_answers_tfds_is_left_to_download(monkeypatch, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    def forbidden(url, **kwargs):
        raise urllib.error.HTTPError(url, 403, "forbidden", None, None)

    def download_and_prepare(self):
        raise InterruptedError("downloading")

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", forbidden)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare)
    with pytest.raises(InterruptedError):
        load("cifar10")


@pytest.mark.parametrize(
    ("name", "module"), [("digits", "sklearn.datasets"), ("cifar10", "tensorflow_datasets")]
)
def test_a_missing_package_is_named_with_its_remedy(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module}.*pip install keras-fisher\[recipes\]"):
        load(name)


def test_importing_the_package_does_not_import_tensorflow_datasets():
    program = "import sys, keras_fisher.data; assert 'tensorflow_datasets' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture(scope="module", params=CIFAR)
def cifar(request):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder(request.param, data_dir=os.environ.get("TFDS_DATA_DIR"))
    if not builder.is_prepared():
        pytest.skip(f"{request.param} is not prepared: set TFDS_DATA_DIR to a folder that holds it")
    return request.param, load(request.param, num_train=2000)


def test_cifar_splits(cifar):
    name, splits = cifar
    assert splits.num_classes == CIFAR[name]
    assert [part.x.shape for part in splits[:3]] == [(n, 32, 32, 3) for n in (2000, 5000, 10_000)]
    assert all((x.dtype, y.dtype) == ("float32", "int32") for x, y in splits[:3])
    assert set(np.bincount(splits.train.y)) == {2000 // CIFAR[name]}
    assert set(np.bincount(splits.test.y)) == {10_000 // CIFAR[name]}
    np.testing.assert_allclose(splits.test.x.mean(axis=(0, 1, 2)), 0, atol=0.05)
    np.testing.assert_allclose(splits.test.x.std(axis=(0, 1, 2)), 1, atol=0.05)
