import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from keras_fisher.data import DatasetDamagedError, DatasetNotFoundError, load, load_arrays
from tests import reference
from tests.data.fakes import change, unreachable, write_cifar10

pytestmark = reference.tensorflow_only  # with JAX sets are read from arrays: test_saved.py


@pytest.mark.parametrize("name", ["cifar100", "tiny_imagenet32"])
def test_without_data_and_network_the_error_says_what_to_do(monkeypatch, tmp_path, name):
    pytest.importorskip("tensorflow_datasets")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    start = time.monotonic()
    with pytest.raises(DatasetNotFoundError, match=rf"{name}.*TFDS_DATA_DIR.*digits") as caught:
        load(name)
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
        load_arrays("cifar10")


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("digits", "sklearn.datasets", "recipes"),
        ("cifar10", "tensorflow_datasets", "datasets"),
        ("tiny_imagenet32", "tensorflow_datasets", "datasets"),
        ("imagenet2012", "tensorflow_datasets", "datasets"),
    ],
)
def test_a_missing_package_is_named_with_its_remedy(monkeypatch, name, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module}.*pip install 'keras-fisher\[{extra}\]'"):
        load(name)


@pytest.mark.slow
def test_importing_the_package_does_not_import_tensorflow_datasets():
    program = "import sys, keras_fisher.data; assert 'tensorflow_datasets' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("intact")
    write_cifar10(folder)
    return folder


@pytest.fixture
def cifar10(intact, tmp_path, monkeypatch):
    """A copy to damage: the folder of its record files."""
    shutil.copytree(intact, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path / "cifar10" / "3.0.2"


def test_an_intact_data_set_is_read(cifar10):
    splits = load_arrays("cifar10", validation_size=10)
    assert [len(part.y) for part in splits[:3]] == [30, 10, 20]


def cut(path):
    os.truncate(path, path.stat().st_size - 100)


def cut_between_records(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    path.write_bytes(content[: length + 16])


@pytest.mark.parametrize("damage", [cut, cut_between_records, change, os.remove])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_file_is_named_with_what_to_do(cifar10, split, damage):
    (path,) = cifar10.glob(f"cifar10-{split}.tfrecord*")
    damage(path)
    with pytest.raises(DatasetDamagedError) as caught:
        load("cifar10", validation_size=10, batch_size=10)
    message = str(caught.value)
    assert f"{path} cannot be read" in message
    assert f"Delete {cifar10} and prepare it again: `python tools/prepare_data.py" in message
    assert not any(str(other) in message for other in cifar10.glob("*tfrecord*") if other != path)


def test_labels_that_are_no_classes_are_refused(tmp_path, monkeypatch):
    write_cifar10(tmp_path, num_classes=12)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"training.*'cifar10'.*\[0, 10\).*label 1[01] at position"
    ):
        load("cifar10")
