"""How well wrong labels are found, by recipes."""

import math

import keras
import numpy as np
import pandas as pd
import pytest
import wrong_labels
from experiment.run.data import load_data
from experiment.run.label_figures import FIGURES, HeldOutLabels, judge
from experiment.run.measures import LabelAccuracies

from tests.recipes.tiny import tiny, trained

TASK = {"noise": 0.5, "seed": 3, "data_seed": 3}


def test_figures_of_a_ranking_and_a_cut():
    is_wrong = np.array([True, False, True, False, False])
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5])  # 5 of 6 pairs are ranked right
    is_suspect = np.array([True, True, False, False, True])
    found = judge(scores, is_suspect, is_wrong)
    assert found == pytest.approx(dict(zip(FIGURES, (5 / 6, 1 / 2, 1 / 3, 1 / 2), strict=True)))


def test_every_example_is_held_out_once():
    whole = load_data(tiny(**TASK))
    parts = [load_data(tiny(**TASK, folds=4, fold=fold)) for fold in (1, 2, 3, 4)]
    for part in parts:
        both = np.concatenate([part.training[0], part.judged[0]])
        assert len(both) == len(whole.training[0])
        np.testing.assert_array_equal(np.unique(both, axis=0), np.unique(whole.training[0], axis=0))
    for kind in ("judged", "is_wrong"):
        found, expected = [getattr(part, kind) for part in parts], getattr(whole, kind)
        if kind == "judged":
            found, expected = [y for _, y in found], expected[1]
        assert sorted(np.concatenate(found)) == sorted(expected)


@pytest.mark.slow
def test_scores_of_a_training_are_judged_from_the_first_measurement_on(tmp_path):
    run = tiny(**TASK, measures={"label_scores": {}}, epochs=4)
    history = trained(run, tmp_path)["history"]
    assert 0.5 < history["label_auroc"][-1] <= 1
    assert 0.5 < history["loss_auroc"][-1] <= 1
    assert 0 < history["norm_auroc"][-1] <= 1


class Diverged:
    """A model whose outputs are NaN."""

    def predict(self, x, **options):
        return np.full((len(x), 10), np.nan, "float32")


@pytest.mark.parametrize(
    ("make", "judged"),
    [(lambda run, data: HeldOutLabels(data), math.nan), (LabelAccuracies, 0.0)],
)
def test_a_diverged_model_ranks_nothing_and_predicts_no_label(make, judged):
    run = tiny(**TASK, folds=3, fold=2)
    callback = make(run, load_data(run))
    callback.set_model(Diverged())
    logs = {"loss": judged}
    callback.on_epoch_end(0, logs)
    assert len(logs) > 3
    np.testing.assert_array_equal([*logs.values()], judged)


def test_the_accuracy_of_a_diverged_model_is_0():
    data = load_data(tiny(**TASK))
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])
    model(data.test.x[:1])
    assert 0 < data.test_accuracy(model) < 1
    model.layers[-1].bias.assign(np.full(10, np.nan))
    assert data.test_accuracy(model) == 0.0


def test_a_way_is_judged_at_the_end_even_if_its_cut_is_empty_there():
    runs = pd.DataFrame({"method": ["fp", "fp"], "seed": [0, 1]})
    precisions = ([0.5, math.nan], [0.6, 0.7])
    runs["history"] = [
        {"suspect_precision": precision, "val_accuracy": [0.1, 0.2]} for precision in precisions
    ]
    way = wrong_labels.Way("FP", "fp", ("suspect_precision",), lambda run: 0.0)
    np.testing.assert_array_equal(way.measure(runs)["suspect_precision"], [math.nan, 0.7])


def test_cleanlab_judges_the_part_that_is_held_out():
    data = load_data(tiny(**TASK, folds=3, fold=2))

    class Oracle:
        """Predicts the true class with a probability of almost 1."""

        def predict(self, x, **options):
            truth = {image.tobytes(): y for image, y in zip(*clean.training, strict=True)}
            return 20.0 * np.eye(10, dtype="float32")[[truth[image.tobytes()] for image in x]]

    clean = load_data(tiny(**TASK | {"noise": 0.0}))
    callback = HeldOutLabels(data)
    callback.set_model(Oracle())
    logs = {}
    callback.on_epoch_end(0, logs)
    assert logs == dict.fromkeys(FIGURES, 1.0)
