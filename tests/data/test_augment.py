import keras
import numpy as np
import pytest

import keras_fisher as kf
from keras_fisher.data import flip_and_crop, training_batches
from tests import reference

# Every pixel has its own value and none is zero, so a result tells where it was cut.
IMAGE = np.arange(1, 1 + 6 * 5 * 2, dtype="float32").reshape(6, 5, 2)


def windows(image):
    """Every window that may be cut, keyed by (row, column, flipped)."""
    height, width, _ = image.shape
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    cuts = {(r, c): padded[r : r + height, c : c + width] for r in range(9) for c in range(9)}
    return {
        (*at, flip): cut[:, ::-1] if flip else cut for at, cut in cuts.items() for flip in (0, 1)
    }


def test_results_are_the_flipped_and_the_plain_windows_all_equally_likely():
    n = 16_200
    result = flip_and_crop(np.broadcast_to(IMAGE, (n, *IMAGE.shape)), seed=[0, 1])
    counts = {}
    for image in np.asarray(result):
        counts[image.tobytes()] = counts.get(image.tobytes(), 0) + 1
    accepted = [np.ascontiguousarray(window).tobytes() for window in windows(IMAGE).values()]
    assert set(counts) == set(accepted)
    expected = n / len(accepted)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 225  # the 0.999 quantile with 161 degrees of freedom


def test_it_is_a_pure_function_of_the_seed_compiled_and_not():
    images = np.broadcast_to(IMAGE, (8, *IMAGE.shape))
    first = flip_and_crop(images, [3, 4])
    compiled = reference.compiled(flip_and_crop)(images, np.array([3, 4], "int64"))
    np.testing.assert_array_equal(first, compiled)
    assert np.any(np.asarray(first) != np.asarray(flip_and_crop(images, [3, 5])))


@reference.tensorflow_only
def test_shape_and_dtype_are_kept_with_an_unknown_batch_size():
    import tensorflow as tf

    spec = tf.TensorSpec((None, 6, 5, 2), tf.uint8)
    graph = tf.function(lambda images: flip_and_crop(images, [0, 0])).get_concrete_function(spec)
    assert graph.structured_outputs.shape.as_list() == [None, 6, 5, 2]
    assert graph.structured_outputs.dtype == tf.uint8


def test_a_single_image_is_refused():
    with pytest.raises(ValueError, match=r"`images`.*\(6, 5, 2\)"):
        flip_and_crop(IMAGE, [0, 0])


def test_channels_first_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    for refused in (
        lambda: flip_and_crop(np.ones((2, 3, 8, 8)), seed=[1, 2]),
        lambda: training_batches(
            np.ones((2, 3, 8, 8)), np.arange(2), batch_size=2, seed=0, augment="flip"
        ),
        lambda: kf.zoo.simple_cnn(input_shape=(32, 32, 3), num_classes=2),
    ):
        with pytest.raises(
            ValueError, match=r"must be 'channels_last'.*Received: 'channels_first'"
        ):
            refused()
