import keras
import numpy as np
import pytest

from keras_fisher.data import flip_and_crop, pipeline, training_batches

N, BATCH_SIZE, STEPS = 22, 4, 6
X = np.random.default_rng(0).normal(size=(N, 8, 8, 3)).astype("float32")
Y = np.arange(N, dtype="int32")


def make(x=X, y=Y, **changed):
    arguments = {"batch_size": BATCH_SIZE, "epochs": 3, "seed": 0}
    return training_batches(x, y, **(arguments | changed))


def arrays(dataset):
    return [(x.numpy(), y.numpy()) for x, y in dataset]


def assert_same_batches(actual, expected):
    for (x, y), (x_expected, y_expected) in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(x, x_expected)
        np.testing.assert_array_equal(y, y_expected)


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


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"augment": True},
        {"mixup_beta": 0.4, "num_classes": N},
        {"augment": True, "mixup_beta": 0.4, "num_classes": N},
    ],
    ids=["plain", "augment", "mixup", "both"],
)
@pytest.mark.parametrize("first_epoch", [0, 1, 2])
def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(options, first_epoch):
    whole = arrays(make(**options))
    resumed = arrays(make(first_epoch=first_epoch, **options))
    assert_same_batches(resumed, whole[first_epoch * STEPS :])


def test_a_longer_run_begins_like_a_shorter_one():
    assert_same_batches(
        arrays(make(augment=True, epochs=4).take(3 * STEPS)), arrays(make(augment=True))
    )


def test_the_seed_decides_the_order():
    np.testing.assert_array_equal(orders(make(seed=1)), orders(make(seed=1)))
    assert np.any(orders(make(seed=1)) != orders(make(seed=2)))


def test_augmentation_and_mixup_leave_the_order_alone():
    np.testing.assert_array_equal(orders(make()), orders(make(augment=True)))


def test_augmentation_differs_between_batches_and_epochs():
    same = np.broadcast_to(X[0], X.shape)
    first, second, *_ = results = [x for x, _ in arrays(make(x=same, augment=True))]
    assert np.any(first != second)
    assert np.any(first != results[STEPS])
    assert np.any(first != same[:BATCH_SIZE])


def test_augmentation_is_flip_and_crop(monkeypatch):
    monkeypatch.setattr(pipeline, "flip_and_crop", lambda x, seed: flip_and_crop(0 * x, seed))
    assert all(np.all(x == 0) for x, _ in arrays(make(augment=True)))


def test_mixup_differs_between_epochs():
    unit = np.zeros((2, 2), "float32") + np.eye(2, dtype="float32")
    batches = arrays(make(unit, np.array([0, 1]), epochs=20, mixup_beta=1.0, num_classes=2))
    weights = {float(y.max()) for _, y in batches}
    assert len(weights) > 5


@pytest.mark.parametrize(("epochs", "first_epoch", "expected"), [(3, 0, 18), (3, 2, 6), (3, 3, 0)])
def test_length(epochs, first_epoch, expected):
    batches = make(epochs=epochs, first_epoch=first_epoch)
    assert len(batches) == expected == len(arrays(batches))


def test_dtypes_and_static_shapes_are_those_of_the_arrays():
    x_spec, y_spec = make(augment=True).element_spec
    assert (x_spec.dtype, y_spec.dtype) == ("float32", "int32")
    assert x_spec.shape.as_list() == [None, 8, 8, 3]
    assert y_spec.shape.as_list() == [None]


def test_fit_resumed_after_one_epoch_ends_with_the_weights_of_an_uninterrupted_fit():
    def fit(model, first_epoch, epochs):
        batches = make(X.reshape(N, -1), Y % 2, first_epoch=first_epoch, epochs=epochs)
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(
            batches, initial_epoch=first_epoch, epochs=epochs, steps_per_epoch=STEPS, verbose=0
        )
        return model.get_weights()

    def build():
        layer = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=0))
        return keras.Sequential([keras.Input((8 * 8 * 3,)), layer])

    interrupted = build()
    fit(interrupted, 0, 1)
    for weight, expected in zip(fit(interrupted, 1, 3), fit(build(), 0, 3), strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "`batch_size`.*>= 1.*0"),
        ({"batch_size": 4.0}, TypeError, "`batch_size`.*4.0"),
        ({"epochs": -1}, ValueError, "`epochs`.*-1"),
        ({"first_epoch": 4}, ValueError, r"`first_epoch`.*\[0, 3\].*4"),
        ({"seed": -1}, ValueError, "`seed`.*-1"),
        ({"mixup_beta": -0.4}, ValueError, "`mixup_beta`.*-0.4"),
        ({"mixup_beta": 0.4}, ValueError, "^Mixup.*`num_classes`.*None"),
        ({"y": Y[:-1]}, ValueError, "22 in x and 21 in y"),
        ({"x": X[:0], "y": Y[:0]}, ValueError, "at least one"),
        ({"x": X[..., 0], "augment": True}, ValueError, r"`images`.*8, 8\)"),
    ],
)
def test_errors_name_the_argument_and_what_was_given(changed, error, message):
    with pytest.raises(error, match=message):
        make(**changed)
