import numpy as np
import pytest

from keras_fisher.data import Normalisation, normalisation, training_batches
from tests import reference
from tests.data import fakes

N, BATCH_SIZE, STEPS = 22, 4, 6
X = np.random.default_rng(0).normal(size=(N, 8, 8, 3)).astype("float32")
Y = np.arange(N, dtype="int32")


def make(x=X, y=Y, **changed):
    arguments = {"batch_size": BATCH_SIZE, "seed": 0}
    return training_batches(x, y, **(arguments | changed))


def arrays(dataset, epochs=3):
    return fakes.arrays(dataset.take(epochs * STEPS))


def orders(dataset):
    labels = np.concatenate([y for _, y in arrays(dataset)])
    return labels.reshape(-1, N)


def test_each_epoch_is_a_fresh_permutation_with_a_smaller_last_batch():
    batches = arrays(make())
    assert [len(x) for x, _ in batches] == [4, 4, 4, 4, 4, 2] * 3
    for x, y in batches:
        np.testing.assert_array_equal(x, X[y])
    first, second, third = orders(make())
    for order in (first, second, third):
        assert sorted(order) == list(range(N))
    for a, b in ((first, second), (second, third), (first, np.arange(N))):
        assert np.any(a != b)


@pytest.mark.matrix
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"augment": "flip_and_crop"},
        {"mixup_beta": 0.4, "num_classes": N},
        {"augment": "flip_and_crop", "mixup_beta": 0.4, "num_classes": N},
    ],
    ids=["plain", "augment", "mixup", "both"],
)
@pytest.mark.parametrize("first_epoch", [0, 1, 2])
def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(options, first_epoch):
    whole = arrays(make(**options))
    resumed = arrays(make(first_epoch=first_epoch, **options), epochs=3 - first_epoch)
    fakes.assert_same(resumed, whole[first_epoch * STEPS :])


def test_the_seed_decides_the_order():
    np.testing.assert_array_equal(orders(make(seed=1)), orders(make(seed=1)))
    assert np.any(orders(make(seed=1)) != orders(make(seed=2)))


def test_augmentation_and_mixup_leave_the_order_alone():
    np.testing.assert_array_equal(orders(make()), orders(make(augment="flip_and_crop")))


def test_augmentation_differs_between_batches_and_epochs():
    same = np.broadcast_to(X[0], X.shape)
    first, second, *_ = results = [x for x, _ in arrays(make(x=same, augment="flip_and_crop"))]
    assert np.any(first != second)
    assert np.any(first != results[STEPS])
    assert np.any(first != same[:BATCH_SIZE])


def test_an_image_is_flipped_or_left_as_it_is():
    for x, y in arrays(make(augment="flip"), epochs=1):
        for image, label in zip(x, y, strict=True):
            assert any(np.array_equal(image, found) for found in (X[label], X[label, :, ::-1]))


def test_about_half_of_the_images_are_flipped():
    batches = arrays(make(augment="flip"), epochs=30)
    plain = np.concatenate([(x == X[y]).all(axis=(1, 2, 3)) for x, y in batches])
    assert abs(plain.mean() - 0.5) < 3 * 0.5 / np.sqrt(len(plain))


def test_images_are_normalised_before_they_are_padded():
    pixels = np.full((N, 8, 8, 3), 100, "uint8")
    channels = Normalisation(np.float32([10, 20, 30]), np.float32([1, 2, 4]))
    batches = make(pixels, augment="flip_and_crop", normalisation=channels)
    images = np.concatenate([x for x, _ in arrays(batches)])
    assert images.dtype == "float32"
    found = np.unique(images.reshape(-1, 3), axis=0)
    np.testing.assert_allclose(found, [[0, 0, 0], [90, 40, 17.5]])


def test_mixup_differs_between_epochs():
    unit = np.zeros((2, 2), "float32") + np.eye(2, dtype="float32")
    batches = make(unit, np.array([0, 1]), batch_size=2, mixup_beta=1.0, num_classes=2).take(20)
    weights = {float(np.max(np.asarray(y)[0])) for _, y in batches}
    assert len(weights) > 5


def test_it_is_endless():
    assert reference.count_batches(make()) is None
    assert len(arrays(make(), epochs=40)) == 40 * STEPS


@reference.tensorflow_only
def test_the_order_is_the_one_that_earlier_releases_drew():
    # A new version of TensorFlow may change it: a run that was interrupted then goes on otherwise.
    third = [13, 0, 15, 10, 1, 2, 20, 16, 3, 14, 6, 4, 7, 9, 21, 11, 8, 5, 18, 17, 19, 12]
    assert list(orders(make())[2]) == third


@reference.tensorflow_only
def test_dtypes_and_static_shapes_are_those_of_the_arrays():
    x_spec, y_spec = make(augment="flip_and_crop").element_spec
    assert (x_spec.dtype, y_spec.dtype) == ("float32", "int32")
    assert x_spec.shape.as_list() == [None, 8, 8, 3]
    assert y_spec.shape.as_list() == [None]
    assert make(batch_size=11, augment="flip").element_spec[0].shape.as_list() == [11, 8, 8, 3]


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "`batch_size`.*>= 1.*0"),
        ({"batch_size": 4.0}, TypeError, "`batch_size`.*4.0"),
        ({"batch_size": N + 1}, ValueError, r"`batch_size`.*\[1, 22\].*23"),
        ({"first_epoch": -1}, ValueError, r"`first_epoch`.*in \[0, .*-1"),
        ({"first_epoch": 1.0}, TypeError, "`first_epoch`.*1.0"),
        ({"augment": "crop"}, ValueError, "`augment`.*'flip', 'flip_and_crop'.*'crop'"),
        ({"augment": True}, ValueError, "`augment`.*'flip', 'flip_and_crop'.*True"),
        ({"seed": -1}, ValueError, "`seed`.*-1"),
        ({"mixup_beta": -0.4}, ValueError, "`mixup_beta`.*-0.4"),
        ({"mixup_beta": 0.4}, ValueError, "^Mixup.*`num_classes`.*None"),
        ({"num_classes": 20}, ValueError, r"`y`.*\[0, 20\).*label 20 at position 20"),
        ({"y": Y - 1, "num_classes": N}, ValueError, r"`y`.*\[0, 22\).*label -1 at position 0"),
        ({"y": Y[:-1]}, ValueError, "22 in x and 21 in y"),
        ({"x": X[:0], "y": Y[:0]}, ValueError, "at least one"),
        ({"x": X[..., 0], "augment": "flip_and_crop"}, ValueError, r"`x`.*8, 8\)"),
    ],
)
def test_errors_name_the_argument_and_what_was_given(changed, error, message):
    with pytest.raises(error, match=message):
        make(**changed)


def test_a_constant_channel_is_normalised_to_zero():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 2), "uint8")
    pixels[..., 1] = 7
    found = normalisation.measure(pixels, np.arange(6)).array(pixels)
    np.testing.assert_allclose(found[..., 0].std(), 1, rtol=1e-5)
    np.testing.assert_array_equal(found[..., 1], 0)
