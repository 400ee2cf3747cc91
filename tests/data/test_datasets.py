import keras
import numpy as np
import pytest

from keras_fisher.data import load, load_arrays, sources
from tests.data.fakes import arrays, assert_same
from tests.processes import printed, start

STEPS = 5
FULL = {"augment": "flip_and_crop", "mixup_beta": 0.4}


def digits(**changed):
    return load("digits", **({"batch_size": 100, "num_train": 450} | changed))


def assert_same_examples(batches, examples, in_order=True):
    x, y = map(np.concatenate, zip(*arrays(batches), strict=True))
    rows, expected = np.arange(len(y)), np.arange(len(examples.y))
    if not in_order:
        rows, expected = (np.lexsort(a.reshape(len(a), -1).round(3).T) for a in (x, examples.x))
    np.testing.assert_allclose(x[rows], examples.x[expected], atol=1e-5)
    np.testing.assert_array_equal(y[rows], examples.y[expected])


def test_what_fit_needs_to_know():
    data = digits()
    assert data.num_classes == 10
    assert data.input_shape == (8, 8, 1)
    assert data.steps_per_epoch == STEPS
    for batches in (data.train, data.validation, data.test):
        x, y = next(iter(batches))
        assert [keras.backend.standardize_dtype(t.dtype) for t in (x, y)] == ["float32", "int32"]
        assert x.shape[1:] == (8, 8, 1)
    assert next(iter(digits(batch_size=150).train))[0].shape == (150, 8, 8, 1)


def test_batches_hold_the_examples_of_the_arrays():
    data, expected = digits(), load_arrays("digits", num_train=450)
    assert_same_examples(data.train.take(STEPS), expected.train, in_order=False)
    assert_same_examples(data.validation, expected.validation)
    assert_same_examples(data.test, expected.test)


def test_labels_are_those_of_the_arrays():
    labels = sources.read("digits")[0].y[::-1].copy()
    data = digits(labels=labels)
    expected = load_arrays("digits", num_train=450, labels=labels)
    assert_same_examples(data.train.take(STEPS), expected.train, in_order=False)
    assert_same_examples(data.validation, load_arrays("digits").validation)


def test_mixup_makes_all_labels_one_hot_and_mixes_training_alone():
    data, plain = digits(mixup_beta=1.0), digits()
    for batches in (data.train, data.validation, data.test):
        assert next(iter(batches))[1].shape[1:] == (10,)
    for part in ("validation", "test"):
        for (_, y), (_, label) in zip(getattr(data, part), getattr(plain, part), strict=True):
            np.testing.assert_array_equal(y, np.eye(10)[label])
    assert any(np.any((y > 0) & (y < 1)) for _, y in arrays(data.train.take(STEPS)))


@pytest.mark.parametrize("options", [{}, FULL], ids=["plain", "full"])
def test_a_run_that_begins_later_sees_the_batches_of_one_that_did_not(options):
    whole = arrays(digits(**options).train.take(3 * STEPS))
    later = digits(first_epoch=2, **options)
    assert_same(arrays(later.train.take(STEPS)), whole[2 * STEPS :])
    assert np.any(whole[0][0] != whole[2 * STEPS][0])


def test_what_is_drawn_follows_the_seed_and_not_the_global_one():
    first = arrays(digits(seed=1, **FULL).train.take(STEPS))
    keras.utils.set_random_seed(7)
    assert_same(arrays(digits(seed=1, **FULL).train.take(STEPS)), first)
    assert np.any(first[0][1] != arrays(digits(seed=2, **FULL).train.take(1))[0][1])


def test_validation_and_test_images_are_never_augmented():
    augmented, plain = digits(augment="flip_and_crop"), digits()
    assert_same(arrays(augmented.validation), arrays(plain.validation))
    assert_same(arrays(augmented.test), arrays(plain.test))


def test_without_images_held_out_there_is_no_validation():
    assert digits(validation_size=0).validation is None


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("options", "loss"),
    [
        ({}, keras.losses.SparseCategoricalCrossentropy),
        ({"augment": "flip", "mixup_beta": 0.4}, keras.losses.CategoricalCrossentropy),
        ({"validation_size": 0}, keras.losses.SparseCategoricalCrossentropy),
    ],
    ids=["plain", "flip and mixup", "nothing held out"],
)
def test_fit_takes_the_pipelines(options, loss):
    data = digits(**options)
    model = keras.Sequential(
        [keras.Input(data.input_shape), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    model.compile(keras.optimizers.Adam(0.02), loss(from_logits=True), metrics=["accuracy"])
    fitted = model.fit(
        data.train,
        steps_per_epoch=data.steps_per_epoch,
        epochs=3,
        validation_data=data.validation,
        verbose=0,
    )
    assert ("val_loss" in fitted.history) == (data.validation is not None)
    assert model.evaluate(data.test, verbose=0, return_dict=True)["accuracy"] > 0.2


# Two strategies in one process disturb each other, and devices can be split only at the start.
DISTRIBUTED = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_fisher.data import load

def losses(strategy):
    data = load("digits", batch_size=100, num_train=450, augment="flip_and_crop")
    with strategy.scope():
        dense = keras.layers.Dense(10, kernel_initializer="zeros")
        model = keras.Sequential([keras.Input(data.input_shape), keras.layers.Flatten(), dense])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss)
    steps = data.steps_per_epoch
    fit = model.fit(data.train, steps_per_epoch=steps, epochs=2, verbose=0)
    return [*fit.history["loss"], model.evaluate(data.test, verbose=0)]

alone = losses(tf.distribute.get_strategy())
together = losses(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
np.testing.assert_allclose(together, alone, rtol=1e-4)
"""


@pytest.mark.slow
def test_two_replicas_share_the_batches_of_one_device():
    pytest.importorskip("tensorflow")
    printed(start("-c", DISTRIBUTED))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"name": "mnist"}, ValueError, "`name`.*'digits'.*'imagenet2012'.*'mnist'"),
        ({"batch_size": 451}, ValueError, r"`batch_size`.*\[1, 450\].*451"),
        ({"name": "imagenet2012", "labels": [1]}, ValueError, "`labels`.*imagenet2012.*list"),
        ({"image_size": 32}, ValueError, "`image_size`.*imagenet2012.*32.*digits"),
    ],
)
def test_errors_name_the_argument_and_what_was_given(changed, error, message):
    arguments = {"name": "digits", "num_train": 450} | changed
    with pytest.raises(error, match=message):
        load(**arguments)


@pytest.mark.parametrize("wrong", [{"augment": "crop"}, {"batch_size": 0}, {"first_epoch": -1}])
def test_what_is_wrong_anyway_is_refused_before_anything_is_read(wrong, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=next(iter(wrong))):
        load("cifar100", **wrong)
