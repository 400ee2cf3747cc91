import json
import zipfile

import numpy as np
import pytest

from keras_fisher.data import load, load_arrays, sources
from tests import reference

tf = pytest.importorskip("tensorflow")
tfds = pytest.importorskip("tensorflow_datasets")

# The archive lists them in another order than the alphabet's.
IDS = [f"n{number:08}" for number in reversed(range(200))]
ROOT = "tiny-imagenet-200"


def jpeg(label, brightness=0):
    """An image whose left half tells its class; some are grey, as in the archive."""
    image = np.full((64, 64, 3), 40 + brightness, "uint8")
    image[:, :32] = label
    if label % 10 == 0:
        image = image[..., :1]
    return tf.io.encode_jpeg(image, quality=100).numpy()


def write_archive(path, ids=tuple(IDS)):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{ROOT}/wnids.txt", "\n".join(ids) + "\n")
        for name in ids:
            image = jpeg(int(name[1:]))
            archive.writestr(f"{ROOT}/train/{name}/images/{name}_7.JPEG", image)
            archive.writestr(f"{ROOT}/train/{name}/{name}_boxes.txt", "n_7.JPEG\t0\t0\t9\t9\n")
        rows = []
        for number, name in enumerate(ids):
            archive.writestr(f"{ROOT}/val/images/val_{number}.JPEG", jpeg(int(name[1:]), 100))
            rows.append(f"val_{number}.JPEG\t{name}\t0\t0\t62\t62\n")
        archive.writestr(f"{ROOT}/val/val_annotations.txt", "".join(rows))
        archive.writestr(f"{ROOT}/test/images/test_0.JPEG", jpeg(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    write_archive(folder / "archive.zip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_check_network", lambda *args: None)
        patch.setattr(
            tfds.download.DownloadManager, "download", lambda self, url: folder / "archive.zip"
        )
        sources.prepare("tiny_imagenet32", str(folder))
    return folder


def test_name_layout_and_features_are_those_of_data_sets_prepared_earlier(folder):
    prepared = folder / "tiny_imagenet32" / "1.0.0"
    info = json.loads((prepared / "dataset_info.json").read_text())
    assert (info["name"], info["version"]) == ("tiny_imagenet32", "1.0.0")
    assert [(split["name"], split["shardLengths"]) for split in info["splits"]] == [
        ("train", ["200"]),
        ("validation", ["200"]),
    ]
    features = json.loads((prepared / "features.json").read_text())["featuresDict"]["features"]
    kinds = {key: value["pythonClassName"].split(".")[-1] for key, value in features.items()}
    assert kinds == {"id": "Text", "image": "Image", "label": "ClassLabel"}
    assert features["image"]["image"] == {
        "dtype": "uint8",
        "encodingFormat": "jpeg",
        "shape": {"dimensions": ["32", "32", "3"]},
    }
    assert features["label"]["classLabel"] == {"numClasses": "200"}
    assert (prepared / "label.labels.txt").read_text().split() == sorted(IDS)


def test_each_image_has_its_id_and_the_label_of_its_folder_or_annotation(folder):
    builder = tfds.builder("tiny_imagenet32", data_dir=folder)
    for split, brightness in (("train", 40), ("validation", 140)):
        examples = list(tfds.as_numpy(builder.as_dataset(split=split)))
        assert sorted(e["label"] for e in examples) == list(range(200))
        for example in examples:
            name, image, label = example["id"].decode(), example["image"], example["label"]
            expected = f"n{label:08}_7" if split == "train" else f"val_{199 - label}"
            assert name == expected
            assert abs(image[:, :14].mean() - label) < 3
            assert abs(image[:, 18:].mean() - brightness) < 3


def test_pixels_are_means_of_four():
    from keras_fisher.data.tiny_imagenet import _halve

    stripes = np.zeros((64, 64, 3), "uint8")
    stripes[::2] = 200
    stripes[:32] //= 2
    small = tf.io.decode_jpeg(_halve(tf.io.encode_jpeg(stripes, quality=100)).read()).numpy()
    expected = np.repeat([50, 100], 16)[:, None, None]
    assert small.shape == (32, 32, 3)
    assert abs(small - expected).max() <= 3


@reference.tensorflow_only
def test_it_loads_with_nothing_held_out_and_tests_on_the_validation_images(folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    data = load("tiny_imagenet32", batch_size=100)
    assert (data.num_classes, data.input_shape, data.steps_per_epoch) == (200, (32, 32, 3), 2)
    assert data.validation is None
    assert sum(len(y) for _, y in data.test) == 200
    splits = load_arrays("tiny_imagenet32")
    assert [len(part.y) for part in splits[:3]] == [200, 0, 200]
    assert splits.test.x.mean() > splits.train.x.mean()


def test_an_archive_of_other_classes_is_refused(tmp_path, monkeypatch):
    write_archive(tmp_path / "archive.zip", ids=IDS[:3])
    monkeypatch.setattr(sources, "_check_network", lambda *args: None)
    monkeypatch.setattr(
        tfds.download.DownloadManager, "download", lambda self, url: tmp_path / "archive.zip"
    )
    with pytest.raises(ValueError, match=r"3 names.*200 num_classes"):
        sources.prepare("tiny_imagenet32", str(tmp_path))
    assert not (tmp_path / "tiny_imagenet32" / "1.0.0").exists()
