import numpy as np
import pytest

from keras_fisher.data import uniform_label_noise

NUM_CLASSES = 10


@pytest.fixture
def y():
    return np.random.default_rng(1).integers(NUM_CLASSES, size=20_000).astype("int32")


@pytest.mark.parametrize("fraction", [0, 0.25, 0.33338, 1])
def test_exactly_the_rounded_fraction_is_redrawn(y, fraction):
    y_noisy, is_noisy = uniform_label_noise(y, fraction, NUM_CLASSES, seed=0)
    assert is_noisy.sum() == round(fraction * len(y))
    assert is_noisy.dtype == bool
    np.testing.assert_array_equal(y_noisy[~is_noisy], y[~is_noisy])


def test_redrawn_labels_are_uniform_whatever_the_true_label():
    true_label = 3
    y = np.full(20_000, true_label)
    y_noisy, is_noisy = uniform_label_noise(y, 0.5, NUM_CLASSES, seed=0)
    counts = np.bincount(y_noisy[is_noisy], minlength=NUM_CLASSES)
    expected = is_noisy.sum() / NUM_CLASSES
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 27.9  # the 0.999 quantile with 9 degrees of freedom
    assert counts[true_label] > 0  # a re-drawn label may be the true one


def test_noisy_examples_are_spread_over_the_whole_array(y):
    _, is_noisy = uniform_label_noise(y, 0.5, NUM_CLASSES, seed=0)
    per_tenth = is_noisy.reshape(10, -1).sum(axis=1)
    assert np.all(np.abs(per_tenth - 1000) < 5 * np.sqrt(500))


def test_it_is_a_pure_function_of_the_seed(y):
    before = y.copy()
    first, again = (uniform_label_noise(y, 0.5, NUM_CLASSES, seed=3) for _ in range(2))
    other = uniform_label_noise(y, 0.5, NUM_CLASSES, seed=4)
    np.testing.assert_array_equal(first, again)
    assert np.any(first[1] != other[1])
    np.testing.assert_array_equal(y, before)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_the_dtype_is_kept(y, dtype):
    y_noisy, _ = uniform_label_noise(y.astype(dtype), 0.5, NUM_CLASSES, seed=0)
    assert y_noisy.dtype == dtype


def test_no_labels_at_all():
    y_noisy, is_noisy = uniform_label_noise(np.array([], dtype=int), 0.5, NUM_CLASSES, seed=0)
    assert y_noisy.shape == is_noisy.shape == (0,)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"fraction": -0.1}, ValueError, "`fraction`.*-0.1"),
        ({"fraction": 1.1}, ValueError, "`fraction`.*1.1"),
        ({"fraction": float("nan")}, ValueError, "`fraction`.*nan"),
        ({"fraction": "half"}, TypeError, "`fraction`.*half"),
        ({"fraction": True}, TypeError, "`fraction`.*True"),
        ({"num_classes": 1}, ValueError, "`num_classes`.*>= 2.*1"),
        ({"num_classes": 10.0}, TypeError, "`num_classes`.*10.0"),
        ({"seed": -1}, ValueError, "`seed`.*-1"),
        ({"seed": None}, TypeError, "`seed`.*None"),
        ({"y": [0, 1]}, TypeError, "`y`.*list"),
        ({"y": np.array([0.0, 1.0])}, TypeError, "`y`.*float64"),
        ({"y": np.zeros((4, 1), int)}, ValueError, r"`y`.*\(4, 1\)"),
        ({"y": np.array([0, 10])}, ValueError, r"`y`.*\[0, 10\).*label 10 at"),
        ({"y": np.array([-1, 2])}, ValueError, "`y`.*label -1 at"),
        ({"y": np.array([0], "int8"), "num_classes": 200}, ValueError, "`y`.*200.*int8"),
    ],
)
def test_errors_name_the_argument_and_what_was_given(changed, error, message):
    arguments = {"y": np.array([0, 1]), "fraction": 0.5, "num_classes": 10, "seed": 0}
    with pytest.raises(error, match=message):
        uniform_label_noise(**(arguments | changed))
