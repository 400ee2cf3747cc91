"""Batches for the JAX backend, which need JAX but no other backend than is running."""

import numpy as np
import pytest

pytest.importorskip("jax")

from keras_fisher.data import jax_augment, jax_mixup, jax_pipeline
from keras_fisher.data.normalisation import Normalisation

SIDE = 6
X = np.arange(5 * SIDE * SIDE, dtype="float32").reshape(5, SIDE, SIDE, 1) + 1.0
Y = np.arange(5)


def batches(**arguments):
    return jax_pipeline.training_batches(X, Y, **{"batch_size": 2, "seed": 0, **arguments})


def arrays(some):
    return [[np.asarray(part) for part in batch] for batch in some]


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_each_epoch_is_a_permutation_of_its_own():
    labels = [y for _, y in arrays(batches().take(6))]
    first, second = np.concatenate(labels[:3]), np.concatenate(labels[3:])
    assert [len(part) for part in labels] == [2, 2, 1, 2, 2, 1]
    assert sorted(first) == sorted(second) == list(range(5))
    assert list(first) != list(second)


@pytest.mark.parametrize(
    "arguments", [{}, {"augment": "flip_and_crop"}, {"mixup_beta": 0.4, "num_classes": 5}]
)
def test_a_later_epoch_is_the_same_however_it_is_reached(arguments):
    through = batches(**arguments).skip(6).take(3)
    assert_same(arrays(through), arrays(batches(first_epoch=2, **arguments).take(3)))


def test_another_seed_draws_other_batches():
    one, other = (np.concatenate([y for _, y in arrays(batches(seed=s).take(3))]) for s in (0, 1))
    assert list(one) != list(other)


def test_images_stay_with_their_labels():
    for x, y in arrays(batches().take(3)):
        np.testing.assert_array_equal(x, X[y])


def test_crops_are_windows_of_the_padded_image_some_of_them_turned_round():
    images = np.broadcast_to(X[:1], (64, *X.shape[1:]))
    found = np.asarray(jax_augment.flip_and_crop(images, [1, 2]))
    pad = jax_augment.PADDING
    padded = np.pad(X[0, ..., 0], pad)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE)).reshape(-1, SIDE, SIDE)
    flipped = 0
    for image in found[..., 0]:
        straight = (windows == image).all(axis=(1, 2)).any()
        turned = (windows == image[:, ::-1]).all(axis=(1, 2)).any()
        assert straight or turned
        flipped += turned and not straight
    assert 16 < flipped < 48
    assert len(np.unique(found, axis=0)) > 30
    np.testing.assert_array_equal(found, jax_augment.flip_and_crop(images, [1, 2]))


def test_mixup_mixes_images_as_it_mixes_labels():
    eye = np.eye(5, dtype="float32")
    plain = jax_pipeline.training_batches(eye, Y, batch_size=5, seed=0)
    mixed = jax_mixup.mixup(plain, 0.4, seed=0, num_classes=5)
    shares = []
    for index in range(50):
        x, y = (np.asarray(part) for part in mixed[index])
        np.testing.assert_allclose(x, y, atol=1e-6)
        np.testing.assert_allclose(y.sum(axis=1), 1.0, rtol=1e-6)
        shares.append(y.max())
    assert np.std(shares) > 0.05  # each batch has a share of its own


def test_integer_labels_need_their_number_of_classes_to_be_mixed():
    with pytest.raises(ValueError, match="needs `num_classes`"):
        batches(mixup_beta=0.4)
    with pytest.raises(ValueError, match="needs `num_classes`"):
        jax_mixup.mixup(batches(), 0.4, seed=0)


def test_bytes_are_normalised_before_they_are_cut():
    mean, std = np.array([3.0], "float32"), np.array([2.0], "float32")
    whole = X[:, :, :, :].astype("uint8")
    some = jax_pipeline.evaluation_batches(
        whole, Y, batch_size=4, normalisation=Normalisation(mean, std)
    )
    x = np.concatenate([np.asarray(x) for x, _ in some])
    np.testing.assert_allclose(x, (whole - 3.0) / 2.0, rtol=1e-6)
    assert len(arrays(some)) == some.num_batches == 2


def test_imagenet_is_for_tensorflow():
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"):
        jax_pipeline.stream_imagenet(batch_size=2)
