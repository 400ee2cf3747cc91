import numpy as np
import pytest

from keras_fisher.data import (
    DatasetDamagedError,
    DatasetNotFoundError,
    load_arrays,
    saved,
    sources,
)
from keras_fisher.data.examples import Examples


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    generator = np.random.default_rng(0)

    def examples(count):
        x = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        return Examples(x, (np.arange(count) % 10).astype(np.int32))

    ids = np.array([f"train_{position:05}" for position in range(40)])
    return saved.save("cifar10", (examples(40), examples(20)), ids, str(tmp_path))


def test_saved_arrays_take_the_place_of_tfds(path):
    splits = load_arrays("cifar10", validation_size=10)
    assert [len(part.y) for part in splits[:3]] == [30, 10, 20]
    with np.load(path) as file:
        assert np.array_equal(splits.test.y, file["test_y"])
    assert splits.train.x.mean() == pytest.approx(0, abs=1e-4)


def test_ids_are_saved_beside_the_images(path):
    ids, y = sources.read_ids("cifar10")
    assert ids.tolist() == [f"train_{position:05}" for position in range(40)]
    np.testing.assert_array_equal(y, sources.read("cifar10")[0].y)


def test_arrays_of_an_earlier_version_are_read_but_have_no_ids(path):
    with np.load(path) as file:
        arrays = {key: file[key] for key in file if key != "train_ids"}
    np.savez(path, **arrays)
    assert len(load_arrays("cifar10", validation_size=10).train.y) == 30
    message = r"lacks the ids.*cifar10\.npz.*Save it again: `KERAS_BACKEND"
    with pytest.raises(DatasetNotFoundError, match=message):
        sources.read_ids("cifar10")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no archive"])
def test_a_damaged_file_is_named(path, content):
    path.write_bytes(content)
    with pytest.raises(DatasetDamagedError, match=r"cifar10\.npz cannot be read"):
        load_arrays("cifar10")


def test_an_array_that_is_missing_is_damage_too(path):
    np.savez(path, train_x=np.zeros(3))
    with pytest.raises(DatasetDamagedError, match=r"cifar10\.npz cannot be read"):
        load_arrays("cifar10")


def test_objects_are_not_unpickled(path):
    np.savez(path, **dict.fromkeys(("train_x", "train_y", "test_x", "test_y"), np.array([{}])))
    with pytest.raises(DatasetDamagedError):
        load_arrays("cifar10")
