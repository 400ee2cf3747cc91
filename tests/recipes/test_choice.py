"""Ways to choose alpha, on curves made by hand."""

import math

import keras_tuner as kt
import numpy as np
import pandas as pd
import pytest
from experiment.plan.setting import Run
from experiment.results import choice, hyperband
from experiment.run.data import load_data
from experiment.run.sentences import LENGTH, PACKAGES, TEST, VOCABULARY, load_sentences

ALPHAS = (0.001, 0.01, 0.1, 1.0, 10.0)
EPOCHS = 12


def run(accuracies, end, **history):
    history = {"val_accuracy": list(accuracies), **history}
    return pd.Series({"history": history, "final_test_accuracy": end, "epochs": EPOCHS})


def case(crossing=7):
    """The alpha that is best at first is the one below the one that is best at the end."""
    ends = (0.3, 0.4, 0.6, 0.5, 0.1)
    proposed = [math.nan, 0.02] + [0.02] * (EPOCHS - 2)
    penalised = {
        alpha: run([0.55 if alpha == 0.01 and e < crossing else end for e in range(EPOCHS)], end)
        for alpha, end in zip(ALPHAS, ends, strict=True)
    }
    penalised[0.1]["history"]["val_accuracy"][:crossing] = [0.5] * crossing
    plain = run([0.3] * EPOCHS, 0.2, proposed_alpha=proposed)
    plain["optimizer"], plain["learning_rate"] = "sgd", 0.04
    limited = {0.2: run([], 0.35), 10.0: run([], 0.45)}
    return choice.Case(plain, penalised, limited, "val_accuracy")


def test_ways_without_a_search_cost_one_training():
    found = {title: way(case()) for title, way in choice.WAYS.items()}
    assert found["no penalty"] == (0.2, 1.0)
    assert found["alpha 0.01, the default"] == (0.4, 1.0)
    assert found["alpha {largest:g}, `max_penalty_ratio={limit:g}`"] == (0.45, 1.0)
    assert found["the middle of `alpha_range`"] == (0.4, 1 + 2 / EPOCHS)
    assert found["alpha 0.3, `max_penalty_ratio={limit:g}`"] == (0.35, 1.0)
    assert found["alpha = rate / (1 - momentum) / 4"] == (0.6, 1.0)  # 0.1
    assert found["all {count} (G.2)"] == (0.6, len(ALPHAS))


def test_halving_sees_only_the_epochs_it_has_paid_for():
    rungs = [(3, 2), (6, 1)]
    assert case(crossing=7).halve(ALPHAS, rungs)[-1] == (0.01, EPOCHS)
    assert case(crossing=4).halve(ALPHAS, rungs)[-1] == (0.1, EPOCHS)
    way = choice.plan_halving(choice.take_all, lambda epochs: rungs)
    assert way(case(crossing=4)) == (0.6, (4 * 3 + 6 + EPOCHS - 3) / EPOCHS)


def test_find_alpha_chooses_at_the_end_among_the_best_two_at_half():
    # The nearest to 0.03, 0.1 and 0.3 are 0.01, 0.1 and 0.1. Two candidates both train to the end.
    assert choice.find_alpha(case(crossing=7)) == (0.6, 2.0)


def test_hyperband_finds_the_best_alpha_at_the_price_of_several_trainings():
    accuracy, trainings = choice.run_hyperband(case(crossing=0))
    assert accuracy == 0.6
    # Brackets of 12, 4 and 2 trials until epochs 2, 4 and 12, of 6 and 2 until 4 and 12, and of 4
    # until 12. A trial that continues another one takes the epochs that are new.
    epochs = 12 * 2 + 4 * 2 + 2 * 8 + 6 * 4 + 2 * 8 + 4 * 12
    assert trainings == epochs / EPOCHS


@pytest.mark.parametrize("epochs", [1, 5, 12, 20, 40, 50, 100, 243])
def test_brackets_are_those_of_keras_tuner(epochs):
    oracle = kt.oracles.HyperbandOracle(kt.Objective("accuracy", "max"), max_epochs=epochs)
    expected = [
        [
            (oracle._get_size(bracket, number), oracle._get_epochs(bracket, number))
            for number in range(oracle._get_num_rounds(bracket))
        ]
        for bracket in reversed(range(oracle._get_num_brackets()))
    ]
    assert hyperband.list_brackets(epochs) == expected


def test_alphas_lie_around_the_proposed_one():
    assert choice.take_three(case()) == [0.001, 0.01, 0.1]
    assert case().find_nearest(0.5) == 1.0
    without = choice.Case(run([0.1], 0.1, proposed_alpha=[math.nan]), {0.01: run([], 0)}, {}, "")
    assert without.get_middle() == choice.DEFAULT


# ---- The data ------------------------------------------------------------------------------------


def test_sentences_are_padded_and_every_seed_has_the_same_test_set():
    splits, other = (load_sentences(300, 1000, seed) for seed in (0, 1))
    assert [len(part.y) for part in splits[:3]] == [1000, 300, TEST]
    assert splits.num_classes == len(PACKAGES) == len(set(splits.train.y))
    for part in splits[:3]:
        assert part.x.shape[1:] == (LENGTH,)
        assert part.x.max() < VOCABULARY
        is_word = part.x > 0
        assert (is_word[:, :-1] >= is_word[:, 1:]).all()  # padding comes last
    np.testing.assert_array_equal(splits.test.y, other.test.y)
    assert (splits.train.y != other.train.y).any()


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_noisy_validation_labels_are_as_noisy_as_asked(noise):
    setting = {"network": "mlp", "dataset": "digits", "validation_size": 300, "learning_rate": 0.1}
    data = load_data(Run(**setting, part="p", method="m", noise=noise))
    wrong = np.mean(data.noisy_validation[1] != data.validation[1])
    assert wrong == pytest.approx(0.9 * noise, abs=0.08)
