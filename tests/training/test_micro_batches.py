"""The penalty from one part of the batch after another, and on a share of it."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_fisher import FisherPenaltyModel
from keras_fisher.likelihoods import Categorical
from tests import nets, reference

GRADIENTS = {"exact": 1e-12, "finite_difference": 1e-6}


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("penalty", ["fp", "gp", "gp_x", "gp_r"])
@pytest.mark.parametrize(
    ("examples", "size"), [(None, 2), (None, 4), (5, 2), (None, 100), (None, 1)]
)
def test_parts_give_what_the_whole_batch_does(penalty, gradient, examples, size):
    arguments = {"penalty": penalty, "gradient": gradient, "penalty_batch_size": examples}
    arguments["likelihood"] = nets.FromOutputs()
    value, slopes = nets.penalty_and_gradient("two_inputs", **arguments)
    in_parts = nets.penalty_and_gradient("two_inputs", micro_batch_size=size, **arguments)
    assert in_parts[0] == pytest.approx(value, rel=1e-12)
    assert nets.relative_error(in_parts[1], slopes) < GRADIENTS[gradient]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gradient", "compile_args"),
    [
        ("exact", {}),
        ("exact", {"jit_compile": True}),
        ("finite_difference", {"run_eagerly": True}),
    ],
)
def test_parts_train_what_the_whole_does_however_they_run(gradient, compile_args):
    def trained(**arguments):
        arguments |= {"gradient": gradient, "compile_args": compile_args, "update_freq": 2}
        model = nets.compiled("dense", alpha=0.1, likelihood=nets.FromOutputs(), **arguments)
        x, y = nets.inputs("dense", batch=4 * nets.BATCH - 1), nets.labels(4 * nets.BATCH - 1)
        model.fit(x, y, batch_size=nets.BATCH, shuffle=False, verbose=0)
        return nets.flat(model.trainable_weights)

    whole, parts = (
        trained(penalty_batch_size=0.7),
        trained(penalty_batch_size=0.7, micro_batch_size=3),
    )
    np.testing.assert_allclose(parts, whole, rtol=1e-3, atol=1e-4)


@reference.jax_only
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_parts_may_hold_layers_that_jax_cannot_compile(gradient):
    x, y = np.random.default_rng(0).normal(size=(nets.BATCH, 4, 4, 2)), nets.labels()
    head = layers.Dense(nets.CLASSES)

    def penalty(*before, **arguments):
        net = keras.Sequential([keras.Input((4, 4, 2)), *before, layers.Flatten(), head])
        model = FisherPenaltyModel(net, 0.1, penalty="gp", gradient=gradient, **arguments)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.0), loss)
        return model.train_on_batch(x, y, return_dict=True)["penalty"]

    cropped = penalty(layers.RandomCrop(4, 4), micro_batch_size=4)  # which leaves all of it
    assert cropped == pytest.approx(penalty(), rel=1e-5)


class Watching(layers.Layer):
    """Keeps the sizes of the batches that it sees."""

    def build(self, shape):
        self.seen = []

    def call(self, inputs):
        self.seen.append(inputs.shape[0])
        return inputs


@pytest.mark.matrix
@reference.tensorflow_only  # JAX runs the parts compiled
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"gradient": "exact"}, [6, 2, 2, 2, 2, 2, 2]),
        ({"gradient": "finite_difference"}, [6, *[2] * 9]),  # and the labels once more
        ({"penalty": "gp_x"}, [6, 2, 2, 2]),
        ({"penalty_batch_size": 4}, [6, 2, 2, 2, 2]),
    ],
)
def test_the_penalty_sees_no_more_than_a_part_at_a_time(arguments, expected):
    layer = Watching()
    net = keras.Sequential([keras.Input((4,)), layer, layers.Dense(nets.CLASSES)])
    model = FisherPenaltyModel(net, micro_batch_size=2, update_freq=2, **arguments)
    model.compile("sgd", nets.loss(), run_eagerly=True)
    x, y = keras.ops.convert_to_tensor(nets.inputs("dense")), nets.labels()
    model.train_on_batch(x, y)
    layer.seen.clear()
    model.train_on_batch(x, y)
    between = layer.seen.copy()
    assert between == [6]  # the penalty's gradient is kept
    layer.seen.clear()
    model.train_on_batch(x, y)
    assert layer.seen == expected


@pytest.mark.slow
def test_parts_have_their_own_statistics_and_move_none():
    name = "batch_norm_cnn"
    plain = nets.plain(name, keras.optimizers.SGD(0.0))
    model = nets.compiled(name, keras.optimizers.SGD(0.0), penalty="gp", micro_batch_size=2)
    x, y = nets.inputs(name), nets.labels()
    gradients = []
    for part in range(3):
        rows = slice(2 * part, 2 * part + 2)
        net = nets.build(name)

        def value(net=net, rows=rows):
            return nets.loss()(y[rows], net(x[rows], training=True))

        gradients.append(nets.flat(reference.gradients(value, net.trainable_weights)))
    plain.train_on_batch(x, y)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["penalty"] == pytest.approx(np.sum(np.mean(gradients, axis=0) ** 2), rel=1e-4)
    statistics = nets.flat(model.backbone.non_trainable_weights)
    np.testing.assert_array_equal(statistics, nets.flat(plain.non_trainable_weights))


@reference.tensorflow_only  # JAX runs the parts compiled
def test_parts_have_their_own_dropout():
    seen = []

    class Keeping(layers.Layer):
        def call(self, inputs):
            seen.append(keras.ops.convert_to_numpy(inputs))
            return inputs

    net = keras.Sequential([layers.Dropout(0.5, seed=0), Keeping(), layers.Dense(1)])
    model = FisherPenaltyModel(net, penalty="gp", micro_batch_size=1)
    model.compile("sgd", "mean_squared_error", run_eagerly=True)
    model.train_on_batch(np.ones((2, 50), "float32"), np.ones((2, 1), "float32"))
    _, first, second, first_again, second_again = seen[-5:]
    assert np.any(first != second)
    np.testing.assert_array_equal(first, first_again)
    np.testing.assert_array_equal(second, second_again)


@pytest.mark.slow
def test_labels_of_parts_are_those_that_their_own_forward_pass_predicts():
    """Others would have another mean than 0, and be penalised many times too much."""

    def mean(**arguments):
        keras.utils.set_random_seed(0)
        net = keras.Sequential(
            [keras.Input((4,)), layers.Dense(64, "relu"), layers.Dropout(0.5), layers.Dense(3)]
        )
        net.layers[-1].set_weights([3 * w for w in net.layers[-1].get_weights()])
        model = FisherPenaltyModel(net, update_freq=1, seed=0, **arguments)
        model.compile(keras.optimizers.SGD(0.0), nets.loss())
        x, y = nets.inputs("dense", batch=64), nets.labels(64)
        return np.mean([model.train_on_batch(x, y, return_dict=True)["penalty"] for _ in range(60)])

    whole = mean()
    for gradient in GRADIENTS:
        assert mean(micro_batch_size=8, gradient=gradient) == pytest.approx(whole, rel=0.3)


class Restless(Categorical):
    """Draws other labels wherever outputs are not the very same."""

    def sample(self, outputs, seed):
        return keras.ops.cast(1e4 * keras.ops.abs(outputs[:, 0]) % nets.CLASSES, "int32")


def test_a_difference_in_parts_holds_its_labels():
    def gradient(**arguments):
        arguments |= {"micro_batch_size": 2, "likelihood": Restless()}
        return nets.penalty_and_gradient("dense", **arguments)[1]

    by_difference = gradient(gradient="finite_difference")
    assert nets.relative_error(by_difference, gradient()) < 1e-2


@pytest.mark.usefixtures("eagerly")
def test_inputs_may_be_of_another_dtype_than_weights():
    x = {key: value.astype("float64") for key, value in nets.inputs("two_inputs").items()}
    model = nets.compiled("two_inputs", penalty="gp_x", micro_batch_size=2)
    data = reference.batches(x, nets.labels(), nets.BATCH)
    assert model.fit(data, verbose=0).history["penalty"][0] > 0


# A share of the batch


@pytest.mark.matrix
@pytest.mark.parametrize(("share", "examples"), [(0.5, 3), (0.3, 2), (1e-6, 1)])
@pytest.mark.parametrize("parts", [{}, {"micro_batch_size": 2}])
def test_a_share_is_penalised_as_much_less_as_it_is_smaller(share, examples, parts):
    arguments = {"likelihood": nets.HeldLabels(), **parts}
    value, slopes = nets.penalty_and_gradient("dense", penalty_batch_size=examples, **arguments)
    shared = nets.penalty_and_gradient("dense", penalty_batch_size=share, **arguments)
    assert shared[0] == pytest.approx(value * examples / nets.BATCH, rel=1e-5)
    assert nets.relative_error(shared[1], slopes * examples / nets.BATCH) < 1e-4


@pytest.mark.parametrize(("size", "steps"), [(None, 10), (4, 10), (0.5, 1)])
def test_a_share_is_recomputed_more_often_unless_told_otherwise(size, steps):
    assert nets.compiled("dense", penalty_batch_size=size).update_freq == steps
    assert nets.compiled("dense", penalty_batch_size=size, update_freq=3).update_freq == 3


@pytest.mark.slow
def test_the_same_alpha_penalises_a_share_as_much_as_the_whole_batch_in_the_mean():
    def mean(**arguments):
        model = nets.compiled(
            "dense", keras.optimizers.SGD(0.0), update_freq=1, seed=0, **arguments
        )
        x, y = nets.inputs("dense", batch=nets.BATCH), nets.labels()
        values = [model.train_on_batch(x, y, return_dict=True)["penalty"] for _ in range(400)]
        return np.mean(values), np.std(values) / 20

    whole, error = mean()
    half, error_of_half = mean(penalty_batch_size=0.5)
    assert half == pytest.approx(whole, abs=4 * np.hypot(error, error_of_half))


def test_a_share_of_1_is_the_whole_batch():
    model = FisherPenaltyModel(nets.build("dense"), penalty_batch_size=1.0)
    assert (model.penalty_batch_size, model.update_freq) == (None, 10)
