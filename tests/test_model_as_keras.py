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
