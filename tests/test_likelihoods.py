import functools
import math

import keras
import numpy as np
import pytest
from keras import losses, ops
from keras.backend import standardize_dtype

import keras_fisher as kf
from keras_fisher import likelihoods
from keras_fisher.likelihoods import Bernoulli, Categorical, Gaussian
from tests import reference

DRAWS = 20_000
# Chi-square's 99.9th percentile, by degrees of freedom.
CRITICAL = {1: 10.83, 2: 13.82, 11: 31.26}

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(6, 4)).astype("float32")
TIMED_LOGITS = RANDOM.normal(size=(6, 5, 4)).astype("float32")
CLASSES = RANDOM.integers(0, 4, 6)
TIMED_CLASSES = RANDOM.integers(0, 4, (6, 5))
BITS = RANDOM.integers(0, 2, (6, 4))
ONE_HOT, TIMED_ONE_HOT = np.eye(4)[CLASSES], np.eye(4)[TIMED_CLASSES]
SOFT = RANDOM.dirichlet(np.ones(4), 6)
INPUTS = RANDOM.normal(size=(6, 4)).astype("float32")


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def sparse(from_logits):
    return losses.SparseCategoricalCrossentropy(from_logits=from_logits)


def one_hot(from_logits):
    return losses.CategoricalCrossentropy(from_logits=from_logits)


def binary(from_logits):
    return losses.BinaryCrossentropy(from_logits=from_logits)


CASES = {
    "classes, logits": (sparse(True), CLASSES, LOGITS),
    "classes, probabilities": (sparse(False), CLASSES, softmax(LOGITS)),
    "classes with a trailing axis": (sparse(True), CLASSES[:, None], LOGITS),
    "one-hot, logits": (one_hot(True), ONE_HOT, LOGITS),
    "one-hot, probabilities": (one_hot(False), ONE_HOT, softmax(LOGITS)),
    "soft targets": (one_hot(True), SOFT, LOGITS),
    "targets corrected for noise": (one_hot(True), 1.5 * SOFT - 0.1, LOGITS),
    "classes over time, logits": (sparse(True), TIMED_CLASSES, TIMED_LOGITS),
    "classes over time, probabilities": (sparse(False), TIMED_CLASSES, softmax(TIMED_LOGITS)),
    "classes over time with a trailing axis": (
        sparse(True),
        TIMED_CLASSES[..., None],
        TIMED_LOGITS,
    ),
    "one-hot over time": (one_hot(True), TIMED_ONE_HOT, TIMED_LOGITS),
    "bits, logits": (binary(True), BITS, LOGITS),
    "bits, probabilities": (binary(False), BITS, sigmoid(LOGITS)),
    "bits without the trailing axis": (binary(True), BITS[:, 0], LOGITS[:, :1]),
    "bits over time": (binary(True), TIMED_ONE_HOT, TIMED_LOGITS),
    "numbers": (losses.MeanSquaredError(), SOFT, LOGITS),
    "numbers without the trailing axis": (losses.MeanSquaredError(), SOFT[:, 0], LOGITS[:, :1]),
    "numbers over time": (losses.MeanSquaredError(), TIMED_ONE_HOT, TIMED_LOGITS),
}
# Heads that Keras's losses divide by their sum: sigmoids, some of them saturated; positive ones.
UNNORMALISED = np.array(
    [[0.2, 0.3, 0.9], [1e-9, 0.5, 0.1], [1.0, 1.0, 0.3], [0.5, 3.0, 0.1], [2.0, 7.0, 4.0]],
    "float32",
)
UNNORMALISED_CLASSES = np.array([0, 0, 1, 1, 2])
UNNORMALISED_CASES = {
    "classes": (sparse(False), UNNORMALISED_CLASSES, UNNORMALISED),
    "one-hot": (one_hot(False), np.eye(3)[UNNORMALISED_CLASSES], UNNORMALISED),
    "soft": (one_hot(False), SOFT[:5, :3], UNNORMALISED),
    "over time": (sparse(False), np.array([[0, 1, 2, 0, 1]]), UNNORMALISED[None]),
}
TIMED_CASES = {name: case for name, case in CASES.items() if "over time" in name}


def parametrize(cases):
    return pytest.mark.parametrize(("loss", "labels", "outputs"), cases.values(), ids=cases.keys())


@parametrize(CASES)
def test_nll_of_each_example_and_their_mean_are_kerass_losses(loss, labels, outputs):
    nll = np.asarray(likelihoods.from_loss(loss).nll(labels, outputs))
    alone = [float(loss(labels[i : i + 1], outputs[i : i + 1])) for i in range(6)]
    np.testing.assert_allclose(nll, alone, rtol=1e-5)
    assert nll.mean() == pytest.approx(float(loss(labels, outputs)), rel=1e-5)


@parametrize(UNNORMALISED_CASES)
def test_probabilities_that_do_not_sum_to_one_are_divided_as_in_kerass_loss(loss, labels, outputs):
    nll = likelihoods.from_loss(loss).observation_nll(labels, outputs)
    kerass = loss.call(ops.convert_to_tensor(labels), ops.convert_to_tensor(outputs))
    np.testing.assert_allclose(nll, kerass, rtol=1e-5)
    by_nll, by_loss = (
        reference.gradients_at(lambda at, f=f: ops.sum(f(labels, at)), [outputs])[0]
        for f in (likelihoods.from_loss(loss).observation_nll, loss.call)
    )
    np.testing.assert_allclose(by_nll, by_loss, rtol=1e-5, atol=1e-6)


@parametrize({name: UNNORMALISED_CASES[name] for name in ("classes", "one-hot")})
def test_the_outcomes_of_unnormalised_probabilities_are_those_of_the_loss(loss, labels, outputs):
    likelihood = likelihoods.from_loss(loss)
    classes = [np.full(5, k) for k in range(3)]
    of_loss = [
        np.exp(-np.asarray(loss.call(np.eye(3)[k] if labels.ndim == 2 else k, outputs)))
        for k in classes
    ]
    for k in range(3):
        same, p = likelihood.outcome(k, outputs)
        np.testing.assert_array_equal(same, classes[k])
        np.testing.assert_allclose(p, of_loss[k], rtol=1e-5)
        np.testing.assert_allclose(p, np.exp(-np.asarray(likelihood.nll(same, outputs))), rtol=1e-5)
    for row, p in zip(outputs, np.transpose(of_loss), strict=True):
        drawn = np.bincount(draw(likelihood, row), minlength=3)
        assert chi_square(drawn[p > 1e-6], p[p > 1e-6]) < CRITICAL[2]


@parametrize(TIMED_CASES)
def test_masked_nll_is_kerass_masked_loss(loss, labels, outputs):
    mask = np.random.default_rng(1).random((6, 5)) < 0.6
    mask[2] = False
    masked_outputs = ops.convert_to_tensor(outputs)
    masked_outputs._keras_mask = ops.convert_to_tensor(mask)  # as layers attach it
    nll = likelihoods.from_loss(loss).nll(labels, masked_outputs)
    assert np.asarray(nll).mean() == pytest.approx(float(loss(labels, masked_outputs)), rel=1e-5)
    assert float(nll[2]) == 0.0


@parametrize(CASES)
def test_the_terms_of_an_examples_observations_sum_to_its_nll(loss, labels, outputs):
    likelihood = likelihoods.from_loss(loss)
    terms = likelihood.nll_terms(labels, outputs)
    assert terms.shape == (6, math.prod(likelihood.observation_nll(labels, outputs).shape[1:]))
    np.testing.assert_allclose(
        np.asarray(terms).sum(axis=1), likelihood.nll(labels, outputs), rtol=1e-5
    )


@parametrize(TIMED_CASES)
def test_masked_terms_are_those_of_the_example_without_its_padding(loss, labels, outputs):
    lengths = (5, 1, 3, 0, 2, 4)
    masked_outputs = ops.convert_to_tensor(outputs)
    masked_outputs._keras_mask = ops.arange(5) < ops.expand_dims(lengths, -1)
    likelihood = likelihoods.from_loss(loss)
    terms = np.asarray(likelihood.nll_terms(labels, masked_outputs)).reshape(6, 5, -1)
    for i, length in enumerate(lengths):
        assert np.all(terms[i, length:] == 0.0)
        if length:
            row, kept = slice(i, i + 1), slice(0, length)
            alone = likelihood.nll_terms(labels[row, kept], outputs[row, kept])
            np.testing.assert_allclose(terms[i, kept].ravel(), np.ravel(alone), rtol=1e-5)


@pytest.mark.parametrize("variance", [0.5, 2.0])
def test_gaussian_nll_is_the_log_density_up_to_a_constant(variance):
    labels, mean = np.array([[0.3], [2.0]]), np.array([[1.0], [-1.0]])
    expected = (labels - mean)[:, 0] ** 2 / (2 * variance)
    np.testing.assert_allclose(Gaussian(variance).nll(labels, mean), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    "likelihood", [Categorical(), Categorical(False), Bernoulli(), Bernoulli(False), Gaussian()]
)
def test_half_precision_outputs_give_float32_nll(likelihood, dtype):
    outputs = ops.cast(softmax(LOGITS), dtype)
    nll = likelihood.nll(ONE_HOT, outputs)
    assert standardize_dtype(nll.dtype) == "float32"
    np.testing.assert_allclose(nll, likelihood.nll(ONE_HOT, ops.cast(outputs, "float32")))


def scores(likelihood, labels, outputs):
    """Gradients of the negative log-likelihoods by the outputs; shape of the outputs."""
    [found] = reference.gradients_at(
        lambda at: ops.sum(likelihood.observation_nll(labels, at)), [outputs]
    )
    return found


def expected_squares(likelihood, outputs):
    """The expectation of s s^T over outcomes, s on the last axis, and that of s."""
    squares, mean, total = 0.0, 0.0, 0.0
    for k in range(likelihood.num_outcomes(outputs)):
        labels, p = likelihood.outcome(k, outputs)
        s, p = scores(likelihood, labels, outputs), np.asarray(p)
        total = total + p
        p = p if p.shape == s.shape else p[..., None]
        squares = squares + p[..., None] * s[..., :, None] * s[..., None, :]
        mean = mean + p * s
    return squares, mean, total


@pytest.mark.parametrize("logits", [LOGITS, TIMED_LOGITS])
def test_the_outcomes_of_a_class_give_its_fisher_information(logits):
    squares, mean, total = expected_squares(Categorical(), logits)
    p = softmax(logits)
    exact = p[..., :, None] * np.eye(4) - p[..., :, None] * p[..., None, :]
    np.testing.assert_allclose(squares, exact, atol=1e-6)
    np.testing.assert_allclose(mean, 0.0, atol=1e-6)
    np.testing.assert_allclose(total, 1.0, rtol=1e-6)


@pytest.mark.parametrize("logits", [LOGITS, TIMED_LOGITS])
def test_the_outcomes_of_bits_give_their_fisher_information(logits):
    squares, mean, total = expected_squares(Bernoulli(), logits)
    p = sigmoid(logits)
    # The components are one observation each: the diagonal is what their outcomes give.
    diagonal = np.diagonal(squares, axis1=-2, axis2=-1)
    np.testing.assert_allclose(diagonal, p * (1 - p), atol=1e-6)
    np.testing.assert_allclose(mean, 0.0, atol=1e-6)
    np.testing.assert_allclose(total, 1.0, rtol=1e-6)


@pytest.mark.parametrize("variance", [0.5, 4.0])
def test_the_outcome_of_numbers_gives_their_fisher_information(variance):
    squares, _, total = expected_squares(Gaussian(variance), LOGITS)
    diagonal = np.diagonal(squares, axis1=-2, axis2=-1)
    np.testing.assert_allclose(diagonal, 1 / variance, rtol=1e-5)
    np.testing.assert_allclose(total, 1.0)


@pytest.mark.parametrize(
    ("by_logits", "by_probabilities", "probabilities"),
    [
        (Categorical(), Categorical(from_logits=False), softmax),
        (Bernoulli(), Bernoulli(from_logits=False), sigmoid),
    ],
)
def test_outcomes_are_the_same_by_logits_and_by_probabilities(
    by_logits, by_probabilities, probabilities
):
    assert by_logits.num_outcomes(LOGITS) == by_probabilities.num_outcomes(LOGITS)
    for k in range(by_logits.num_outcomes(LOGITS)):
        labels, p = by_logits.outcome(k, LOGITS)
        same_labels, same_p = by_probabilities.outcome(k, probabilities(LOGITS))
        np.testing.assert_array_equal(labels, same_labels)
        np.testing.assert_allclose(p, same_p, rtol=1e-5)


def test_the_outcomes_of_bits_have_probabilities_where_the_outputs_are_none():
    outputs = np.array([[-0.5, 0.25, 1.5]], "float32")
    likelihood = Bernoulli(from_logits=False)
    for bit in (0, 1):
        labels, p = likelihood.outcome(bit, outputs)
        np.testing.assert_allclose(
            p, np.exp(-np.asarray(likelihood.observation_nll(labels, outputs))), rtol=1e-5
        )


@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli(), Gaussian()])
def test_an_outcome_may_be_chosen_by_a_tensor(likelihood):
    chosen = reference.compiled(lambda k: likelihood.outcome(k, TIMED_LOGITS))
    last = likelihood.num_outcomes(TIMED_LOGITS) - 1
    for found, exact in zip(
        chosen(ops.convert_to_tensor(last)), likelihood.outcome(last, TIMED_LOGITS), strict=True
    ):
        np.testing.assert_allclose(found, exact, rtol=1e-6)


@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli(), Gaussian()])
def test_half_precision_outputs_give_float32_terms_and_probabilities(likelihood):
    outputs = ops.cast(LOGITS, "float16")
    labels, p = likelihood.outcome(0, outputs)
    terms = likelihood.nll_terms(labels, outputs)
    assert standardize_dtype(p.dtype) == standardize_dtype(terms.dtype) == "float32"


@pytest.mark.parametrize("shape", [(6, 3), (6, 5, 3), (5,)])
def test_classes_of_another_shape_than_the_positions_are_refused(shape):
    outputs = LOGITS if len(shape) > 1 else TIMED_LOGITS
    with pytest.raises(ValueError, match=r"`y` must hold a class for each.*Received: .*\(6, "):
        Categorical().nll(np.zeros(shape, "int32"), outputs)


def chi_square(counts, probabilities):
    expected = np.asarray(probabilities, "float64") * np.sum(counts)
    return np.sum((counts - expected) ** 2 / expected)


def draw(likelihood, outputs, uniform=False):
    """Draws DRAWS labels for one example's outputs."""
    seed = keras.random.SeedGenerator(3)
    sample = likelihood.sample_uniform if uniform else likelihood.sample
    return np.asarray(sample(ops.repeat(outputs[None], DRAWS, axis=0), seed))


@pytest.mark.parametrize("from_logits", [True, False])
def test_categorical_draws_follow_the_prediction(from_logits):
    p = np.array([0.2, 0.7, 0.1], "float32")
    drawn = draw(Categorical(from_logits), np.log(p) if from_logits else p)
    assert drawn.shape == (DRAWS,)
    assert chi_square(np.bincount(drawn, minlength=3), p) < CRITICAL[2]


def test_categorical_draws_each_position_by_itself():
    p = np.array([[0.2, 0.7, 0.1], [0.6, 0.15, 0.25]], "float32")
    drawn = draw(Categorical(from_logits=False), p)
    assert drawn.shape == (DRAWS, 2)
    for position in range(2):
        counts = np.bincount(drawn[:, position], minlength=3)
        assert chi_square(counts, p[position]) < CRITICAL[2]
    pairs = np.bincount(3 * drawn[:, 0] + drawn[:, 1], minlength=9)
    assert chi_square(pairs, np.outer(*p).ravel()) < CRITICAL[11]  # 8 degrees: stricter still


@pytest.mark.parametrize("from_logits", [True, False])
def test_bernoulli_draws_follow_the_prediction(from_logits):
    p = np.array([0.1, 0.5, 0.85], "float32")
    drawn = draw(Bernoulli(from_logits), np.log(p / (1 - p)) if from_logits else p)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    for component in range(3):
        ones = drawn[:, component].sum()
        q = p[component]
        assert chi_square(np.array([DRAWS - ones, ones]), [1 - q, q]) < CRITICAL[1]


@pytest.mark.parametrize("variance", [0.5, 4.0])
def test_gaussian_draws_have_the_outputs_as_mean_and_the_given_variance(variance):
    mean = np.array([-3.0, 7.0], "float32")
    drawn = draw(Gaussian(variance), mean)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=4 * (variance / DRAWS) ** 0.5)
    np.testing.assert_allclose(drawn.var(0), variance, rtol=4 * (2 / DRAWS) ** 0.5)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 4 / DRAWS**0.5


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_uniform_classes_ignore_the_prediction(shape):
    outputs = np.broadcast_to(np.array([-5.0, 5.0, 0.0], "float32"), shape)
    drawn = draw(Categorical(), outputs, uniform=True)
    assert drawn.shape == (DRAWS, *shape[:-1])
    for position in drawn.reshape(DRAWS, -1).T:
        assert chi_square(np.bincount(position, minlength=3), np.full(3, 1 / 3)) < CRITICAL[2]


def test_uniform_bits_ignore_the_prediction():
    drawn = draw(Bernoulli(), np.array([-5.0, 5.0], "float32"), uniform=True)
    for ones in drawn.sum(0):
        assert chi_square(np.array([DRAWS - ones, ones]), [0.5, 0.5]) < CRITICAL[1]


@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli(), Gaussian()])
def test_labels_are_drawn_afresh_by_each_call_and_again_by_the_same_seed(likelihood):
    seed, same = keras.random.SeedGenerator(1), keras.random.SeedGenerator(1)
    outputs = np.zeros((50, 4), "float32")
    first, second = likelihood.sample(outputs, seed), likelihood.sample(outputs, seed)
    assert np.any(np.asarray(first) != np.asarray(second))
    np.testing.assert_array_equal(first, likelihood.sample(outputs, same))


@pytest.mark.parametrize("compile_function", [lambda f: f, reference.compiled])
def test_a_certain_prediction_is_always_drawn(compile_function):
    outputs = np.array([[-1e4, 1e4, -1e4]] * 1000, "float32")
    seed = keras.random.SeedGenerator(0)
    drawn = compile_function(lambda: Categorical().sample(outputs, seed))()
    assert np.all(np.asarray(drawn) == 1)


FROM_LOSS = [
    ("sparse_categorical_crossentropy", Categorical, {"from_logits": False}),
    (losses.sparse_categorical_crossentropy, Categorical, {"from_logits": False}),
    (sparse(False), Categorical, {"from_logits": False}),
    (sparse(True), Categorical, {"from_logits": True}),
    ("categorical_crossentropy", Categorical, {"from_logits": False}),
    (losses.categorical_crossentropy, Categorical, {"from_logits": False}),
    (one_hot(True), Categorical, {"from_logits": True}),
    ("binary_crossentropy", Bernoulli, {"from_logits": False}),
    (losses.binary_crossentropy, Bernoulli, {"from_logits": False}),
    (binary(True), Bernoulli, {"from_logits": True}),
    ("mse", Gaussian, {"variance": 0.5}),
    ("mean_squared_error", Gaussian, {"variance": 0.5}),
    (losses.mean_squared_error, Gaussian, {"variance": 0.5}),
    (losses.MeanSquaredError(), Gaussian, {"variance": 0.5}),
    (losses.CategoricalCrossentropy(label_smoothing=0.1), Categorical, {"from_logits": False}),
]


@pytest.mark.parametrize(("loss", "kind", "config"), FROM_LOSS)
def test_likelihood_of_a_loss_by_name_function_or_object(loss, kind, config):
    likelihood = likelihoods.from_loss(loss)
    assert type(likelihood) is kind
    assert likelihood.get_config() == config


def test_a_missing_loss_is_asked_for():
    with pytest.raises(ValueError, match=r"`loss` must be compiled.*loss=None.*likelihood="):
        likelihoods.from_loss(None)


class Weighted(losses.SparseCategoricalCrossentropy):
    def call(self, y_true, y_pred):
        return 2.0 * super().call(y_true, y_pred)


class Capped(losses.MeanSquaredError):
    def __call__(self, y_true, y_pred, sample_weight=None):
        return ops.minimum(super().__call__(y_true, y_pred, sample_weight), 1.0)


class Logits(losses.BinaryCrossentropy):
    def __init__(self):
        super().__init__(from_logits=True)

    def get_config(self):
        return {}


def with_attribute(loss, name, value):
    setattr(loss, name, value)
    return loss


UNKNOWN = {
    "a function with options": functools.partial(
        losses.sparse_categorical_crossentropy, from_logits=True
    ),
    "no loss's name": "crossentropy",
    "a dictionary of two": {"a": "mse", "b": "mse"},
    "a list of two": ["mse", "mse"],
    # Known losses that compute something else.
    "another call": Weighted(),
    "another __call__": Capped(),
    "another call of an object": with_attribute(
        sparse(True), "call", lambda y, p: ops.sum(p, axis=-1)
    ),
    "another function": with_attribute(
        sparse(True), "fn", losses.sparse_categorical_crossentropy.__call__
    ),
}


@pytest.mark.parametrize("loss", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_other_losses_have_no_known_likelihood(loss):
    with pytest.raises(ValueError, match=r"`loss` is not known. Received: .*likelihood="):
        likelihoods.from_loss(loss)


def test_a_subclass_that_only_sets_arguments_computes_what_its_parent_does():
    likelihood = likelihoods.from_loss(Logits())
    assert (type(likelihood), likelihood.get_config()) == (Bernoulli, {"from_logits": True})


class OrdinalLoss(losses.BinaryCrossentropy):
    def call(self, y_true, y_pred):
        return super().call(y_true, y_pred)


@pytest.mark.parametrize(
    ("loss", "advice"),
    [
        (losses.Huber(), r"Gaussian\(\), which penalises by squared errors"),
        ("mae", r"Gaussian\(\), .* Laplace"),
        ("log_cosh", r"Gaussian\(\)"),
        ("msle", r"Gaussian\(\)"),
        ("binary_focal_crossentropy", r"Bernoulli\(from_logits=False\)"),
        (losses.BinaryFocalCrossentropy(from_logits=True), r"Bernoulli\(\)"),
        (losses.CategoricalFocalCrossentropy(), r"Categorical\(from_logits=False\)"),
        (losses.Dice(), r"Bernoulli\(from_logits=False\) for masks .* Categorical\(from"),
        (losses.Tversky(), r"Bernoulli\(from_logits=False\) for masks .* Categorical\(from"),
        ("poisson", r"a subclass of Likelihood of your own that draws counts"),
        (losses.KLDivergence(), r"Categorical\(from_logits=False\)"),
        ("hinge", r"a subclass of Likelihood of your own, because this loss is no"),
        (losses.CTC(), r"a subclass of Likelihood of your own, because this loss is no"),
        (OrdinalLoss(), r"Bernoulli\(from_logits=False\) for one output per threshold"),
        (Weighted(), r"Categorical\(from_logits=.*\) or Bernoulli\(from_logits=.*\) if"),
        (lambda y, p: p, r"Categorical\(from_logits=...\) for one class .* Gaussian\(\)"),
    ],
)
def test_an_unknown_loss_is_answered_with_the_likelihood_to_give(loss, advice):
    with pytest.raises(ValueError, match=rf"For this loss: {advice}"):
        likelihoods.from_loss(loss)


@pytest.mark.parametrize(
    "loss",
    [
        losses.CategoricalCrossentropy(axis=1),
        losses.BinaryCrossentropy(axis=1),
        losses.SparseCategoricalCrossentropy(axis=1),
    ],
)
def test_losses_over_other_observations_are_refused(loss):
    with pytest.raises(ValueError, match=r"`loss` is known for axis=.*Received: .*axis="):
        likelihoods.from_loss(loss)


@pytest.mark.parametrize(
    "likelihood",
    [Categorical(False), Categorical(ignore_class=-1), Bernoulli(False), Gaussian(2.0)],
)
def test_likelihood_survives_serialisation(likelihood):
    serialised = keras.saving.serialize_keras_object(likelihood)
    again = keras.saving.deserialize_keras_object(serialised)
    assert type(again) is type(likelihood)
    assert again.get_config() == likelihood.get_config()


@pytest.mark.parametrize(
    ("variance", "error"),
    [
        *((value, ValueError) for value in (0, -1.0, np.nan, np.inf)),
        *((value, TypeError) for value in ("1", None)),
    ],
)
def test_variance_must_be_a_finite_number_above_0(variance, error):
    with pytest.raises(error, match=r"`variance` must be .*Received:"):
        Gaussian(variance)


def test_a_class_that_is_ruled_out_counts_only_where_it_is_the_label():
    logits = np.array([[1.0, 0.0, -np.inf]], "float32")
    expected = np.log1p(np.exp(1.0))
    for labels in (np.array([1]), np.array([[0.0, 1.0, 0.0]])):
        assert np.asarray(Categorical().nll(labels, logits)) == pytest.approx([expected], rel=1e-6)


def test_the_loss_of_the_only_output_may_stand_in_a_list_or_dictionary():
    for loss in (["mse"], {"output": "mse"}):
        assert likelihoods.from_loss(loss).get_config() == {"variance": 0.5}


@pytest.mark.parametrize("name", ["nll", "counted_nll", "nll_terms", "mean_nll"])
def test_a_likelihood_cannot_override_what_follows_from_its_observations(name):
    with pytest.raises(TypeError, match=f"`observation_nll` .*Mine, which overrides `{name}`"):
        type("Mine", (Categorical,), {name: lambda *arguments: 0.0})


def compile_with(activation, loss):
    dense = keras.layers.Dense(4, kernel_initializer=keras.initializers.RandomNormal(stddev=4.0))
    model = keras.Sequential([keras.Input((4,)), dense, keras.layers.Activation(activation)])
    model.compile("sgd", loss)
    return model


@pytest.mark.filterwarnings("ignore:.*from_logits=True:UserWarning")
@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize(
    ("activation", "loss", "labels"),
    [
        ("softmax", losses.SparseCategoricalCrossentropy, CLASSES),
        ("softmax", losses.CategoricalCrossentropy, ONE_HOT),
        ("sigmoid", losses.BinaryCrossentropy, ONE_HOT),
    ],
)
def test_the_likelihood_is_the_loss_behind_an_activation(activation, loss, labels, from_logits):
    model = compile_with(activation, loss(from_logits=from_logits))
    outputs = model(INPUTS)
    found = likelihoods.from_loss(model.loss).mean_nll(labels, outputs)
    loss_of_keras = model.compute_loss(INPUTS, labels, outputs)
    convert = ops.convert_to_numpy
    assert convert(found) == pytest.approx(convert(loss_of_keras), rel=1e-5)


@pytest.mark.parametrize("likelihood", [Gaussian(), Bernoulli()])
@pytest.mark.parametrize("shape", [(12,), (12, 2), (12, 1), (12, 3, 1, 1), (3,)])
def test_labels_are_not_broadcast_to_the_outputs(likelihood, shape):
    with pytest.raises(ValueError, match=r"`y` must hold a number for each output.*\(12, 3\)"):
        likelihood.nll(np.zeros(shape, "float32"), np.zeros((12, 3), "float32"))


def test_a_trailing_axis_of_length_1_may_be_missing_or_further():
    outputs = np.ones((12, 1), "float32")
    for shape in ((12,), (12, 1), (12, 1, 1)):
        np.testing.assert_allclose(Gaussian().nll(np.zeros(shape, "float32"), outputs), 1.0)


def test_one_hot_labels_have_no_class_to_ignore():
    with pytest.raises(ValueError, match=r"`y` must hold integer classes .* `ignore_class`"):
        Categorical(ignore_class=0).nll(ONE_HOT, LOGITS)


def test_a_measurement_refuses_labels_that_it_would_broadcast():
    model = compile_with("linear", "mse")
    with pytest.raises(ValueError, match="`y` must hold a number for each output"):
        kf.gradient_norm(model, (INPUTS, np.zeros(6)), batch_size=6)
