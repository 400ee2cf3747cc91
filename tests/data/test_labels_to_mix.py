"""Mixup takes classes or one-hot labels, and never interpolates the numbers of classes."""

import numpy as np
import pytest
from keras import ops

from keras_fisher.data import containers, mixup, training_batches

X, CLASSES = np.ones((8, 2), "float32"), np.arange(8) % 3
MESSAGE = (
    r"must (hold|yield batches with) integer labels of shape \(batch,\) or one-hot .* for mixup"
)


@pytest.mark.parametrize("y", [CLASSES[:, None], CLASSES + 0.5, np.ones((8, 2, 3), "float32")])
def test_other_labels_are_refused(y):
    with pytest.raises(ValueError, match=MESSAGE):
        training_batches(X, y, batch_size=4, seed=0, mixup_beta=1.0, num_classes=3)
    with pytest.raises(ValueError, match=MESSAGE):
        mixup(training_batches(X, y, batch_size=4, seed=0), 1.0, seed=0, num_classes=3)


def test_other_labels_are_kept_without_mixup():
    _, y = next(iter(training_batches(X, CLASSES[:, None], batch_size=8, seed=0)))
    assert sorted(ops.convert_to_numpy(y).ravel()) == sorted(CLASSES)


def test_classes_and_one_hot_labels_are_mixed_alike():
    one_hot = np.eye(3, dtype="float32")[CLASSES]
    mixed = [
        training_batches(X, y, batch_size=8, seed=0, mixup_beta=1.0, num_classes=3)
        for y in (CLASSES, one_hot)
    ]
    first, second = (ops.convert_to_numpy(next(iter(each))[1]) for each in mixed)
    np.testing.assert_array_equal(first, second)
    assert containers.get_label_spec(mixed[0]).shape[-1] == 3
