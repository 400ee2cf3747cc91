import keras
import numpy as np
import pytest
from keras import ops

from keras_fisher.data import containers, mixup, training_batches
from tests import reference
from tests.data.fakes import arrays, assert_same

NUM_CLASSES = 5


def batches(num_batches=6, batch_size=8):
    """Each example is a distinct unit vector, so a mixed one tells what it was mixed from."""
    n = num_batches * batch_size
    x, y = np.eye(n, dtype="float32"), np.arange(n) % NUM_CLASSES
    return made(x, y, batch_size)


def made(x, y, batch_size):
    """Batches as the backend's `fit` takes them."""
    return containers.make_evaluation(lambda *batch: batch, (x, y), batch_size)


def changed_by(function, dataset):
    return containers.map_batches(lambda _, batch: function(*batch), dataset)


def test_each_example_is_a_convex_combination_with_one_of_its_own_batch():
    originals = arrays(batches())
    mixed = arrays(mixup(batches(), 0.8, seed=0, num_classes=NUM_CLASSES))
    assert len(mixed) == len(originals)
    for (x, y), (x_mixed, y_mixed) in zip(originals, mixed, strict=True):
        weights = x_mixed @ x.T  # of each example of the batch in each mixed one
        np.testing.assert_allclose(weights.sum(axis=0), 1, rtol=1e-6)  # a permutation
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
        assert np.all((weights > 0).sum(axis=1) <= 2)
        np.testing.assert_allclose(x_mixed, weights @ x, atol=1e-6)
        np.testing.assert_allclose(y_mixed, weights @ np.eye(NUM_CLASSES)[y], atol=1e-6)
        weight_of_self = np.diag(weights)
        lam = weight_of_self[weight_of_self < 1]
        np.testing.assert_allclose(lam, lam[0], rtol=1e-6)  # one lambda per batch


@pytest.mark.matrix
@pytest.mark.parametrize("beta", [0.2, 1.0, 6.4])
def test_lambda_has_the_moments_of_the_beta_distribution(beta):
    ones_and_twos = np.tile([[1.0], [2.0]], (2000, 1)), np.tile([0, 1], 2000)
    mixed = mixup(made(*ones_and_twos, 2), beta, seed=0, num_classes=2)
    x = np.stack([x for x, _ in arrays(mixed)])[:, 0, 0]
    lam = 2 - x[x != 1]  # the others were paired with themselves
    assert abs(len(lam) / 2000 - 0.5) < 0.05
    variance = 1 / (4 * (2 * beta + 1))
    assert abs(lam.mean() - 0.5) < 4 * np.sqrt(variance / len(lam))
    assert lam.var() == pytest.approx(variance, rel=0.12)


def mixed_label_weights(beta):
    mixed = mixup(batches(num_batches=20), beta, seed=0, num_classes=NUM_CLASSES)
    weights = np.concatenate([y for _, y in arrays(mixed)])
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    return weights.max(axis=1)


def test_a_tiny_beta_mixes_nothing():
    np.testing.assert_allclose(mixed_label_weights(1e-5), 1, rtol=1e-6)


def test_a_huge_beta_takes_the_mean_of_the_two():
    weights = mixed_label_weights(1e6)
    np.testing.assert_allclose(weights[weights < 0.9], 0.5, atol=0.01)


def test_it_is_a_pure_function_of_the_seed_and_the_batch_index():
    def mixed(seed):
        return arrays(mixup(batches(), 0.8, seed, NUM_CLASSES))

    assert_same(mixed(1), mixed(1))
    assert np.any(mixed(1)[0][0] != mixed(2)[0][0])


def test_batches_are_mixed_differently():
    same = made(np.tile(np.eye(8, dtype="float32"), (2, 1)), np.tile(np.arange(8), 2), 8)
    (first, _), (second, _) = arrays(mixup(same, 0.8, seed=0, num_classes=8))
    assert np.any(first != second)


@reference.tensorflow_only
def test_a_tensor_seed_works_inside_flat_map_and_equals_the_integer():
    import tensorflow as tf

    by_tensor = tf.data.Dataset.range(3, 4).flat_map(
        lambda seed: mixup(batches(), 0.8, seed, NUM_CLASSES)
    )
    by_integer = mixup(batches(), 0.8, 3, NUM_CLASSES)
    assert_same(arrays(by_tensor), arrays(by_integer))


def test_one_hot_labels_give_what_integer_labels_give():
    one_hot = changed_by(lambda x, y: (x, ops.one_hot(y, NUM_CLASSES)), batches())
    expected = arrays(mixup(batches(), 0.8, 0, NUM_CLASSES))
    for (_, y), (_, y_expected) in zip(arrays(mixup(one_hot, 0.8, 0)), expected, strict=True):
        np.testing.assert_array_equal(y, y_expected)


def test_dtype_of_images_and_cardinality_are_kept():
    half = changed_by(lambda x, y: (ops.cast(x, "float16"), y), batches())
    mixed = mixup(half, 0.8, 0, NUM_CLASSES)
    assert [part.dtype for part in arrays(mixed)[0]] == ["float16", "float32"]
    assert reference.count_batches(mixed) == reference.count_batches(half)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"beta": 0}, ValueError, "`beta`.*0"),
        ({"beta": -1.0}, ValueError, "`beta`.*-1.0"),
        ({"beta": float("nan")}, ValueError, "`beta`.*nan"),
        ({"beta": float("inf")}, ValueError, "`beta`.*inf"),
        ({"beta": "a lot"}, TypeError, "`beta`.*a lot"),
        ({"seed": -1}, ValueError, "`seed`.*-1"),
        ({"seed": 0.5}, TypeError, "`seed`.*0.5"),
        ({"num_classes": None}, ValueError, "`num_classes`.*None"),
        ({"dataset": changed_by(lambda x, y: (y, y), batches())}, TypeError, "floating.*int"),
    ],
)
def test_errors_name_the_argument_and_what_was_given(changed, error, message):
    arguments = {"dataset": batches(), "beta": 0.8, "seed": 0, "num_classes": NUM_CLASSES}
    with pytest.raises(error, match=message):
        mixup(**(arguments | changed))


@reference.tensorflow_only
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.map(lambda x, y: x), "pairs"),
        (lambda data: data.unbatch(), r"batches.*\(\)"),
        (lambda data: data.map(lambda x, y: ({"image": x}, y)), "pairs"),
    ],
)
def test_a_dataset_of_something_else_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        mixup(change(batches()), 0.8, 0, NUM_CLASSES)


@pytest.mark.skipif(reference.IS_TENSORFLOW, reason="with TensorFlow it is a tf.data.Dataset")
@pytest.mark.parametrize("change", [lambda x, y: ({"image": x}, y), lambda x, y: (x, y, y)])
def test_batches_of_something_else_are_refused(change):
    with pytest.raises(ValueError, match=r"`dataset` must yield pairs \(x, y\) of arrays"):
        mixup(changed_by(change, batches()), 0.8, 0, NUM_CLASSES)


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
    ((_, y),) = arrays(training_batches(X, CLASSES[:, None], batch_size=8, seed=0).take(1))
    assert sorted(y.ravel()) == sorted(CLASSES)


def test_training_mixes_classes_and_one_hot_labels_alike():
    one_hot = np.eye(3, dtype="float32")[CLASSES]
    mixed = [
        training_batches(X, y, batch_size=8, seed=0, mixup_beta=1.0, num_classes=3)
        for y in (CLASSES, one_hot)
    ]
    first, second = (arrays(each.take(1)) for each in mixed)
    assert_same(first, second)
    assert containers.get_label_spec(mixed[0]).shape[-1] == 3


def test_integer_images_are_refused_unless_they_are_normalised():
    x, y = np.zeros((8, 4, 4, 1), "uint8"), np.arange(8)
    options = {"batch_size": 4, "seed": 0, "mixup_beta": 0.4, "num_classes": 8}
    with pytest.raises(TypeError, match=r"`x` must be floating-point for mixup.*Received.*uint8"):
        training_batches(x, y, **options)
    normalisation = (np.zeros(1, "float32"), np.ones(1, "float32"))
    training_batches(x, y, normalisation=normalisation, **options)


def test_labels_outside_the_classes_are_refused():
    with pytest.raises(Exception, match=r"in \[0, 4\)|= \[0, 4\)|0 to 3"):
        arrays(mixup(batches(), 0.4, seed=0, num_classes=NUM_CLASSES - 1))


@pytest.mark.skipif(reference.IS_TENSORFLOW, reason="tf.data reshuffles by itself")
def test_the_source_is_told_of_epochs():
    class Counting(keras.utils.PyDataset):
        begun = ended = 0
        num_batches = 1

        def __getitem__(self, index):
            return np.ones((4, 2), "float32"), np.arange(4)

        def on_epoch_begin(self):
            self.begun += 1

        def on_epoch_end(self):
            self.ended += 1

    source = Counting()
    for part in (mixup(source, 0.4, seed=0, num_classes=4), mixup(source, 1.0, 0, 4).take(1)):
        part.on_epoch_begin()
        part.on_epoch_end()
    assert (source.begun, source.ended) == (2, 2)
