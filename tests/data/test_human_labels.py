import os
import pickle
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from keras_fisher.data import (
    DatasetDamagedError,
    DatasetNotFoundError,
    human_labels,
    load_arrays,
    sources,
)
from keras_fisher.data.human_labels import ANNOTATIONS
from tests import reference
from tests.data.human import (
    CLASSES,
    FILES,
    NUM_IMAGES,
    draw,
    name_images,
    pickled,
    save_images,
    write_data,
    write_labels,
    write_zip,
)

REAL = Path(__file__).parents[3] / "shared" / "cifar_n"


@pytest.fixture(params=CLASSES)
def name(request):
    return request.param


@pytest.fixture
def order(name, tmp_path, monkeypatch):
    """The order of the images of a data set in a folder that also has the file."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return write_data(tmp_path, name)


cifar10 = pytest.mark.parametrize("name", ["cifar10"], indirect=True)


# ---- Labels and images ---------------------------------------------------------------------------


def test_labels_are_in_the_order_of_the_images(name, order, tmp_path):
    for annotation, expected in draw(name).items():
        y = human_labels(name, annotation, tmp_path)
        assert (y.dtype, y.shape) == ("int32", (NUM_IMAGES,))
        np.testing.assert_array_equal(y, expected[order])
    np.testing.assert_array_equal(y, human_labels(name, annotation, str(tmp_path / FILES[name])))


@cifar10
def test_load_arrays_takes_them_for_the_images_that_it_keeps(name, order, tmp_path):
    options = {"validation_size": 1000, "num_train": 2000, "seed": 4}
    worse = human_labels(name, "worse", tmp_path)
    x, y = load_arrays(name, **options, labels=worse).train
    shades = {image.tobytes() for image in x}
    assert len({*zip((image.tobytes() for image in x), y, strict=True)}) == len(shades) == 10
    clean = load_arrays(name, **options).train
    np.testing.assert_array_equal(clean.x, x)
    assert 0.85 < np.mean(clean.y != y) < 0.95  # two independent draws from ten classes


@cifar10
def test_one_clean_label_that_differs_is_refused(name, order, tmp_path):
    labels = draw(name)
    labels["clean"][17] = (labels["clean"][17] + 1) % 10
    write_labels(tmp_path / FILES[name], name, labels)
    with pytest.raises(ValueError, match=r"cannot be matched.*'cifar10'.*Received: 1 of 50000"):
        human_labels(name, "worse", tmp_path)


@cifar10
@pytest.mark.parametrize("first", ["16399", "train_00001", "train_50000"])
def test_ids_that_do_not_name_each_image_once_are_refused(name, order, tmp_path, first):
    ids = name_images(np.arange(NUM_IMAGES))
    ids[0] = first
    clean = draw(name)["clean"]
    save_images(tmp_path, name, clean, ids, shades=clean)
    with pytest.raises(ValueError, match=f"cannot be matched.*train_00000 to.*the first {first}"):
        human_labels(name, "worse", tmp_path)


# ---- Arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("digits", "worse", "x"), ValueError, "`name` must be .*'cifar10', 'cifar100'.*'digits'"),
        (("cifar10", "fine", "x"), ValueError, "`annotation`.*'aggregate'.*'worse'.*'fine'"),
        (("cifar100", "worse", "x"), ValueError, "`annotation`.*'clean', 'fine'.*'worse'"),
        (("cifar10", "worse", 3), TypeError, "`path` must be a path.*path=3"),
    ],
)
def test_errors_name_the_argument_and_what_was_given(arguments, error, message):
    with pytest.raises(error, match=message):
        human_labels(*arguments)


@pytest.mark.parametrize("path", ["", "nowhere", "CIFAR-10_human.pt"])
def test_a_missing_file_is_named_with_where_to_get_it_and_its_licence(path, tmp_path):
    with pytest.raises(
        DatasetNotFoundError,
        match=r"`path` must be CIFAR-10_human\.pt.*UCSC-REAL/cifar-10-100n.*CC BY-NC 4\.0",
    ) as caught:
        human_labels("cifar10", "worse", tmp_path / path)
    assert f"path={tmp_path / path}" in str(caught.value)


# ---- Files that are not the official ones --------------------------------------------------------


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def refuse(path, message):
    with pytest.raises(DatasetDamagedError, match=rf"{path} cannot be read as .*{message}"):
        human_labels("cifar10", "worse", path)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, protocol):
    marker = tmp_path / "run"
    content = pickle.dumps(draw("cifar10") | {"x": Hostile(marker)}, protocol)
    refuse(write_zip(tmp_path / "labels.pt", content), "its pickle has ")
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()  # it would have run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((b"cnumpy\nndarray\n", b"cos\nsystem\n"), "GLOBAL os system"),
        ((b"cnumpy\nndarray\n", b"inumpy\nndarray\n"), "INST"),
        ((b"<", b">"), "the text '>'"),
        ((b"i8", b"f8"), "the text 'f8'"),
        ((b"worse_label", b"worst_label"), "the text 'worst_label'"),
    ],
)
def test_a_pickle_with_anything_else_is_refused(tmp_path, change, message):
    arrays = {ANNOTATIONS["cifar10"][annotation]: y for annotation, y in draw("cifar10").items()}
    content = pickled(arrays).replace(*change)
    refuse(write_zip(tmp_path / "labels.pt", content), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"worse": np.zeros(NUM_IMAGES - 1, int)}, "its pickle has the text"),
        ({"worse": np.full(NUM_IMAGES, 10)}, "worse_label must lie in .*label 10 at position 0"),
    ],
)
def test_other_labels_are_refused(tmp_path, change, message):
    path = write_labels(tmp_path / "labels.pt", "cifar10", draw("cifar10") | change)
    refuse(path, message)


def test_the_file_of_the_other_data_set_is_refused(tmp_path):
    path = write_labels(tmp_path / "labels.pt", "cifar100", draw("cifar100"))
    refuse(path, "it lacks aggre_label")


def test_damaged_files_are_refused(tmp_path):
    path = write_labels(tmp_path / "labels.pt", "cifar10", draw("cifar10"))
    content = path.read_bytes()
    path.write_bytes(content[:-200])
    refuse(path, "not a zip file")
    path.write_bytes(content[:5000] + bytes(8) + content[5008:])
    refuse(path, "Bad CRC")
    write_zip(path, pickled(draw("cifar10"))[:1000])
    refuse(path, "")
    write_zip(path, pickled({}), zipfile.ZIP_DEFLATED)
    refuse(path, r"no uncompressed data\.pkl")


# ---- The official files --------------------------------------------------------------------------

WRONG = {"aggregate": 9.01, "random1": 17.23, "random2": 18.12, "random3": 17.64, "worse": 40.21}


@pytest.mark.slow
@reference.tensorflow_only
@pytest.mark.skipif(not (REAL / FILES["cifar10"]).exists(), reason=f"{REAL} lacks the files")
def test_the_official_labels_of_cifar10_are_as_wrong_as_published(record_property):
    pytest.importorskip("tensorflow_datasets")
    if not sources.find("cifar10").is_prepared():
        pytest.skip("cifar10 is not prepared: set TFDS_DATA_DIR to a folder that holds it")
    start = time.monotonic()
    labels = {annotation: human_labels("cifar10", annotation, REAL) for annotation in WRONG}
    record_property("seconds of one annotation", (time.monotonic() - start) / len(WRONG))
    clean = sources.read("cifar10")[0].y
    np.testing.assert_array_equal(human_labels("cifar10", "clean", REAL), clean)
    wrong = {annotation: 100 * np.mean(y != clean) for annotation, y in labels.items()}
    assert wrong == pytest.approx(WRONG, abs=0.005)
