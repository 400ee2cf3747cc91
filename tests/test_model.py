"""What a training step of `FisherPenaltyModel` does."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

from keras_fisher import FisherPenaltyModel
from tests import nets, reference

if reference.IS_TENSORFLOW:
    import tensorflow as tf

MODES = [
    {"gradient": "exact"},
    {"gradient": "finite_difference"},
    {"gradient": "exact", "penalty_batch_size": 3},
    {"gradient": "finite_difference", "penalty_batch_size": 3},
    {"gradient": "exact", "micro_batch_size": 4},
]
OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
}


def busy_net():
    """Batch normalisation, dropout and a regulariser in one."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, kernel_regularizer=keras.regularizers.L2(0.1)),
            layers.BatchNormalization(),
            layers.Dropout(0.3, seed=1),
            layers.Dense(nets.CLASSES),
        ]
    )


def fit(model, epochs=1, steps=20, **arguments):
    data = {
        "x": nets.inputs("dense", batch=nets.BATCH * steps),
        "y": nets.labels(nets.BATCH * steps),
    }
    arguments = {"batch_size": nets.BATCH, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(**data, epochs=epochs, **arguments).history


def step(model, name="dense", **arguments):
    """Trains on the same batch of the net's inputs; returns the logs."""
    x, y = nets.inputs(name), nets.labels()
    return model.train_on_batch(x, y, return_dict=True, **arguments)


def penalties(model, steps):
    return [float(step(model)["penalty"]) for _ in range(steps)]


def changes(values):
    return [i for i in range(1, len(values)) if values[i] != values[i - 1]]


def frozen_in_place(**arguments):
    """A model whose weights never move, so that only new labels change the penalty."""
    return nets.compiled("dense", keras.optimizers.SGD(0.0), seed=0, **arguments)


class Counting(FisherPenaltyModel):
    traces = 0

    def train_step(self, *given):
        self.traces += 1
        return super().train_step(*given)


def set_alpha_at(batch, alpha):
    """A callback that sets alpha before one batch."""
    return reference.call_at(
        "train_batch_begin", batch, lambda model: setattr(model, "alpha", alpha)
    )


# Alpha


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("optimizer", "weighting"),
    [
        ("momentum", {"class_weight": {0: 0.5, 1: 2.0, 2: 1.0}}),
        ("adam", {"sample_weight": np.linspace(0.1, 2, 20 * nets.BATCH)}),
    ],
)
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_alpha_0_trains_the_very_weights_of_the_plain_model(optimizer, weighting, run_eagerly):
    plain, backbone = busy_net(), busy_net()
    model = FisherPenaltyModel(backbone, alpha=0.0)
    for m in (plain, model):
        m.compile(OPTIMIZERS[optimizer](), nets.loss(), run_eagerly=run_eagerly)
    expected, logs = fit(plain, **weighting), fit(model, **weighting)
    for weight, other in zip(backbone.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(weight, other)
    assert logs == {**expected, "penalty": [0.0]}


def test_alpha_set_by_a_callback_acts_on_the_next_step():
    weights = {}
    for alpha in (0.0, 0.5):
        model = nets.compiled("dense", keras.optimizers.SGD(0.1), alpha=0.0, penalty="gp")
        seen = weights[alpha] = []
        record = reference.call_at(
            "train_batch_end", None, lambda model, seen=seen: seen.append(nets.flat(model.weights))
        )
        fit(model, steps=8, callbacks=[set_alpha_at(4, alpha), record])
    differ = [bool(np.any(a != b)) for a, b in zip(weights[0.0], weights[0.5], strict=True)]
    assert differ == [False] * 4 + [True] * 4


@reference.tensorflow_only  # JAX traces each kind of step by itself
def test_only_the_first_alpha_above_0_traces_the_step_again():
    model, traces = Counting(nets.build("dense"), alpha=0.0), []
    model.compile("sgd", nets.loss())
    for alpha in (0.0, 0.5, 0.25, 0.0, 1.0):
        model.alpha = alpha
        fit(model, steps=2)
        traces.append(model.traces)
    assert traces == [1, 2, 2, 2, 2]


@reference.tensorflow_only  # a loop of one's own has no state of JAX's
def test_a_training_loop_of_ones_own_sees_the_alpha_that_was_set_after_a_plain_fit():
    weights = []
    for alpha in (0.0, 0.5):
        model = nets.compiled("dense", keras.optimizers.SGD(0.1), alpha=0.0, penalty="gp")
        fit(model, steps=2)
        model.alpha = alpha
        model.train_step((nets.inputs("dense"), nets.labels()))
        weights.append(nets.flat(model.weights))
    assert np.any(weights[0] != weights[1])


SCALARS = {
    "array": np.array,
    "float32": np.float32,
    "tensor": keras.ops.convert_to_tensor,
    "variable": keras.Variable,
}


@pytest.mark.parametrize("kind", SCALARS)
def test_alpha_may_be_a_scalar_of_any_kind(kind):
    model = nets.compiled("dense", alpha=SCALARS[kind](0.1))
    assert model.alpha == 0.1
    model.alpha = SCALARS[kind](0.3)
    assert model.alpha == 0.3
    assert type(model.get_config()["alpha"]) is float


def test_a_schedule_acts_as_if_alpha_were_set_before_each_step():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2, 5], [0.0, 0.5, 0.125])
    values = [0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.125, 0.125]
    scheduled = nets.compiled("dense", alpha=schedule, penalty="gp")
    by_hand = nets.compiled("dense", alpha=0.0, penalty="gp")
    for value in values:
        by_hand.alpha = value
        assert scheduled.alpha == value
        step(scheduled)
        step(by_hand)
        np.testing.assert_array_equal(
            nets.flat(scheduled.backbone.weights), nets.flat(by_hand.backbone.weights)
        )


@reference.traced_only
@pytest.mark.matrix
@pytest.mark.parametrize("train", [fit, step])
def test_a_step_is_traced_once_whatever_the_optimizer_and_the_metrics_need(train):
    model = Counting(nets.build("dense"))
    model.compile("adam", nets.loss(), metrics=["accuracy"])
    train(model), train(model)
    assert model.traces == 1


@pytest.mark.slow
@pytest.mark.parametrize("scheduled_first", [True, False])
def test_schedules_and_numbers_replace_each_other_during_training(scheduled_first):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([100], [0.5, 0.0])
    first, second = (schedule, 0.25) if scheduled_first else (0.25, schedule)
    model = nets.compiled("dense", alpha=first, penalty="gp")
    expected = nets.compiled("dense", alpha=0.5 if scheduled_first else 0.25, penalty="gp")
    for _ in range(2):
        step(model), step(expected)
    model.alpha, expected.alpha = second, 0.25 if scheduled_first else 0.5
    assert model.alpha == expected.alpha
    for _ in range(2):
        step(model), step(expected)
    np.testing.assert_array_equal(
        nets.flat(model.backbone.weights), nets.flat(expected.backbone.weights)
    )


@pytest.mark.slow
def test_a_schedule_replaced_by_a_callback_acts_no_more():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([100], [0.5, 0.0])
    seen = []
    for alpha in (schedule, 0.5):
        model = nets.compiled("dense", alpha=alpha, penalty="gp")
        fit(model, steps=6, callbacks=[set_alpha_at(3, 0.25)])
        assert model.alpha == 0.25
        seen.append(nets.flat(model.backbone.weights))
    np.testing.assert_array_equal(*seen)


# When the penalty is recomputed


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_penalty_is_recomputed_every_update_freq_steps(run_eagerly):
    model = frozen_in_place()
    model.run_eagerly = run_eagerly
    assert changes(penalties(model, 25)) == [10, 20]


@pytest.mark.usefixtures("eagerly")
def test_labels_are_drawn_afresh_at_every_recomputation():
    values = penalties(frozen_in_place(update_freq=1), 6)
    assert len(set(values)) == 6
    assert len(set(penalties(frozen_in_place(update_freq=1, penalty="gp"), 6))) == 1


@pytest.mark.usefixtures("eagerly")
def test_labels_are_independent_of_a_noise_layer_with_the_same_seed():
    x = np.random.default_rng(0).normal(size=(64, 8))

    def mean_penalty(seed):
        keras.utils.set_random_seed(0)
        noise = layers.GaussianNoise(1.0, seed=0)
        net = keras.Sequential([keras.Input((8,)), noise, layers.Dense(8)])
        model = FisherPenaltyModel(net, 1e-9, update_freq=1, seed=seed)
        model.compile(keras.optimizers.SGD(0.0), "mse")
        steps = [model.train_on_batch(x, x, return_dict=True)["penalty"] for _ in range(20)]
        return float(np.mean(steps))

    assert mean_penalty(0) == pytest.approx(mean_penalty(1), rel=0.2)


def test_models_without_a_seed_draw_different_labels():
    net = nets.build("dense")
    models = [FisherPenaltyModel(net) for _ in range(2)]
    first, second = (int(model._label_seed.state[0]) for model in models)
    assert first != second


@pytest.mark.usefixtures("eagerly")
def test_the_same_seed_draws_the_same_labels():
    assert penalties(frozen_in_place(), 3) == penalties(frozen_in_place(), 3)


@pytest.mark.usefixtures("eagerly")
def test_steps_in_between_use_the_kept_gradient():
    model = nets.compiled("dense", keras.optimizers.SGD(0.1), penalty="gp", alpha=0.5)
    net, x, y = model.backbone, nets.inputs("dense"), nets.labels()
    kept = []
    for _ in range(12):
        gradient = nets.flat(reference.gradients(lambda: nets.loss()(y, net(x)), net.weights))
        before = nets.flat(net.weights)
        step(model)
        kept.append(((before - nets.flat(net.weights)) / 0.1 - gradient) / 0.5)
    for i in range(1, 10):
        np.testing.assert_allclose(kept[i], kept[0], atol=1e-5)
    np.testing.assert_allclose(kept[11], kept[10], atol=1e-5)
    assert np.max(np.abs(kept[10] - kept[0])) > 1e-3


def test_penalty_turned_on_between_recomputations_is_computed_at_once():
    model = frozen_in_place(alpha=0.0)
    values = penalties(model, 4)
    model.alpha = 0.1
    values += penalties(model, 10)
    assert values[:4] == [0.0] * 4
    assert changes(values) == [4, 10]


def test_alpha_0_computes_no_penalty():
    model = frozen_in_place()
    values = penalties(model, 5)
    model.alpha = 0.0
    values += penalties(model, 10)
    assert len(set(values)) == 1


# One forward pass


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("name", "arguments"),
    [*(("batch_norm_cnn", mode) for mode in MODES), ("subclassed", MODES[0])],
)
def test_batch_norm_statistics_move_as_in_plain_training(name, arguments):
    plain = nets.plain(name, keras.optimizers.SGD(0.0))
    model = nets.compiled(name, keras.optimizers.SGD(0.0), update_freq=2, **arguments)
    initial = nets.flat(plain.non_trainable_weights)
    for seed in range(20):
        x = nets.inputs(name, seed=seed)
        plain.train_on_batch(x, nets.labels())
        model.train_on_batch(x, nets.labels())
    statistics = nets.flat(model.backbone.non_trainable_weights)
    np.testing.assert_array_equal(statistics, nets.flat(plain.non_trainable_weights))
    assert np.all(statistics != initial)


@pytest.mark.parametrize(
    ("arguments", "calls"),
    list(zip(MODES, [[1, 1, 1], [2, 1, 2], [2, 1, 2], [3, 1, 3], [5, 1, 5]], strict=True)),
)
def test_forward_passes_of_a_step(arguments, calls):
    class CountingLayer(layers.Layer):
        count = 0

        def call(self, inputs):
            self.count += 1
            return inputs

    layer = CountingLayer()
    net = keras.Sequential([keras.Input((4,)), layer, layers.Dense(nets.CLASSES)])
    model = FisherPenaltyModel(net, update_freq=2, **arguments)
    model.compile("sgd", nets.loss(), run_eagerly=True)
    step(model)  # builds
    step(model)
    counted = []
    for _ in calls:
        before = layer.count
        step(model)
        counted.append(layer.count - before)
    assert counted == calls


# The plain loss and what belongs to it alone

WEIGHTED = {"class_weight": {0: 0.5, 1: 2.0, 2: 1.0}}


@functools.cache
def plain_logs(is_weighted):
    """Two epochs' logs of the plain model."""
    plain = busy_net()
    plain.compile(keras.optimizers.SGD(0.0), nets.loss(), metrics=["accuracy"])
    return fit(plain, epochs=2, **(WEIGHTED if is_weighted else {}))


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("arguments", "weighting"),
    [*((mode, {}) for mode in MODES), (MODES[0], WEIGHTED)],
)
def test_loss_in_the_logs_is_the_plain_models(arguments, weighting):
    model = FisherPenaltyModel(busy_net(), alpha=10.0, **arguments)
    model.compile(keras.optimizers.SGD(0.0), nets.loss(), metrics=["accuracy"])
    logs = fit(model, epochs=2, **weighting)
    assert logs.pop("penalty")[0] > 0
    expected = plain_logs(bool(weighting))
    assert set(logs) == set(expected) == {"loss", "accuracy"}
    for key, values in expected.items():
        np.testing.assert_allclose(logs[key], values, rtol=1e-6)


@pytest.mark.matrix
@pytest.mark.parametrize(
    "weighting",
    [
        {"class_weight": {0: 0.5, 1: 2.0, 2: 1.0}},
        {"sample_weight": np.linspace(0.1, 2, nets.BATCH)},
    ],
)
@pytest.mark.usefixtures("eagerly")
def test_class_and_sample_weights_leave_the_penalty_alone(weighting):
    plain, weighted = (nets.compiled("dense", penalty="gp", alpha=1.0) for _ in range(2))
    plain_logs, weighted_logs = step(plain), step(weighted, **weighting)
    assert weighted_logs["penalty"] == plain_logs["penalty"]
    assert weighted_logs["loss"] != plain_logs["loss"]


@pytest.mark.usefixtures("eagerly")
def test_regularisers_and_label_smoothing_leave_the_penalty_alone():
    def regularised(strength, smoothing):
        keras.utils.set_random_seed(0)
        regulariser = keras.regularizers.L2(strength)
        net = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(5, kernel_regularizer=regulariser, activity_regularizer=regulariser),
                layers.Dense(nets.CLASSES),
            ]
        )
        model = FisherPenaltyModel(net, penalty="gp")
        loss = keras.losses.CategoricalCrossentropy(True, label_smoothing=smoothing)
        model.compile("sgd", loss)
        y = np.eye(nets.CLASSES)[nets.labels()]
        return model.train_on_batch(nets.inputs("dense"), y, return_dict=True)

    without, given = regularised(0.0, 0.0), regularised(0.5, 0.2)
    assert given["penalty"] == without["penalty"]
    assert given["loss"] > without["loss"]


@pytest.mark.usefixtures("eagerly")
def test_frozen_layers_neither_move_nor_count():
    net = nets.build("dense")
    net.layers[0].trainable = False
    frozen = nets.flat(net.layers[0].weights)
    x, y = nets.inputs("dense"), nets.labels()

    def squared_norm(weights):
        found = reference.gradients(lambda: nets.loss()(y, net(x)), weights)
        return np.sum(nets.flat(found) ** 2)

    model = FisherPenaltyModel(net, alpha=0.5, penalty="gp")
    model.compile("sgd", nets.loss())
    expected = squared_norm(net.layers[1].weights)
    assert step(model)["penalty"] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(nets.flat(net.layers[0].weights), frozen)

    net.layers[0].trainable = True
    model.compile("sgd", nets.loss())
    expected = squared_norm(net.weights)
    assert step(model)["penalty"] == pytest.approx(expected, rel=1e-5)
    assert np.all(nets.flat(net.layers[0].weights) != frozen)


# Logs


def test_penalty_is_logged_in_training_only(capsys):
    model = nets.compiled("dense", compile_args={"metrics": ["accuracy"]})
    data = nets.inputs("dense"), nets.labels()
    keys = {"loss", "accuracy"}
    assert set(model.evaluate(*data, verbose=0, return_dict=True)) == keys
    history = fit(model, validation_data=data, verbose=1)
    assert set(history) == {*keys, "penalty", "val_loss", "val_accuracy"}
    bar = capsys.readouterr().out
    assert " penalty: " in bar
    assert "val_penalty" not in bar
    assert set(model.evaluate(*data, verbose=0, return_dict=True)) == keys
    assert set(model.test_on_batch(*data, return_dict=True)) == keys
    assert len(model.evaluate(*data, verbose=0)) == 2


def test_logged_penalty_is_the_latest_squared_norm():
    history = fit(frozen_in_place(), epochs=2, steps=10)["penalty"]
    assert history == [pytest.approx(v, rel=1e-6) for v in _penalties_by_epoch()]


def _penalties_by_epoch():
    model = frozen_in_place()
    x, y = nets.inputs("dense", batch=60), nets.labels(60)
    values = [
        float(model.train_on_batch(x[i : i + 6], y[i : i + 6], return_dict=True)["penalty"])
        for i in [*range(0, 60, 6)] * 2
    ]
    return values[9], values[19]


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["batch_norm_cnn", "dropout", "subclassed"])
@pytest.mark.usefixtures("eagerly")
def test_evaluate_and_predict_are_the_plain_models(name):
    model, plain = nets.compiled(name), nets.plain(name)
    x, y = nets.inputs(name), nets.labels()
    assert model.evaluate(x, y, verbose=0) == plain.evaluate(x, y, verbose=0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), plain.predict(x, verbose=0))


# Ways to run


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("gradient", "compile_args", "tolerance"),
    [
        pytest.param("exact", {"steps_per_execution": 3}, 0.0, marks=reference.several_steps_only),
        ("exact", {"run_eagerly": True}, 1e-5),
        ("exact", {"jit_compile": True}, 1e-4),
        pytest.param(
            *("finite_difference", {"steps_per_execution": 3}, 0.0),
            marks=reference.several_steps_only,
        ),
        ("finite_difference", {"run_eagerly": True}, 1e-3),  # a difference enlarges rounding
        ("finite_difference", {"jit_compile": True}, 1e-3),
    ],
)
def test_every_way_to_run_trains_the_same_weights(gradient, compile_args, tolerance):
    found, expected = trained(gradient, **compile_args), trained(gradient)
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=tolerance)


@functools.cache
def trained(gradient, **compile_args):
    """The weights after twelve steps."""
    arguments = {"penalty": "gp", "alpha": 0.1, "gradient": gradient, "update_freq": 4}
    model = nets.compiled(
        "subclassed", keras.optimizers.SGD(0.1), compile_args=compile_args, **arguments
    )
    fit(model, steps=12)
    return nets.flat(model.backbone.weights)


@reference.several_steps_only
def test_drawn_labels_are_the_same_for_several_steps_per_execution():
    def trained(**compile_args):
        model = nets.compiled(
            "dropout", compile_args=compile_args, alpha=0.1, seed=1, update_freq=2
        )
        fit(model, steps=12)
        return nets.flat(model.backbone.weights)

    np.testing.assert_array_equal(trained(steps_per_execution=3), trained())


@pytest.mark.slow
def test_weights_that_the_loss_does_not_reach_stay():
    class Spare(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused = layers.Dense(3), layers.Dense(3)

        def call(self, inputs):
            self.unused(inputs)
            return self.used(inputs)

    net = Spare()
    net(nets.inputs("dense"))
    before = nets.flat(net.unused.weights)
    for gradient in ("exact", "finite_difference"):
        model = FisherPenaltyModel(net, alpha=0.1, gradient=gradient)
        model.compile("sgd", nets.loss())
        assert step(model)["penalty"] > 0
    np.testing.assert_array_equal(nets.flat(net.unused.weights), before)


@pytest.mark.matrix
@pytest.mark.parametrize("train", [fit, step])
@pytest.mark.parametrize(
    "backbone", [nets.Subclassed, lambda: keras.Sequential([layers.Dense(nets.CLASSES)])]
)
@pytest.mark.usefixtures("eagerly")
def test_an_unbuilt_backbone_is_built_by_training(backbone, train):
    model = FisherPenaltyModel(backbone())
    model.compile("sgd", nets.loss())
    assert np.all(np.asarray(train(model)["penalty"]) > 0)


@pytest.mark.usefixtures("eagerly")
def test_accumulated_gradients_include_the_penalty():
    batches = [(nets.inputs("dense", seed=i), nets.labels(seed=i)) for i in range(2)]
    arguments = {"alpha": 0.5, "penalty": "gp", "update_freq": 1}
    start = nets.flat(nets.build("dense").weights)
    moves = []
    for x, y in batches:
        model = nets.compiled("dense", **arguments)
        model.train_on_batch(x, y)
        moves.append(nets.flat(model.get_weights()) - start)
    optimizer = keras.optimizers.SGD(1.0, gradient_accumulation_steps=2)
    model = nets.compiled("dense", optimizer, **arguments)
    for x, y in batches:
        np.testing.assert_array_equal(nets.flat(model.get_weights()), start)
        model.train_on_batch(x, y)
    moved = nets.flat(model.get_weights()) - start
    np.testing.assert_allclose(moved, np.mean(moves, axis=0), rtol=1e-4, atol=1e-6)


def test_a_schedule_below_0_reads_and_counts_as_0():
    model = nets.compiled("dense", alpha=keras.optimizers.schedules.PolynomialDecay(0.1, 2, -0.1))
    x, y = nets.inputs("dense"), nets.labels()
    seen = []
    for _ in range(3):
        seen.append(model.alpha)
        model.train_on_batch(x, y)
    assert seen == [pytest.approx(0.1), 0.0, 0.0]


@pytest.mark.slow
def test_an_optional_input_may_be_left_out():
    class Add(layers.Layer):
        def call(self, first, second=None):
            return first if second is None else first + second

        def compute_output_shape(self, first_shape, second_shape=None):
            return first_shape

    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second", optional=True)
    net = keras.Model([first, second], layers.Dense(3)(Add()(first, second)))
    for arguments in ({}, {"penalty_batch_size": 3}, {"micro_batch_size": 2}, {"penalty": "gp_x"}):
        model = FisherPenaltyModel(net, seed=0, **arguments)
        model.compile("sgd", nets.loss())
        logs = model.fit([nets.inputs("dense"), None], nets.labels(), verbose=0).history
        assert logs["penalty"][0] > 0


@reference.tensorflow_only  # JAX always compiles
def test_eager_steps_may_use_python_on_their_numbers():
    class InPython(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            return self.dense(x / float(keras.ops.max(keras.ops.absolute(x))))

    def in_numpy(y, outputs):
        return np.float32(np.mean(y.numpy() == outputs.numpy().argmax(-1)))

    net = InPython()
    net(nets.inputs("dense"))
    model = FisherPenaltyModel(net, seed=0)
    model.compile("sgd", nets.loss(), metrics=[in_numpy], run_eagerly=True)
    logs = model.fit(nets.inputs("dense"), nets.labels(), verbose=0).history
    assert logs["penalty"][0] > 0


def test_options_that_a_traced_step_would_ignore_cannot_be_set():
    model = nets.compiled("dense")
    for option in ("penalty", "penalty_batch_size", "micro_batch_size", "gradient", "update_freq"):
        with pytest.raises(AttributeError):
            setattr(model, option, "other")


@reference.tensorflow_only
def test_export_gives_the_backbone(tmp_path):
    model = nets.compiled("dense")
    x = nets.inputs("dense")
    model.fit(x, nets.labels(), verbose=0)
    model.export(tmp_path / "exported", verbose=False)
    import tensorflow as tf

    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(x), model.predict(x, verbose=0), rtol=1e-5)


@pytest.mark.parametrize("change", ["set_weights", "compile"])
def test_another_loss_or_other_weights_discard_the_kept_gradient(change):
    x, y = nets.inputs("dense"), nets.labels()
    model = nets.compiled("dense", alpha=1.0, update_freq=100, seed=0)
    start = model.get_weights()
    for _ in range(3):
        model.train_on_batch(x, y)
    if change == "set_weights":
        model.set_weights(start)
    else:
        model.compile(keras.optimizers.SGD(0.1), nets.loss())
    assert not keras.ops.convert_to_numpy(model._state.is_finite())
    model.train_on_batch(x, y)
    assert keras.ops.convert_to_numpy(model._state.is_finite())
    assert model.penalty_ratio > 0


@pytest.mark.slow
def test_steps_after_a_fit_have_a_batch_size_of_their_own():
    x, y = nets.inputs("dense", batch=12), nets.labels(batch=12)
    model = nets.compiled("dense", keras.optimizers.SGD(0.0), penalty="gp", update_freq=1)
    before = model.train_on_batch(x[:4], y[:4], return_dict=True)["penalty"]
    model.fit(x, y, batch_size=12, verbose=0)
    after = model.train_on_batch(x[:4], y[:4], return_dict=True)["penalty"]
    assert float(after) == pytest.approx(float(before), rel=1e-5)


@reference.tensorflow_only  # With JAX, a second fit with averages fails in Keras too.
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("is_inside", [False, True])
def test_the_penalty_is_computed_again_once_weights_are_replaced_by_their_averages(is_inside):
    averaging = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9)
    if is_inside:
        of_variables = keras.optimizers.OptimizerMap(averaging)
        averaging = keras.optimizers.MultiOptimizer(of_variables)
    model = nets.compiled("dense", averaging, alpha=0.1, penalty="gp")
    fit(model, steps=3)
    other = nets.compiled("dense", alpha=0.1, penalty="gp")
    other.set_weights(model.get_weights())
    assert fit(model, steps=1)["penalty"] == pytest.approx(fit(other, steps=1)["penalty"])


@reference.tensorflow_only
@pytest.mark.parametrize("penalty", ["fp", "gp"])
def test_labels_of_unknown_shape_may_be_a_number_for_each_class(penalty):
    x, y = nets.inputs("dense"), np.eye(nets.CLASSES, dtype="float32")[nets.labels()] * 0.8 + 0.1
    spec = tf.TensorSpec((None, 4)), tf.TensorSpec((None, None))
    unknown = tf.data.Dataset.from_generator(lambda: iter([(x, y)]), output_signature=spec)

    def trained(data):
        model = FisherPenaltyModel(nets.build("dense"), 0.1, penalty=penalty, seed=0)
        model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
        return model.fit(data, verbose=0).history["penalty"]

    assert trained(unknown) == pytest.approx(trained(tf.data.Dataset.from_tensors((x, y))))
