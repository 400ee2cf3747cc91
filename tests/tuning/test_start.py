"""The proposed range of alphas."""

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets, reference

(X, Y), W = nets.LINE_DATA, nets.LINE_WEIGHT


def line():
    """A model w x with the loss (w x - y)^2."""
    model = nets.line()
    model.compile("sgd", "mse")
    return model


def balance(penalty):
    found = kf.tuning.alpha_range(line(), (X, Y), penalty=penalty, num_batches=1, batch_size=4)
    return found.balance


def test_given_labels_and_one_weight_balance_where_the_curvature_says():
    # P = L'^2, so dP/dw = 2 L' L'', and L' / dP/dw = 1 / (2 L'') with L'' = 2 mean(x^2).
    assert balance("gp") == pytest.approx(1 / (4 * np.mean(X**2)), rel=1e-5)


def test_input_gradients_balance_as_worked_out_by_hand():
    # dl/dx_i = -2 w r_i / B with r = y - w x, so P = 4 w^2 sum(r^2) / B^2.
    r = Y - W * X
    of_loss = -2 * np.mean(X * r)
    of_penalty = (8 * W * np.sum(r**2) - 8 * W**2 * np.sum(r * X)) / 4**2
    assert balance("gp_x") == pytest.approx(abs(of_loss / of_penalty), rel=1e-5)


@pytest.mark.matrix
@pytest.mark.parametrize(("size", "factor"), [(2, 1 / 2), (100, 1), (0.5, 1), (None, 1)])
def test_a_number_of_penalised_examples_makes_alphas_smaller(size, factor):
    model = kf.FisherPenaltyModel(nets.line(), penalty="gp", penalty_batch_size=size)
    model.compile("sgd", "mse")
    found = kf.tuning.alpha_range(model, (X, Y), num_batches=1, batch_size=4)
    assert found.balance == pytest.approx(factor * balance("gp"), rel=1e-5)


def test_the_range_lies_around_the_balance_and_has_the_asked_number():
    found = kf.tuning.alpha_range(line(), (X, Y), penalty="gp", num=4, num_batches=2, batch_size=2)
    assert len(found.alphas) == 4
    assert found.alphas[-1] / found.alphas[0] == pytest.approx(100, rel=0.02)
    assert found.alphas[0] < found.value < found.alphas[-1]
    assert found.stderr > 0


def test_the_model_is_left_as_it_was():
    model = line()
    before = [weight.copy() for weight in model.get_weights()]
    kf.tuning.alpha_range(model, (X, Y), num_batches=1, batch_size=4, seed=0)
    for weight, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_a_dataset_is_measured_on_its_own_mini_batches():
    arguments = {"penalty": "gp", "num_batches": 2}
    expected = kf.tuning.alpha_range(line(), (X, Y), batch_size=2, **arguments)
    assert kf.tuning.alpha_range(line(), reference.batches(X, Y, 2), **arguments) == expected


def test_a_loss_without_a_gradient_is_no_place_to_begin():
    model = line()
    with pytest.raises(ValueError, match="The gradients of `penalty` and of the loss on `data`"):
        kf.tuning.alpha_range(model, (X, W * X), penalty="gp", num_batches=1, batch_size=4)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"penalty": "fb"}, ValueError, "`penalty` must be one of 'fp', 'gp', 'gp_x', 'gp_r'"),
        ({"num_batches": 0}, ValueError, "`num_batches` must be an integer >= 1"),
        ({"num": 1}, ValueError, "`num` must be an integer >= 2"),
        (
            {"num_batches": 3},
            ValueError,
            "`num_batches` must be at most .*=3 and 1 mini-",
        ),
        ({"batch_size": 8}, ValueError, "`num_batches` must be at most .*=1 and 0 mini-"),
    ],
)
def test_impossible_arguments_are_refused(changes, error, message):
    arguments = {"num_batches": 1, "batch_size": 4} | changes
    with pytest.raises(error, match=message):
        kf.tuning.alpha_range(line(), (X, Y), **arguments)


# ---- The loss and the mode of training -----------------------------------------------------------

DATA = nets.inputs("dense", batch=32), nets.labels(batch=32)


def busy():
    """A model whose outputs differ in training mode, with a regulariser."""
    return keras.Sequential(
        [
            keras.Input(DATA[0].shape[1:]),
            keras.layers.Dense(8, kernel_regularizer=keras.regularizers.L2(0.1)),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dense(nets.CLASSES),
        ]
    )


@pytest.mark.matrix
@pytest.mark.parametrize(
    "weight", [np.arange(32) % 4 == 0, 5.0, None], ids=["padding", "5", "none"]
)
@pytest.mark.usefixtures("eagerly")
def test_the_balance_is_the_one_of_a_training_step(weight):
    keras.utils.set_random_seed(0)
    model = kf.FisherPenaltyModel(busy(), alpha=1.0, penalty="gp", update_freq=1)
    model.compile(keras.optimizers.SGD(0.0), nets.loss())
    weights = () if weight is None else (np.ones(32, "float32") * weight,)
    before = [value.copy() for value in model.get_weights()]
    found = kf.tuning.alpha_range(model, (*DATA, *weights), num_batches=1, batch_size=32)
    for value, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, kept)
    logged = kf.callbacks.PenaltyRatio()
    history = model.fit(*DATA, 32, 1, 0, [logged], sample_weight=weights[0] if weights else None)
    assert found.balance == pytest.approx(1 / history.history["penalty_ratio"][0], rel=1e-4)


def test_a_model_that_is_not_compiled_has_the_loss_of_its_likelihood():
    arguments = {"penalty": "gp", "num_batches": 1, "batch_size": 32}
    keras.utils.set_random_seed(0)
    plain, compiled = nets.build("dense"), nets.build("dense")
    compiled.set_weights(plain.get_weights())
    compiled.compile("sgd", nets.loss())
    given = kf.likelihoods.Categorical()
    expected = kf.tuning.alpha_range(compiled, DATA, **arguments).balance
    found = kf.tuning.alpha_range(plain, DATA, likelihood=given, **arguments).balance
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("eagerly")
def test_a_measurement_during_training_reports_no_ignored_penalty(caplog):
    model = kf.FisherPenaltyModel(busy(), alpha=0.01, update_freq=1)
    model.compile(keras.optimizers.SGD(0.01), nets.loss())
    measure = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: kf.tuning.alpha_range(model, DATA, num_batches=1, batch_size=32)
    )
    model.fit(*DATA, 32, 2, 0, [measure])
    assert not caplog.records


@pytest.mark.parametrize("kind", ["kernel_regularizer", "activity_regularizer"])
def test_the_loss_includes_what_layers_add_to_it(kind):
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(5, "tanh", **{kind: keras.regularizers.L2(5.0)})
    net = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(nets.CLASSES)])
    model = kf.FisherPenaltyModel(net, alpha=1.0, penalty="gp", update_freq=1)
    model.compile(keras.optimizers.SGD(0.0), nets.loss())
    x, y = nets.inputs("dense"), nets.labels()
    found = kf.tuning.alpha_range(model, (x, y), num_batches=1, batch_size=nets.BATCH)
    model.train_on_batch(x, y)
    assert found.balance == pytest.approx(1 / model.penalty_ratio, rel=1e-3)
