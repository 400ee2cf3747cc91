"""The fingerprint of a search: equal for equal searches, and only for these."""

import keras
import keras_tuner
import numpy as np
import pytest

import keras_fisher as kf
from keras_fisher.tuning import GridSearch
from keras_fisher.tuning.fingerprint import make_fingerprint


@keras.saving.register_keras_serializable("tests", "block_1")
class Block1(keras.layers.Layer):
    def call(self, x):
        return x


@keras.saving.register_keras_serializable("tests", "block_2")
class Block2(Block1):
    pass


class Subclassed(keras.Model):
    """A model without `get_config`, whose weights are built by its first call."""

    def __init__(self, dense):
        super().__init__()
        self.dense = dense

    def call(self, x):
        return self.dense(x)


class OfOnePlan(keras.Model):
    """A model whose configuration is empty."""

    width = 4

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(self.width)

    def call(self, x):
        return self.dense(x)


class Wider(OfOnePlan):
    width = 64


Wider.__name__ = Wider.__qualname__ = "OfOnePlan"


def functional(dtype=None, extra=Block1, tied=False):
    inputs = keras.Input((4,))
    first = keras.layers.Dense(4, dtype=dtype)
    second = first if tied else keras.layers.Dense(4, dtype=dtype)
    return keras.Model(inputs, second(extra()(first(inputs))))


def make(backbone, learning_rate=0.1, loss="mse", **arguments):
    model = kf.FisherPenaltyModel(backbone, 0.1, **{"seed": 0} | arguments)
    model.compile(keras.optimizers.SGD(learning_rate), loss)
    objective = keras_tuner.Objective("val_loss", "min")
    return make_fingerprint(model, objective, (np.zeros((2, 4)),), {"epochs": 2})


@pytest.mark.parametrize("build", [functional, lambda: Subclassed(keras.layers.Dense(3)), Wider])
def test_models_that_differ_only_in_numbers_of_names_are_equal(build):
    assert make(build()) == make(build())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (functional(), functional("bfloat16")),
        (functional(), functional(extra=Block2)),
        (functional(), functional(tied=True)),
        (Subclassed(keras.layers.Dense(3)), Subclassed(keras.layers.Dense(4))),
        (OfOnePlan(), Wider()),
    ],
    ids=["dtype", "registered name", "shared layer", "layer of a subclass", "layer in no config"],
)
def test_another_network_has_another_fingerprint(one, other):
    assert make(one) != make(other)


@pytest.mark.parametrize(
    "changed",
    [{"penalty": "gp"}, {"update_freq": 3}, {"learning_rate": 0.2}, {"loss": "mae"}, {"seed": 1}],
)
def test_penalty_and_compilation_count_for_every_backbone(changed):
    arguments = {"likelihood": kf.likelihoods.Gaussian()}
    for build in (functional, lambda: Subclassed(keras.layers.Dense(3))):
        assert make(build(), **arguments) != make(build(), **arguments | changed)


def test_a_schedule_of_alpha_is_more_than_its_first_value():
    decays = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    prints = []
    for alpha in (0.1, decays):
        model = kf.FisherPenaltyModel(functional(), alpha, seed=0)
        model.compile("sgd", "mse")
        prints.append(make_fingerprint(model, keras_tuner.Objective("loss", "min"), (), {}))
    assert prints[0] != prints[1]


class Trains(keras_tuner.HyperModel):
    """Trains nothing; its accuracy is its alpha."""

    def build(self, hp):
        hp.Choice("alpha", [0.1, 0.2])
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    def fit(self, hp, *_, **__):
        return {"val_loss": hp.get("alpha"), "val_mae": 1.0}


def objectives(*names_and_directions):
    return [keras_tuner.Objective(*each) for each in names_and_directions]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"objective": keras_tuner.Objective("val_loss", "max")}, "objective"),
        ({"objective": objectives(("val_loss", "min"), ("val_mae", "min"))}, "objective"),
        ({"executions_per_trial": 2}, "executions_per_trial"),
    ],
)
def test_arguments_of_the_tuner_count(tmp_path, changed, named):
    for _ in range(2):
        GridSearch(Trains(), "val_loss", directory=tmp_path).search(verbose=0)
    tuner = GridSearch(Trains(), **{"objective": "val_loss"} | changed, directory=tmp_path)
    with pytest.raises(ValueError, match=f"a search with another {named}. Choose"):
        tuner.search(verbose=0)


@pytest.mark.parametrize("name", ["optimizer", "loss", "metrics"])
def test_what_the_hypermodel_compiles_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"`{name}` must be set by the hypermodel"):
        GridSearch(Trains(), directory=tmp_path, **{name: "adam"})
    assert not any(tmp_path.iterdir())
