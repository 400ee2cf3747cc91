"""Padding is no data: what is masked, ignored or of weight 0 is in no penalty and no trace."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_fisher as kf
from tests import nets, reference

BATCH, TIME = 4, 5
LENGTHS = np.array([5, 2, 0, 3])  # the third example is padding altogether
PRESENT = np.arange(TIME) < LENGTHS[:, None]
FORMS = ("weight", "label", "mask")
TRACES = {
    "fisher, given": lambda *a: kf.fisher_trace(*a, labels="given"),
    "fisher, expected": lambda *a: kf.fisher_trace(*a, labels="expected"),
    "mini-batch": lambda *a: kf.minibatch_fisher_trace(*a, labels="given", batch_size=2),
    "gradient norm": lambda *a: kf.gradient_norm(*a, batch_size=2),
    "hessian": lambda *a: kf.hessian_trace(*a, num_probes=2, seed=0),
}


class MaskedBelow(layers.Layer):
    """Masks the positions whose inputs are all below -90."""

    def compute_mask(self, inputs, mask=None):
        return keras.ops.any(inputs > -90.0, axis=-1)

    def call(self, inputs):
        return keras.ops.maximum(inputs, -90.0) + 0.0 * inputs


def net(masked=False):
    keras.utils.set_random_seed(0)
    first = [MaskedBelow()] if masked else []
    return keras.Sequential(
        [
            keras.Input((TIME, 3)),
            *first,
            layers.Dense(4, activation="tanh"),
            layers.Dense(nets.CLASSES),
        ]
    )


def examples(form):
    """Inputs, labels and weights in which padding is marked in one of three forms."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(BATCH, TIME, 3)).astype(keras.config.floatx())
    y = generator.integers(0, nets.CLASSES, (BATCH, TIME))
    if form == "mask":
        x[~PRESENT] = -99.0
    if form == "label":
        y[~PRESENT] = -1
    return x, y, PRESENT.astype("float32") if form == "weight" else None


def loss(form):
    ignored = {"ignore_class": -1} if form == "label" else {}
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **ignored)


def gradient_of_data(form, rows, wrt):
    """The gradient of the mean over the positions of `rows` that are data."""
    x, y, _ = examples(form)
    model, kept = net(), PRESENT[:rows]

    def value(inputs):
        outputs = model(inputs, training=True)
        return nets.loss()(y[:rows][kept], outputs[kept])

    if wrt == "inputs":
        return nets.flat(reference.gradients_at(value, [x[:rows]]))
    return nets.flat(reference.gradients(lambda: value(x[:rows]), model.trainable_weights))


WAYS = {
    "whole": {},
    "of the first": {"penalty_batch_size": 3},
    "of a share": {"penalty_batch_size": 0.5},
    "in parts": {"micro_batch_size": 3},
    "of the first in parts": {"penalty_batch_size": 3, "micro_batch_size": 2},
}


CASES = [
    *((form, "gp", way, "exact") for form in FORMS for way in WAYS),
    *(("weight", penalty, "in parts", "finite_difference") for penalty in ("gp", "gp_x")),
    ("mask", "gp", "whole", "finite_difference"),
]


@pytest.mark.matrix
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("form", "penalty", "way", "gradient"), CASES)
def test_the_penalty_is_that_of_the_data_alone(form, penalty, way, gradient):
    rows = {"of the first": 3, "of a share": 2, "of the first in parts": 3}.get(way, BATCH)
    full = 3 if way.startswith("of the first") else BATCH
    wrt = "inputs" if penalty == "gp_x" else "weights"
    norm = np.sum(gradient_of_data(form, rows, wrt) ** 2)
    expected = norm * np.count_nonzero(LENGTHS[:rows]) / full
    x, y, weight = examples(form)
    model = kf.FisherPenaltyModel(
        net(form == "mask"), penalty=penalty, gradient=gradient, **WAYS[way]
    )
    model.compile(keras.optimizers.SGD(0.0), loss(form), run_eagerly=not reference.IS_JAX)
    logs = model.train_on_batch(x, y, weight, return_dict=True)
    assert logs["penalty"] == pytest.approx(expected, rel=1e-6)


def kept_gradient(form, labels, **arguments):
    x, y, weight = examples(form)
    y = np.where(PRESENT, y, labels)
    model = kf.FisherPenaltyModel(net(form == "mask"), penalty="gp", **arguments)
    is_eager = not reference.IS_JAX
    return nets.first_penalty(model, loss(form), x, y, weight, run_eagerly=is_eager)[1]


@pytest.mark.parametrize(("form", "way"), [("weight", "whole"), ("mask", "in parts")])
def test_labels_of_padding_change_nothing(form, way):
    found = [kept_gradient(form, labels, **WAYS[way]) for labels in (0, 2)]
    np.testing.assert_array_equal(*found)


def test_fractional_weights_leave_the_penalty_alone():
    def penalty(weight):
        x, y, _ = examples("weight")
        model = kf.FisherPenaltyModel(net(), penalty="gp")
        model.compile(keras.optimizers.SGD(0.0), loss("weight"), run_eagerly=not reference.IS_JAX)
        return model.train_on_batch(x, y, weight, return_dict=True)["penalty"]

    assert penalty(np.full((BATCH, TIME), 0.3)) == pytest.approx(penalty(None), rel=1e-6)


@pytest.mark.matrix
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.usefixtures("eagerly")
def test_padded_examples_train_what_the_others_alone_do(form):
    """A full batch before them; then examples of no data beside others, or those others alone."""

    def trained(rows):
        x, y, weight = (None if a is None else a[[0, 0, 0, 0]] for a in examples(form))
        model = kf.FisherPenaltyModel(net(form == "mask"), 0.5, penalty="gp", update_freq=1)
        model.compile(keras.optimizers.SGD(0.1), loss(form))
        model.train_on_batch(x, y, weight)
        x, y, weight = (None if a is None else a[rows] for a in examples(form))
        if weight is not None:  # Keras's mean counts weights of 0
            weight = weight / np.mean(weight)
        model.train_on_batch(x, y, weight)
        return nets.flat(model.weights)

    np.testing.assert_allclose(trained([0, 2]), trained([0]), rtol=1e-4, atol=1e-6)


@pytest.mark.matrix
@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("form", FORMS)
def test_traces_are_those_of_the_data_alone(form, trace):
    measure = TRACES[trace]
    x, y, weight = examples(form)
    model = net(form == "mask")
    model.compile("sgd", loss(form))
    found = measure(model, (x, y, weight))
    again = measure(model, (x, np.where(PRESENT, y, -1 if form == "label" else 1), weight))
    assert found == again
    assert found.count == {"hessian": 2, "mini-batch": 2, "gradient norm": 2}.get(trace, 3)
    if trace.startswith("fisher"):
        alone = [
            measure(model, (x[i : i + 1, :n], y[i : i + 1, :n])).value
            for i, n in enumerate(LENGTHS)
            if n
        ]
        assert found.value == pytest.approx(np.mean(alone), rel=1e-4)
    if trace == "gradient norm":
        parts = [PRESENT & (np.arange(BATCH) // 2 == i)[:, None] for i in range(2)]
        values = []
        for part in parts:
            gradients = reference.gradients(
                lambda part=part: nets.loss()(y[part], model(x)[part]), model.trainable_weights
            )
            values.append(np.linalg.norm(nets.flat(gradients)))
        assert found.value == pytest.approx(np.mean(values), rel=1e-4)


@pytest.mark.matrix
@pytest.mark.parametrize("trace", TRACES)
def test_examples_of_weight_0_are_left_out_of_traces(trace):
    measure = TRACES[trace]
    model = nets.plain("dense")
    x, y = nets.inputs("dense", batch=4), nets.labels(4)
    found = measure(model, (np.repeat(x, 2, 0), np.repeat(y, 2), np.tile([0.0, 0.5], 4)))
    expected = measure(model, (x, y))
    if trace in ("mini-batch", "gradient norm"):  # of as many mini-batches, of one example each
        expected = [measure(model, (x[i : i + 1], y[i : i + 1])).value for i in range(4)]
        assert found.value == pytest.approx(np.mean(expected), rel=1e-4)
    else:
        assert found.value == pytest.approx(expected.value, rel=1e-4)


@pytest.mark.slow
def test_padding_alone_is_not_measured():
    model = nets.plain("dense")
    data = (nets.inputs("dense"), nets.labels(), np.zeros(nets.BATCH))
    for measure in TRACES.values():
        with pytest.raises(ValueError, match=r"`data` must hold .*only padding"):
            measure(model, data)
