import numpy as np
import pytest

from keras_fisher.data import load_arrays, sources


def pixels(examples):
    """The images as a set, for telling which are where."""
    return {image.tobytes() for image in examples.x}


@pytest.fixture(scope="module")
def digits():
    return load_arrays("digits")


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
    cut = load_arrays("digits", num_train=50)
    assert pixels(cut.train) < pixels(digits.train)
    np.testing.assert_array_equal(cut.test.x, digits.test.x)


def test_the_seed_moves_the_validation_images_but_never_the_test_images(digits):
    same, other = load_arrays("digits"), load_arrays("digits", seed=1)
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
    counts = np.bincount(load_arrays("digits", num_train=num_train).train.y, minlength=10)
    assert counts.sum() == num_train
    assert counts.max() - counts.min() <= 1


def test_validation_size():
    splits = load_arrays("digits", validation_size=0)
    assert [len(part.y) for part in splits[:3]] == [1258, 0, 539]


# ---- Labels of one's own -------------------------------------------------------------------------

SOME = {"num_train": 300, "seed": 3}


@pytest.fixture(scope="module")
def labels():
    """Wrong labels for a fifth of the training images, of another dtype than the data set's."""
    y = sources.read("digits")[0].y.astype("int64")
    y[::5] = (y[::5] + 1) % 10
    return y


def test_labels_replace_those_of_the_training_images_that_are_kept(labels):
    clean, given = load_arrays("digits", **SOME), load_arrays("digits", **SOME, labels=labels)
    for part, same in zip(clean[:3], given[:3], strict=True):
        np.testing.assert_array_equal(part.x, same.x)
    np.testing.assert_array_equal(clean.validation.y, given.validation.y)
    np.testing.assert_array_equal(clean.test.y, given.test.y)
    assert given.train.y.dtype == "int32"
    is_wrong = given.train.y != clean.train.y
    np.testing.assert_array_equal(given.train.y[is_wrong], (clean.train.y[is_wrong] + 1) % 10)
    assert 0.1 < is_wrong.mean() < 0.3


def test_each_kept_image_has_its_own_label():
    # Nothing is held out and all is kept, so the labels come out as they went in, in another order.
    y = sources.read("digits")[0].y
    clean = load_arrays("digits", validation_size=0)
    for digit in range(10):
        given = load_arrays("digits", validation_size=0, labels=(y == digit).astype("uint8"))
        np.testing.assert_array_equal(given.train.y == 1, clean.train.y == digit)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"name": "mnist"},
            ValueError,
            "'digits', 'cifar10', 'cifar100', 'tiny_imagenet32'.*mnist",
        ),
        ({"name": "imagenet2012"}, ValueError, "`name`.*imagenet2012"),
        ({"name": "digits", "validation_size": -1}, ValueError, "`validation_size`.*-1"),
        ({"name": "digits", "validation_size": 1258}, ValueError, r"\[0, 1257\].*1258"),
        ({"name": "digits", "validation_size": 0.1}, TypeError, "`validation_size`.*0.1"),
        ({"name": "digits", "num_train": 0}, ValueError, "`num_train`.*0"),
        ({"name": "digits", "num_train": 1079}, ValueError, r"\[1, 1078\].*1079"),
        ({"name": "digits", "num_train": True}, TypeError, "`num_train`.*True"),
        ({"name": "digits", "seed": -1}, ValueError, "`seed`.*-1"),
        ({"name": "digits", "labels": [0] * 1258}, TypeError, "`labels`.*type list"),
        ({"name": "digits", "labels": np.zeros(1258)}, TypeError, "`labels`.*dtype float64"),
        ({"name": "digits", "labels": np.zeros((2, 2), int)}, ValueError, r"`labels`.*\(2, 2\)"),
        ({"name": "digits", "labels": np.array([0, 10])}, ValueError, "`labels`.*label 10 at .* 1"),
        ({"name": "digits", "labels": np.zeros(9, int)}, ValueError, r"`labels`.*1258.*\(9,\)"),
    ],
)
def test_errors_name_the_argument_and_what_was_given(arguments, error, message):
    with pytest.raises(error, match=message):
        load_arrays(**arguments)
