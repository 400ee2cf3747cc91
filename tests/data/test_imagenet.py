import io
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from keras_fisher.data import DatasetDamagedError, DatasetNotFoundError, load, sources
from tests import reference
from tests.data.fakes import arrays, assert_same

tf = pytest.importorskip("tensorflow")
imagenet = pytest.importorskip("keras_fisher.data.tensorflow_imagenet")
pytestmark = reference.tensorflow_only

tfds = pytest.importorskip("tensorflow_datasets")

NUM_TRAIN, NUM_TEST, BATCH_SIZE, STEPS = 40, 6, 8, 5
SIZE = 16


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def jpeg(number, height=48, width=64):
    """Of one colour but for its right edge; the colour tells which image it is."""
    image = np.full((height, width, 3), 6 * number, "uint8")
    image[:, -8:] = 255
    return tf.io.encode_jpeg(image, quality=100).numpy()


def write_archives(folder):
    """ImageNet's own two archives, with four classes of ten images and six to test on."""
    names = Path(tfds.__file__).parent / "datasets" / "imagenet2012" / "labels.txt"
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
        for position, name in enumerate(names.read_text().split()[:4]):
            content = io.BytesIO()
            with tarfile.open(fileobj=content, mode="w") as inner:
                for k in range(10):
                    add(inner, f"{name}_{k}.JPEG", jpeg(10 * position + k))
            add(outer, f"{name}.tar", content.getvalue())
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as archive:
        for k in range(NUM_TEST):
            add(archive, f"ILSVRC2012_val_{k + 1:08}.JPEG", jpeg(k, height=64, width=48))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    manual = folder / "downloads" / "manual"
    manual.mkdir(parents=True)
    write_archives(manual)
    config = tfds.download.DownloadConfig(num_shards=4)
    tfds.builder("imagenet2012", data_dir=folder).download_and_prepare(download_config=config)
    return folder


@pytest.fixture
def folder(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    monkeypatch.setattr(imagenet, "WINDOW", 16)
    return prepared


def make(**changed):
    arguments = {"batch_size": BATCH_SIZE, "image_size": SIZE}
    return load("imagenet2012", **(arguments | changed))


def numbers(batches):
    """Which images are in the batches, in their order, from their colour."""
    x = np.concatenate([x for x, _ in arrays(batches)])
    pixels = x * imagenet.NORMALISATION.std + imagenet.NORMALISATION.mean
    return np.rint(np.median(pixels, axis=(1, 2, 3)) / 6).astype(int)


def test_shapes_and_sizes(folder):
    data = make()
    assert (data.num_classes, data.input_shape, data.steps_per_epoch) == (1000, (SIZE, SIZE, 3), 5)
    assert data.validation is None
    assert data.train.element_spec[0].shape == (BATCH_SIZE, SIZE, SIZE, 3)
    assert [spec.dtype for spec in data.train.element_spec] == ["float32", "int32"]
    assert sum(len(y) for _, y in data.test) == NUM_TEST
    assert make(image_size=None).input_shape == (224, 224, 3)


def test_every_epoch_has_every_image_once_with_its_label_in_an_order_of_its_own(folder):
    data = make()
    epochs = [numbers(data.train.skip(k * STEPS).take(STEPS)) for k in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(NUM_TRAIN))
    assert np.any(epochs[0] != epochs[1])
    assert np.any(epochs[1] != epochs[2])
    for x, y in data.train.take(STEPS):
        np.testing.assert_array_equal(numbers([(x, y)]) // 10, y)


@pytest.mark.matrix
@pytest.mark.parametrize(
    "options", [{}, {"augment": "flip"}, {"augment": "flip_and_crop", "mixup_beta": 0.4}]
)
def test_a_run_that_begins_later_sees_the_batches_of_one_that_did_not(folder, options):
    whole = arrays(make(seed=3, **options).train.take(3 * STEPS))
    tf.random.set_seed(5)
    later = arrays(make(seed=3, first_epoch=2, **options).train.take(STEPS))
    assert_same(later, whole[2 * STEPS :])
    assert np.any(arrays(make(seed=4, **options).train.take(1))[0][0] != whole[0][0])


def test_images_held_out_and_kept_are_different_ones(folder):
    data = make(validation_size=10, num_train=20)
    train, validation = numbers(data.train.take(3)), numbers(data.validation)
    assert (len(set(train)), len(set(validation))) == (20, 10)
    assert not set(train) & set(validation)
    assert data.steps_per_epoch == 3


def test_evaluation_cuts_the_central_square():
    # Black, but for a frame along the edge of the square.
    pixels = np.zeros((64, 128, 3), "uint8")
    pixels[4:60, 36:92] = 200  # 7/8 of the shorter side
    pixels[8:56, 40:88] = 0
    image = imagenet.central_image(tf.io.encode_jpeg(pixels, quality=100), 28).numpy()
    assert image.shape == (28, 28, 3)
    edge = np.ones((28, 28), bool)
    edge[1:-1, 1:-1] = False
    assert image[edge].min() > 150
    assert image[4:-4, 4:-4].max() < 20


def test_augmentation_cuts_random_rectangles_of_random_sizes_and_flips():
    # Red grows to the right and green downwards, so that an image tells where it was cut.
    ramp = np.linspace(0, 255, 96)
    pixels = np.zeros((96, 96, 3))
    pixels[..., 0], pixels[..., 1] = ramp[None, :], ramp[:, None]
    source = tf.io.encode_jpeg(pixels.astype("uint8"), quality=100)

    def cut(seed):
        return imagenet.training_image(source, [0, seed], "flip_and_crop", 24).numpy()

    images = [cut(seed) for seed in range(300)]
    width = np.array([image[12, -1, 0] - image[12, 0, 0] for image in images]) / 255
    height = np.array([image[-1, 12, 1] - image[0, 12, 1] for image in images]) / 255
    assert abs((width < 0).mean() - 0.5) < 0.1  # these are flipped
    area, ratio = abs(width) * height, abs(width) / height
    assert 0.05 < area.min() < 0.15
    assert area.max() > 0.85
    assert 0.7 < ratio.min() < 0.85
    assert 1.2 < ratio.max() < 1.45
    np.testing.assert_array_equal(cut(0), images[0])


def test_test_images_are_never_augmented(folder):
    augmented, plain = make(augment="flip_and_crop").test, make().test
    for (x, y), (x_plain, y_plain) in zip(augmented, plain, strict=True):
        np.testing.assert_array_equal(x, x_plain)
        np.testing.assert_array_equal(y, y_plain)


def test_missing_archives_are_named_with_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    manual = tmp_path / "downloads" / "manual"
    both = "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar"
    with pytest.raises(DatasetNotFoundError, match=f"put {both} from.*into {manual}, then run"):
        make()
    manual.mkdir(parents=True)
    (manual / "ILSVRC2012_img_train.tar").touch()
    with pytest.raises(DatasetNotFoundError, match=r"put ILSVRC2012_img_val.tar from"):
        make()


def test_archives_that_were_put_there_are_prepared(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "manual").symlink_to(prepared / "downloads" / "manual")
    assert len(numbers(make().test)) == NUM_TEST


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"batch_size": 41}, ValueError, r"`batch_size`.*\[1, 40\].*41"),
        ({"num_train": 41}, ValueError, r"`num_train`.*\[1, 40\].*41"),
        ({"validation_size": 40}, ValueError, r"`validation_size`.*\[0, 39\].*40"),
        ({"image_size": 0}, ValueError, "`image_size`.*0"),
        ({"image_size": 2.5}, TypeError, "`image_size`.*2.5"),
    ],
)
def test_errors_name_the_argument_and_what_was_given(folder, changed, error, message):
    with pytest.raises(error, match=message):
        make(**changed)


def test_a_missing_file_is_named(folder, monkeypatch, tmp_path):
    shutil.copytree(folder / "imagenet2012", tmp_path / "imagenet2012")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    path = next((tmp_path / "imagenet2012" / "5.1.0").glob("*train*00002-of*"))
    path.unlink()
    with pytest.raises(DatasetDamagedError, match=f"{re.escape(str(path))} is missing.*Delete"):
        make()


def test_a_label_that_is_no_class_stops_the_reading(folder, monkeypatch):
    few = sources.SOURCES["imagenet2012"]._replace(num_classes=3)
    monkeypatch.setitem(sources.SOURCES, "imagenet2012", few)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"imagenet2012.*\[0, 3\).*\[3\]"):
        arrays(make().train.take(STEPS))
