"""The statistics of batch normalisation that an evaluation sees."""

import copy
import math

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_fisher as kf
from tests import nets

tf = pytest.importorskip("tensorflow")

N, BATCH = 20, 8  # two full batches and a smaller one
X, Y = nets.inputs("batch_norm_cnn", batch=N), nets.labels(batch=N)
FLAT = nets.inputs("dense", batch=N)


def compiled(model):
    model.compile(keras.optimizers.SGD(0.05), nets.loss(), run_eagerly=True)
    return model


def recalibrate(model, data=(X, Y), *arguments, **options):
    options = {"batch_size": BATCH} | options
    fresh = kf.callbacks.BatchNormRecalibration(data, *arguments, **options)
    evaluated = (X, Y) if model.name.endswith("cnn") else (FLAT, Y)
    return model.evaluate(*evaluated, callbacks=[fresh], verbose=0)


def cnn():
    net = nets.build("batch_norm_cnn")
    net.name = "cnn"
    return net


def statistics(model):
    norms = [la for la in model._flatten_layers() if isinstance(la, layers.BatchNormalization)]
    return [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]


def own_statistics(net, x):
    """The mean and variance that each normalisation of the CNN meets in a batch, by hand."""
    found = []
    for layer in net.layers:
        if isinstance(layer, layers.BatchNormalization):
            mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
            x = (x - mean) / np.sqrt(variance + layer.epsilon)
            x = x * ops.convert_to_numpy(layer.gamma) + ops.convert_to_numpy(layer.beta)
            found += [mean, variance]
        else:
            x = ops.convert_to_numpy(layer(x))
    return found


def nested(net):
    inputs = keras.Input((6, 6, 2))
    return keras.Model(inputs, keras.Sequential([net])(inputs), name="nested_cnn")


@pytest.mark.parametrize(
    "wrapped", [lambda net: net, nested, lambda net: kf.FisherPenaltyModel(net, name="fp_cnn")]
)
def test_one_batch_leaves_its_own_statistics_in_every_layer(wrapped):
    net = cnn()
    recalibrate(compiled(wrapped(net)), (X[:BATCH],))
    for variable, expected in zip(statistics(net), own_statistics(net, X[:BATCH]), strict=True):
        np.testing.assert_allclose(variable, expected, rtol=1e-5, atol=1e-6)


def random_rows(num_batches):
    """The rows that the callback takes of arrays."""
    return np.random.default_rng(0).permutation(len(X))[: num_batches * BATCH]


@pytest.mark.parametrize(("num_batches", "averaged"), [(1, 1), (2, 2), (100, 2)])
def test_averages_the_statistics_of_full_batches_of_random_rows(num_batches, averaged):
    net = compiled(cnn())
    rows = random_rows(num_batches)
    starts = range(0, averaged * BATCH, BATCH)
    of_each = [own_statistics(net, X[rows[start : start + BATCH]]) for start in starts]
    recalibrate(net, (X, Y), num_batches)
    for variable, values in zip(statistics(net), zip(*of_each, strict=True), strict=True):
        np.testing.assert_allclose(variable, np.mean(values, axis=0), rtol=1e-5, atol=1e-6)


def test_reads_a_dataset_without_end_as_it_reads_arrays():
    data = tf.data.Dataset.from_tensor_slices(X[random_rows(2)]).batch(BATCH).repeat()
    results = []
    for given, num_batches in (((X, Y), 2), (data, 4)):
        net = compiled(cnn())
        recalibrate(net, given, num_batches)
        results.append(nets.flat(statistics(net)))
    np.testing.assert_allclose(*results, rtol=1e-6)


def awkward():
    """A model whose forward pass in training mode moves variables of other kinds too."""
    norm, frozen = layers.BatchNormalization(), layers.BatchNormalization(trainable=False)
    body = [layers.SpectralNormalization(layers.Dense(4)), frozen, layers.Dropout(0.5), norm]
    return keras.Sequential([keras.Input((4,)), *body, layers.Dense(nets.CLASSES)]), norm


def test_all_other_variables_and_frozen_layers_stay_as_they_were():
    model, norm = awkward()
    compiled(model)
    moving = {id(norm.moving_mean), id(norm.moving_variance)}
    others = [v for v in model.variables if id(v) not in moving]
    before = [ops.convert_to_numpy(v).copy() for v in others]
    moved = ops.convert_to_numpy(norm.moving_mean).copy()
    recalibrate(model, (FLAT,))
    for variable, value in zip(others, before, strict=True):
        np.testing.assert_array_equal(variable, value, err_msg=variable.path)
    assert not np.array_equal(norm.moving_mean, moved)
    assert norm.momentum == layers.BatchNormalization().momentum


def test_each_batch_has_a_dropout_mask_of_its_own():
    model = compiled(awkward()[0])
    once, again = (FLAT[:BATCH],), (np.concatenate([FLAT[:BATCH]] * 2),)
    results = []
    for data in (once, again):
        recalibrate(model, data)
        results.append(nets.flat(statistics(model)))
    assert not np.allclose(*results)


def test_validation_in_fit_sees_fresh_statistics_and_training_none_of_them():
    weights = []
    for listed in (False, True):
        net = compiled(cnn())
        fresh = kf.callbacks.BatchNormRecalibration((X, Y), batch_size=BATCH)
        history = net.fit(
            X,
            Y,
            epochs=2,
            verbose=0,
            validation_data=(X, Y),
            callbacks=[fresh] if listed else [],
            shuffle=False,
        ).history
        weights.append(nets.flat(net.trainable_weights))
    np.testing.assert_array_equal(*weights)
    assert history["val_loss"][-1] == pytest.approx(net.evaluate(X, Y, verbose=0))
    left = nets.flat(statistics(net))
    recalibrate(net)
    np.testing.assert_allclose(nets.flat(statistics(net)), left, rtol=1e-6)


def test_a_layer_may_be_frozen_between_two_evaluations():
    net = cnn()
    first, second = (la for la in net.layers if isinstance(la, layers.BatchNormalization))

    def freeze(epoch, logs):
        first.trainable = False
        first.moving_mean.assign(ops.full((3,), 7.0))

    freezing = keras.callbacks.LambdaCallback(on_epoch_begin=freeze)
    fresh = kf.callbacks.BatchNormRecalibration((X,), batch_size=BATCH)
    both = keras.callbacks.CallbackList([fresh, freezing], model=compiled(net))
    net.evaluate(X, Y, verbose=0, callbacks=both)
    both.on_epoch_begin(1)
    second.moving_mean.assign(ops.full((2,), 7.0))
    net.evaluate(X, Y, verbose=0, callbacks=both)
    assert (ops.convert_to_numpy(first.moving_mean) == 7.0).all()
    assert (ops.convert_to_numpy(second.moving_mean) != 7.0).all()


def test_a_model_with_nothing_to_recalibrate_gets_one_warning():
    model = compiled(nets.build("dense"))
    fresh = kf.callbacks.BatchNormRecalibration((FLAT,))
    with pytest.warns(UserWarning, match="BatchNormRecalibration has no effect") as caught:
        model.fit(FLAT, Y, epochs=2, verbose=0, validation_data=(FLAT, Y), callbacks=[fresh])
    assert sum("BatchNormRecalibration" in str(warning.message) for warning in caught) == 1


def test_the_momentum_is_given_back_where_the_data_does_not_fit_the_model():
    net = compiled(cnn())
    with pytest.raises(ValueError, match=r"incompatible"):
        recalibrate(net, (FLAT,))
    assert {la.momentum for la in net.layers if isinstance(la, layers.BatchNormalization)} == {0.99}


def test_copies_share_a_dataset():
    data = tf.data.Dataset.from_tensor_slices(X).batch(BATCH)
    fresh = kf.callbacks.BatchNormRecalibration(data)
    net = compiled(cnn())
    for callback in (fresh, copy.deepcopy(fresh), copy.deepcopy([fresh])[0]):
        net.evaluate(X, Y, verbose=0, callbacks=[callback])


@pytest.mark.parametrize(
    ("data", "options", "error"),
    [
        ((X, Y), {"num_batches": 0}, ValueError),
        ((X, Y), {"num_batches": True}, TypeError),
        ((X, Y), {"batch_size": 0}, ValueError),
        ((X[:0], Y[:0]), {}, ValueError),
        ((X, Y[1:]), {}, ValueError),
        (X, {}, TypeError),
        (math.pi, {}, TypeError),
    ],
)
def test_refuses_bad_arguments_when_it_is_made(data, options, error):
    name = next(iter(options), "data")
    with pytest.raises(error, match=f"`{name}` must"):
        kf.callbacks.BatchNormRecalibration(data, **options)


def test_its_passes_are_no_training_that_ignores_the_penalty(caplog):
    model = kf.FisherPenaltyModel(cnn(), name="recalibrated_cnn")
    recalibrate(compiled(model))
    assert caplog.records == []


def test_a_shared_layer_averages_over_its_calls():
    inputs = [keras.Input((4,), name=name) for name in "abc"]
    norm = layers.BatchNormalization()
    outputs = layers.Dense(3)(layers.concatenate([norm(each) for each in inputs]))
    model = compiled(keras.Model(inputs, outputs))
    generator = np.random.default_rng(0)
    x = [generator.normal(mean, 1, (N, 4)).astype("float32") for mean in (0, 10, 20)]
    fresh = kf.callbacks.BatchNormRecalibration((x, Y), batch_size=N)
    for _ in range(2):
        model.evaluate(x, Y, callbacks=[fresh], verbose=0)
        np.testing.assert_allclose(norm.moving_mean, np.mean(x, axis=(0, 1)), rtol=1e-4)
        np.testing.assert_allclose(norm.moving_variance, np.var(x, axis=1).mean(axis=0), rtol=1e-4)
    assert (norm.momentum, "call" in vars(norm)) == (0.99, False)
