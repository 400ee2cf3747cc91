"""Saving, loading and resuming a `FisherPenaltyModel`."""

import pathlib

import keras
import numpy as np
import pytest
from keras import layers

import keras_fisher
from keras_fisher import FisherPenaltyModel
from keras_fisher.likelihoods import Gaussian
from keras_fisher.penalties import Penalty
from tests import nets, reference

OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
}


def new_model(optimizer="adam", **arguments):
    """Every kind of state at once: drawn labels, dropout, batch normalisation, an optimizer."""
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, activation="tanh"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(nets.CLASSES),
        ]
    )
    model = FisherPenaltyModel(net, **{"alpha": 0.3, "seed": 5, **arguments})
    model.compile(OPTIMIZERS[optimizer](), nets.loss(), metrics=["accuracy"])
    return model


def train(model, start, stop):
    """Trains on the batches of steps `start` to `stop`; returns the penalty after each."""
    return [
        model.train_on_batch(
            nets.inputs("dense", seed=i), nets.labels(seed=i + 100), return_dict=True
        )["penalty"]
        for i in range(start, stop)
    ]


def through_keras_file(model, optimizer, path):
    model.save(path / "model.keras")
    return keras.models.load_model(path / "model.keras")


def through_weights_file(model, optimizer, path):
    model.save_weights(path / "model.weights.h5")
    model = new_model(optimizer)
    train(model, 0, 1)  # creates the optimizer's variables, as Keras needs
    model.load_weights(path / "model.weights.h5")
    return model


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("through", "optimizer"),
    [
        (through_keras_file, "momentum"),
        (through_keras_file, "adam"),
        (through_weights_file, "adam"),
    ],
)
def test_training_resumed_within_a_recomputation_cycle_equals_uninterrupted(
    through, optimizer, tmp_path
):
    uninterrupted = new_model(optimizer)
    train(uninterrupted, 0, 13)
    resumed = through(uninterrupted, optimizer, tmp_path)
    assert train(resumed, 13, 24) == train(uninterrupted, 13, 24)
    for weight, other in zip(resumed.backbone.weights, uninterrupted.backbone.weights, strict=True):
        np.testing.assert_array_equal(weight, other)


@pytest.mark.slow
def test_backup_and_restore_resumes_as_if_uninterrupted(tmp_path):
    x, y = nets.inputs("dense", batch=42), nets.labels(42)

    def fit(model, *callbacks):
        model.fit(x, y, batch_size=6, epochs=5, shuffle=False, verbose=0, callbacks=[*callbacks])
        return model

    backup, power_cut = tmp_path / "backup", reference.call_at("epoch_end", 2, reference.interrupt)
    uninterrupted = fit(new_model())
    with pytest.raises(KeyboardInterrupt):
        fit(new_model(), keras.callbacks.BackupAndRestore(backup), power_cut)
    resumed = fit(new_model(), keras.callbacks.BackupAndRestore(backup))
    for weight, other in zip(resumed.backbone.weights, uninterrupted.backbone.weights, strict=True):
        np.testing.assert_array_equal(weight, other)


@pytest.mark.filterwarnings("error:.*compile.*:UserWarning")
@pytest.mark.usefixtures("eagerly")
def test_load_model_returns_a_compiled_fisher_penalty_model(tmp_path):
    model = new_model(penalty="gp", update_freq=7, gradient="finite_difference")
    train(model, 0, 3)
    loaded = through_keras_file(model, "adam", tmp_path)
    assert type(loaded) is FisherPenaltyModel
    assert loaded.compiled
    assert loaded.alpha == model.alpha
    config, expected = loaded.get_config(), model.get_config()
    config.pop("backbone"), expected.pop("backbone")
    assert config == expected
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    x = nets.inputs("dense")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attention", "two_inputs", "subclassed"])
def test_every_kind_of_backbone_is_saved(name, tmp_path):
    model = nets.compiled(name)
    model.train_on_batch(nets.inputs(name), nets.labels())
    loaded = through_keras_file(model, None, tmp_path)
    x = nets.inputs(name)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.slow
def test_an_untrained_model_is_saved(tmp_path):
    model = through_keras_file(new_model(), "adam", tmp_path)
    np.testing.assert_equal(train(model, 0, 3), train(new_model(), 0, 3))


def test_an_alpha_set_during_training_is_saved(tmp_path):
    model = new_model()
    model.alpha = 0.0625
    assert through_keras_file(model, "adam", tmp_path).alpha == 0.0625


@pytest.mark.usefixtures("eagerly")
def test_backbone_is_saved_as_a_plain_model(tmp_path):
    model = new_model()
    train(model, 0, 2)
    model.backbone.save(tmp_path / "plain.keras")
    plain = keras.models.load_model(tmp_path / "plain.keras")
    assert type(plain) is keras.Sequential
    x = nets.inputs("dense")
    np.testing.assert_array_equal(plain.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.matrix
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.usefixtures("eagerly")
def test_a_file_of_the_plain_backbone_is_refused_with_where_to_load_it(sharded, tmp_path):
    model = new_model()
    path = tmp_path / ("plain.weights.json" if sharded else "plain.weights.h5")
    model.backbone.save_weights(path, max_shard_size=1.0 if sharded else None)
    other = new_model()
    train(other, 0, 1)
    with pytest.raises(ValueError, match=r"FisherPenaltyModel.*model\.backbone\.load_weights"):
        other.load_weights(path)
    other.backbone.load_weights(path)
    np.testing.assert_array_equal(nets.flat(other.weights), nets.flat(model.weights))


CONFIGURED = [
    {},
    {"alpha": keras.optimizers.schedules.CosineDecay(0.5, 100), "name": "scheduled"},
    {"penalty": Penalty("sampled", "inputs"), "gradient": "finite_difference"},
    {
        "penalty": "gp_r",
        "update_freq": 3,
        "penalty_batch_size": 0.4,
        "micro_batch_size": 2,
        "seed": 7,
    },
    {"likelihood": Gaussian(2.0), "alpha": 0.0},
    {"activity_regularizer": keras.regularizers.L2(0.5)},
]


@pytest.mark.parametrize("arguments", CONFIGURED)
def test_config_round_trip(arguments):
    model = FisherPenaltyModel(nets.build("dense"), **arguments)
    config = model.get_config()
    again = FisherPenaltyModel.from_config(config)
    assert again.get_config() == config
    assert again.alpha == model.alpha
    assert again.penalty == model.penalty
    assert (again.activity_regularizer is None) == (model.activity_regularizer is None)
    assert type(again.likelihood) is type(model.likelihood)
    copied = keras.models.clone_model(model)
    assert type(copied) is keras_fisher.FisherPenaltyModel


def test_random_states_of_another_number_of_layers_are_left_with_a_warning(tmp_path, caplog):
    def model(*dropout):
        dense = [layers.Dense(5), layers.Dense(nets.CLASSES)]
        net = keras.Sequential([keras.Input((4,)), *dropout, *dense])
        wrapped = FisherPenaltyModel(net, seed=0)
        wrapped.compile("sgd", nets.loss())
        return wrapped

    saved, other = model(layers.Dropout(0.5)), model(layers.Dropout(0.5), layers.Dropout(0.5))
    saved.fit(nets.inputs("dense"), nets.labels(), verbose=0)
    saved.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(nets.flat(other.weights), nets.flat(saved.weights))
    assert "saved random states are ignored: they are of 2 generators" in caplog.text


@pytest.mark.usefixtures("eagerly")
def test_the_state_is_a_tree_in_which_every_variable_has_a_name_of_its_own():
    model = nets.compiled("dense")
    model.fit(nets.inputs("dense"), nets.labels(), verbose=0)
    tree, weights = model.get_state_tree("numpy_array"), nets.flat(model.weights)
    model.fit(nets.inputs("dense"), nets.labels(), verbose=0)
    model.set_state_tree(tree)
    np.testing.assert_array_equal(nets.flat(model.weights), weights)


@pytest.mark.usefixtures("eagerly")
def test_a_schedule_goes_on_after_loading(tmp_path):
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 8, 0.0)
    model = new_model(alpha=schedule)
    train(model, 0, 4)
    loaded = through_keras_file(model, "adam", tmp_path)
    assert loaded.alpha == model.alpha == 0.5


@pytest.mark.slow
def test_a_mixed_float16_model_is_loaded_with_its_loss_scale_whatever_the_global_policy(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = new_model()
    train(model, 0, 3)
    keras.config.set_dtype_policy("float32")
    loaded = through_keras_file(model, "adam", tmp_path)
    assert isinstance(loaded.optimizer, keras.optimizers.LossScaleOptimizer)
    np.testing.assert_array_equal(nets.flat(loaded.get_weights()), nets.flat(model.get_weights()))
    assert train(loaded, 3, 6) == train(model, 3, 6)


def two_layers(frozen):
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input((4,)), *(layers.Dense(4) for _ in range(3))])
    net.layers[frozen].trainable = False
    model = FisherPenaltyModel(net, alpha=0.3, seed=5)
    model.compile(OPTIMIZERS["momentum"](), nets.loss())
    return model


@pytest.mark.slow
def test_a_kept_gradient_of_other_weights_is_recomputed(tmp_path):
    model = two_layers(frozen=0)
    train(model, 0, 3)
    model.save_weights(tmp_path / "model.weights.h5")
    other = two_layers(frozen=1)
    train(other, 0, 1)
    other.load_weights(tmp_path / "model.weights.h5")
    kept = train(other, 3, 4)
    assert kept != train(model, 3, 4)


def with_head(outputs, is_head_trained):
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input((4,)), layers.Dense(5, activation="tanh")])
    net.add(layers.Dense(outputs, trainable=is_head_trained))
    model = FisherPenaltyModel(net, alpha=0.5, penalty="gp")
    model.compile(keras.optimizers.SGD(1.0), nets.loss())
    return model


def with_warnings(model, path):
    with pytest.warns(UserWarning, match="could not be loaded"):
        model.load_weights(path, skip_mismatch=True)


def with_an_error(model, path):
    with pytest.raises(ValueError, match="could not be loaded"):
        model.load_weights(path)


@pytest.mark.matrix
@pytest.mark.parametrize("load", [with_warnings, with_an_error])
@pytest.mark.parametrize("is_head_trained", [True, False])
def test_weights_loaded_in_part_leave_no_gradient_of_the_model_that_was_saved(
    is_head_trained, load, tmp_path, float64
):
    saved = with_head(nets.CLASSES, is_head_trained)
    train(saved, 0, 3)
    saved.save_weights(tmp_path / "model.weights.h5")
    model = with_head(nets.CLASSES + 1, is_head_trained)
    train(model, 0, 1)
    load(model, tmp_path / "model.weights.h5")

    net, x, y = model.backbone, nets.inputs("dense", seed=3), nets.labels(seed=103)
    weights = net.trainable_weights
    gradients = reference.differentiated(lambda: nets.loss()(y, net(x)), weights)
    at, gradient = nets.flat(weights), nets.flat(gradients())

    def gradient_along(step):
        nets.assign_flat(weights, at + step * gradient)
        return nets.flat(gradients())

    # d ||g||^2 = 2 H g, and H g by a central difference.
    expected = 2 * (gradient_along(1e-5) - gradient_along(-1e-5)) / 2e-5
    gradient_along(0.0)
    train(model, 3, 4)
    kept = (at - nets.flat(weights) - gradient) / 0.5
    np.testing.assert_allclose(kept, expected, rtol=1e-6, atol=1e-8)


SAVED = pathlib.Path(__file__).parent / "saved_models"


@pytest.mark.matrix
@reference.tensorflow_only  # whose random numbers they were trained with
@pytest.mark.parametrize("name", ["batch_norm_cnn", "scheduled_share"])
def test_a_model_saved_by_version_0_1_0_loads_and_resumes(name):
    """The file was saved after one epoch; the arrays hold the weights after a second one."""
    model = keras.models.load_model(SAVED / f"{name}.keras")
    after = np.load(SAVED / f"{name}.npz")
    model.fit(after["x"], after["y"], batch_size=5, shuffle=False, verbose=0)
    for index, weight in enumerate(model.get_weights()):
        np.testing.assert_allclose(weight, after[f"weight_{index}"], rtol=1e-4, atol=1e-6)
    assert float(model.get_metrics_result()["penalty"]) == pytest.approx(after["penalty"], rel=1e-4)


@pytest.mark.usefixtures("eagerly")
def test_an_alpha_that_is_loaded_into_a_model_without_penalty_penalises(tmp_path):
    saved = nets.compiled("dense", alpha=0.5, penalty="gp")
    saved.save_weights(tmp_path / "saved.weights.h5")
    loaded = nets.compiled("dense", alpha=0.0, penalty="gp")
    loaded.load_weights(tmp_path / "saved.weights.h5")
    for model in (saved, loaded):
        model.fit(nets.inputs("dense"), nets.labels(), shuffle=False, verbose=0)
    np.testing.assert_array_equal(nets.flat(loaded.weights), nets.flat(saved.weights))


def test_a_kept_gradient_of_another_penalty_is_recomputed(tmp_path):
    saved = new_model(penalty="gp", update_freq=10)
    train(saved, 0, 12)
    saved.save_weights(tmp_path / "model.weights.h5")

    def penalty_of(forgets):
        model = new_model(penalty="gp_x", update_freq=10)
        model.load_weights(tmp_path / "model.weights.h5")
        if forgets:
            model._state.forget()
        return train(model, 12, 13)

    assert penalty_of(False) == penalty_of(True)
