import shutil
import urllib.request

import numpy as np
import pytest

from keras_fisher.data import sources
from tests import reference
from tests.data.fakes import change, unreachable, write_cifar10
from tools import prepare_data


@pytest.fixture
def folder(tmp_path):
    write_cifar10(tmp_path)
    return tmp_path


def test_what_is_prepared_is_left_alone_and_found(folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    prepare_data.main(["cifar10", "digits", "--data-dir", str(folder)])
    shown = capsys.readouterr().out
    assert f"cifar10: 40 train, 20 test images in {folder}/cifar10/3.0.2\n" in shown
    assert "digits: comes with scikit-learn" in shown
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_what_is_not_there_is_prepared(folder, tmp_path, capsys, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    elsewhere = tmp_path / "elsewhere"

    def download_and_prepare(builder):
        shutil.copytree(folder / "cifar10" / "3.0.2", builder.data_dir)
        builder.info.read_from_directory(builder.data_dir)

    monkeypatch.setattr(sources, "_check_network", lambda *args: None)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare)
    prepare_data.main(["cifar10", "--data-dir", str(elsewhere)])
    shown = capsys.readouterr().out
    assert f"cifar10: 40 train, 20 test images in {elsewhere}/cifar10/3.0.2\n" in shown


@reference.tensorflow_only
def test_arrays_are_saved_with_the_ids_of_their_images(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    from_records = sources.read("cifar10"), sources.read_ids("cifar10")
    arrays = tmp_path / "saved"
    prepare_data.main(["cifar10", "--arrays", str(arrays)])
    monkeypatch.setenv("TFDS_DATA_DIR", str(arrays))
    ids, y = sources.read_ids("cifar10")
    np.testing.assert_array_equal(ids, from_records[1][0])
    np.testing.assert_array_equal(y, from_records[0][0].y)
    # The label of an image of this data set is the last digit of its id.
    assert [int(id[-1]) for id in ids] == y.tolist()


def test_one_that_fails_does_not_keep_the_others_waiting(folder, capsys, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(SystemExit, match=r"error: .*cifar100.*\nerror: .*imagenet2012.*put"):
        prepare_data.main(["cifar100", "imagenet2012", "cifar10", "--data-dir", str(folder)])
    assert "cifar10: 40 train" in capsys.readouterr().out


def test_check_names_the_damaged_file(folder):
    prepare_data.main(["cifar10", "--data-dir", str(folder), "--check"])
    (path,) = (folder / "cifar10").rglob("*test.tfrecord*")
    change(path)
    prepare_data.main(["cifar10", "--data-dir", str(folder)])
    with pytest.raises(SystemExit, match=f"error: .*damaged: {path} cannot be read. Delete"):
        prepare_data.main(["cifar10", "--data-dir", str(folder), "--check"])


def test_an_unknown_name_is_refused_with_the_names(capsys):
    with pytest.raises(SystemExit):
        prepare_data.main(["mnist"])
    assert "imagenet2012" in capsys.readouterr().err
