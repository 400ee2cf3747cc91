import keras
import pytest

from keras_fisher.callbacks import AlphaScheduler, PenaltyRatio
from tests.callbacks.test_non_finite_guard import examples, fit, model_of


@pytest.mark.usefixtures("eagerly")
def test_the_ratio_of_the_model_is_logged_before_others_read_it(tmp_path):
    model, path = model_of(alpha=0.1), tmp_path / "log.csv"
    history = fit(model, examples(), keras.callbacks.CSVLogger(path), PenaltyRatio(), epochs=2)
    assert history.history["penalty_ratio"][-1] == model.penalty_ratio > 0.0
    assert "penalty_ratio" in path.read_text().splitlines()[0]


@pytest.mark.usefixtures("eagerly")
def test_an_epoch_without_a_penalty_has_the_ratio_0():
    late = AlphaScheduler(lambda epoch: 0.1 * epoch)
    history = fit(model_of(alpha=0.0), examples(), late, PenaltyRatio(), epochs=2).history
    assert history["penalty_ratio"][0] == 0.0 < history["penalty_ratio"][1]


def test_a_plain_model_is_refused():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(TypeError, match="PenaltyRatio needs a FisherPenaltyModel"):
        fit(model, examples(), PenaltyRatio())
