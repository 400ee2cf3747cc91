"""What a `FisherPenaltyModel` has in common with any Keras model."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_fisher import FisherPenaltyModel
from tests import nets

# Building


def without_input():
    return keras.Sequential([layers.Dense(5, activation="tanh"), layers.Dense(nets.CLASSES)])


@keras.saving.register_keras_serializable("keras_fisher_tests")
class OfTokens(keras.Model):
    """Takes integers alone, and two of them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding = layers.Embedding(7, 4)
        self.head = layers.Dense(nets.CLASSES)

    def call(self, inputs):
        if any(keras.backend.is_float_dtype(tokens.dtype) for tokens in inputs):
            raise TypeError("no tokens")
        left, right = (self.embedding(tokens) for tokens in inputs)
        return self.head(keras.ops.mean(left + right, axis=1))


def compiled(backbone):
    keras.utils.set_random_seed(0)
    model = FisherPenaltyModel(backbone(), seed=0)
    model.compile("adam", nets.loss())
    return model


def by_build(model, trained):
    model.build((None, 4))


def by_config(model, trained):
    model.build_from_config(trained.get_build_config())


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [without_input, nets.Subclassed])
@pytest.mark.parametrize("build", [by_build, by_config])
def test_a_model_without_an_input_is_built_and_loads_weights(backbone, build, tmp_path):
    trained, model = compiled(backbone), compiled(backbone)
    x = nets.inputs("dense")
    trained.fit(x, nets.labels(), verbose=0)
    trained.save_weights(tmp_path / "model.weights.h5")
    build(model, trained)
    assert model.built
    assert model.backbone.built
    shapes = [weight.shape for weight in trained.weights]
    assert [weight.shape for weight in model.weights] == shapes
    model.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(model.predict(x, verbose=0), trained.predict(x, verbose=0))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [without_input, nets.Subclassed])
def test_a_model_without_an_input_resumes_from_a_file_exactly(backbone, tmp_path):
    model = compiled(backbone)
    data = nets.inputs("dense"), nets.labels()
    model.fit(*data, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for m in (model, loaded):
        m.fit(*data, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_array_equal(nets.flat(loaded.weights), nets.flat(model.weights))


@pytest.mark.usefixtures("eagerly")
def test_a_call_builds_by_the_dtypes_that_it_is_given():
    model = compiled(OfTokens)
    tokens = [nets.inputs("attention"), nets.inputs("attention", seed=2)]
    assert model(tokens).shape == (nets.BATCH, nets.CLASSES)
    assert model.built
    assert np.isfinite(model.fit(tokens, nets.labels(), verbose=0).history["loss"][0])


def test_a_build_that_fails_leaves_the_model_unbuilt():
    model = compiled(OfTokens)
    with pytest.raises(Exception, match="no tokens"):
        model.build([(None, 5), (None, 5)])
    assert not model.built


# Inputs, outputs and layers


def functional():
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    hidden = layers.Dense(5, activation="tanh", name="hidden")(x)
    return keras.Model(x, layers.Dense(nets.CLASSES, name="out")(hidden))


BY_NAME = [
    {"loss": {"out": nets.loss()}, "metrics": {"out": ["accuracy"]}},
    {
        "loss": {"out": nets.loss()},
        "loss_weights": {"out": 0.5},
        "weighted_metrics": {"out": "accuracy"},
    },
]


@pytest.mark.matrix
@pytest.mark.parametrize("arguments", BY_NAME)
@pytest.mark.usefixtures("eagerly")
def test_losses_and_metrics_are_taken_by_the_name_of_the_output(arguments):
    plain, model = functional(), FisherPenaltyModel(functional(), alpha=0.0)
    for m in (plain, model):
        m.compile("sgd", **arguments)
    data = nets.inputs("dense"), nets.labels()
    expected = plain.fit(*data, shuffle=False, verbose=0).history
    found = model.fit(*data, shuffle=False, verbose=0).history
    assert found == {**expected, "penalty": [0.0]}


SYMBOLIC = ["inputs", "input_shape", "outputs", "output_shape", "output_names"]


@pytest.mark.parametrize("build", [functional, nets.dense, without_input, nets.Subclassed])
@pytest.mark.parametrize("name", SYMBOLIC)
def test_inputs_and_outputs_are_the_backbones_where_it_has_them(build, name):
    backbone = build()
    model = FisherPenaltyModel(backbone)
    assert hasattr(model, name) == hasattr(backbone, name)
    if hasattr(backbone, name):
        assert getattr(model, name) is getattr(backbone, name) or name.endswith("shape")
        assert getattr(model, name) == getattr(backbone, name)


def test_layers_are_found_by_name_and_index():
    model = FisherPenaltyModel(functional())
    hidden = model.backbone.layers[1]
    assert model.get_layer("hidden") is hidden
    assert model.get_layer(index=1) is hidden
    assert model.get_layer(model.backbone.name) is model.backbone
    with pytest.raises(ValueError, match="No such layer: other"):
        model.get_layer("other")
    features = keras.Model(model.inputs, model.get_layer("hidden").output)
    x = nets.inputs("dense")
    np.testing.assert_array_equal(nets.array(features(x)), nets.array(hidden(x)))


def test_a_larger_model_holds_it_as_any_layer():
    model = FisherPenaltyModel(nets.build("dense"))
    outer = keras.Sequential([keras.Input((4,)), model, layers.Softmax()])
    x = nets.inputs("dense")
    expected = keras.ops.softmax(model.backbone(x))
    np.testing.assert_allclose(nets.array(outer(x)), nets.array(expected), rtol=1e-6)


@pytest.mark.usefixtures("eagerly")
def test_the_number_of_weights_is_that_of_the_backbone_whatever_is_looked_at(tmp_path):
    model = FisherPenaltyModel(functional())
    [getattr(model, name) for name in SYMBOLIC]
    model.compile("sgd", nets.loss())
    model.train_on_batch(nets.inputs("dense"), nets.labels())
    assert [id(w) for w in model.weights] == [id(w) for w in model.backbone.weights]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is FisherPenaltyModel
    np.testing.assert_array_equal(nets.flat(loaded.weights), nets.flat(model.weights))
