import numpy as np
import pytest

from keras_fisher.data import find_wrong_labels

P = np.array([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6], [0.2, 0.2, 0.6], [0.0, 1.0, 0.0]])
Y = np.array([0, 1, 2, 0])


def test_the_score_is_the_probability_of_the_label_against_its_strongest_rival():
    found = find_wrong_labels(P, Y)
    np.testing.assert_allclose(found.scores, [2 / 3, 1 / 3, 3 / 4, 0.0])
    np.testing.assert_array_equal(found.suggestions, [0, 2, 2, 1])
    np.testing.assert_array_equal(found.ranking, [3, 1, 0, 2])
    np.testing.assert_array_equal(found.is_suspect, [False, False, False, True])
    assert str(found) == "1 of 4 labels (25.0%) are probably wrong"


def binary(scores):
    """Probabilities with which label 0 has these scores."""
    scores = np.array(scores)
    return np.stack([scores, 1 - scores], axis=1), np.zeros(len(scores), int)


@pytest.mark.parametrize(
    ("scores", "suspects"),
    [
        ([0.1, 0.12, 0.4, 0.45, 0.48], [True, True, False, False, False]),  # all below 1/2
        ([0.6, 0.65, 0.9, 0.95, 0.9], [False] * 5),  # all above 1/2
        ([0.0, 1.0], [True, False]),
        ([0.5, 0.5, 0.9], [False] * 3),  # ties with the rival
        ([0.2, 0.2], [False] * 2),  # one group
        ([0.2], [False]),
    ],
)
def test_suspects_have_a_loss_of_the_higher_group_and_a_more_probable_rival(scores, suspects):
    np.testing.assert_array_equal(find_wrong_labels(*binary(scores)).is_suspect, suspects)


@pytest.mark.parametrize("seed", range(5))
def test_the_groups_have_the_least_variance_within(seed):
    scores = np.random.default_rng(seed).uniform(0, 0.5, 30)
    found, losses = find_wrong_labels(*binary(scores)).is_suspect, -np.log(scores)

    def within(is_high):
        return sum(len(g) * g.var() for g in (losses[is_high], losses[~is_high]))

    least = min(within(losses >= limit) for limit in np.sort(losses)[1:])
    assert within(found) == pytest.approx(least)


def test_an_example_whose_label_and_rival_are_impossible_is_not_suspect():
    found = find_wrong_labels(np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
    np.testing.assert_array_equal(found.scores, [0.5, 0.0])


@pytest.mark.parametrize(
    ("probabilities", "y", "message"),
    [
        (P[:2], Y, "`probabilities` and `y` must hold the same number"),
        (P[:0], Y[:0], "and at least one"),
        (P[:, :1], Y, "`probabilities` must be a float array of shape"),
        (P * np.nan, Y, r"`probabilities` must lie in \[0, 1\]"),
        (np.log(P + 0.1), Y, r"`probabilities` must lie in \[0, 1\]"),
        (P, Y + 1, "Labels in `y` must lie in"),
    ],
)
def test_bad_arrays_are_refused(probabilities, y, message):
    with pytest.raises(ValueError, match=message):
        find_wrong_labels(probabilities, y)
