"""What may be measured on, and what is refused before anything is measured."""

import keras
import numpy as np
import pytest

import keras_fisher as kf
from keras_fisher.traces import FisherTraceMeter, GradientNormMeter
from tests import nets, reference
from tests.traces.measures import LABELLED, MEASURES, SPECTRA

tf = pytest.importorskip("tensorflow")

X, Y = nets.inputs("dense", batch=10), nets.labels(batch=10)
DATASET = tf.data.Dataset.from_tensor_slices((X, Y))
UNKNOWN = DATASET.filter(lambda x, y: True)  # of a cardinality that is not known


LABELLED_DATA = {
    "a list": [X, Y],
    "tensors": (tf.constant(X), tf.constant(Y)),
    "float64": (X.astype("float64"), Y),
    "labels with a trailing axis": (X, Y[:, None]),
    "one-hot labels": (X, np.eye(nets.CLASSES)[Y]),
    "labels in a list": (X, [Y]),
    "labels in a dictionary": (X, {"output": Y}),
    "a dataset": DATASET.batch(4),
    "a dataset in even batches": DATASET.batch(5, drop_remainder=True),
    "a dataset of unknown length": UNKNOWN.batch(4),
    "a dataset with sample weights": DATASET.map(lambda x, y: (x, y, 7.0)).batch(4),
    "a generator of arrays": lambda: ((X[i : i + 4], Y[i : i + 4]) for i in (0, 4, 8)),
}


def test_arrays_and_datasets_of_any_kind_give_the_same():
    meter = FisherTraceMeter(nets.plain("dense"), labels="given")
    exact = meter((X, Y))
    assert exact.count == 10
    for name, data in LABELLED_DATA.items():
        found = meter(data() if callable(data) else data)
        assert found == pytest.approx(exact, rel=1e-5), name


UNLABELLED_DATA = {
    "x and None": (X, None),
    "x alone": (X,),
    "a dataset of x": DATASET.map(lambda x, y: x).batch(4),
    "a dataset of x and None": DATASET.map(lambda x, y: (x, None)).batch(4),
    "a dataset of x in a tuple": DATASET.map(lambda x, y: (x,)).batch(4),
    "a generator of x": lambda: (X[i : i + 4] for i in (0, 4, 8)),
    "x and labels that are ignored": (X, -Y),
}


def test_labels_may_be_missing_where_none_are_needed():
    meter = FisherTraceMeter(nets.plain("dense"), labels="expected")
    exact = meter((X, Y))
    for name, data in UNLABELLED_DATA.items():
        found = meter(data() if callable(data) else data)
        assert found == pytest.approx(exact, rel=1e-5), name


@pytest.mark.parametrize("measure", [kf.fisher_trace, kf.minibatch_fisher_trace])
def test_labels_are_drawn_unless_they_are_asked_for(measure):
    made = measure(nets.plain("dense"), (X, None), seed=0)
    assert made == pytest.approx(measure(nets.plain("dense"), (X, Y), seed=0), nan_ok=True)


@pytest.mark.parametrize("data", [(X, Y), DATASET.batch(4), DATASET.batch(4).repeat()])
def test_num_examples_takes_the_first_ones(data):
    meter = FisherTraceMeter(nets.plain("dense"), labels="given")
    made = meter(data, num_examples=7)
    assert made == pytest.approx(meter((X[:7], Y[:7])), rel=1e-5)
    assert made.count == 7


def test_inputs_of_any_type_of_number_are_measured_as_fit_takes_them():
    meter = FisherTraceMeter(nets.plain("dense"), labels="given")
    x = np.arange(40).reshape(10, 4) % 2
    exact = meter((x.astype("float32"), Y))
    for dtype in ("uint8", "int64", "bool", "float64", "float16"):
        assert meter((x.astype(dtype), Y)) == pytest.approx(exact, rel=1e-5), dtype


BAD_DATA = [
    ("no examples", (X[:0], Y[:0]), ValueError, r"`data` must hold at least one .*Received: none"),
    ("an empty dataset", DATASET.take(0).batch(4), ValueError, r"`data` must hold at least one"),
    (
        "an empty dataset of unknown length",
        DATASET.filter(lambda x, y: False).batch(4),
        ValueError,
        r"`data` must hold at least one example. Received: none",
    ),
    (
        "an endless dataset",
        DATASET.batch(4).repeat(),
        ValueError,
        "`data` must be finite, or `num_examples` given. Received: an endless dataset",
    ),
    ("no batches", DATASET, ValueError, r"`data` must hold .*first axis. Received: .*not batched"),
    (
        "single examples of a generator",
        iter(zip(X, Y, strict=True)),
        ValueError,
        r"`data` must hold .*first axis. Received: .*not batched",
    ),
    (
        "lengths that differ",
        (X, Y[:3]),
        ValueError,
        r"`data` must hold .*of one length. Received: lengths 3, 10",
    ),
    (
        "lengths that differ in a dataset",
        tf.data.Dataset.from_tensors((X, Y[:3])),
        ValueError,
        r"`data` must hold .*of one length. Received: lengths 3, 10",
    ),
    ("an array", X, TypeError, r"`data` must be `\(x, y\)` or .*Received: ndarray"),
    ("a dictionary", {"x": X}, TypeError, r"`data` must be `\(x, y\)` or .*Received: dict"),
    ("nothing", None, TypeError, r"`data` must be `\(x, y\)` or .*Received: NoneType"),
    ("four arrays", (X, Y, Y, Y), ValueError, r"`data` must be .*Received: a tuple of 4"),
    ("lists of numbers", (X.tolist(), Y), TypeError, r"`data` must be .*arrays.*Received: float"),
    (
        "a list of batches",
        [(X[:5], Y[:5]), (X[5:], Y[5:])],
        ValueError,
        r"`data` must be .* Received: 2 arrays of labels",
    ),
    ("no inputs", (None, Y), ValueError, r"`data` must hold inputs. Received: x=None"),
]
WITHOUT_LABELS = [
    ("x alone", (X,), ValueError, r"`data` must hold labels. Received: only x"),
    ("x and None", (X, None), ValueError, r"`data` must hold labels. Received: only x"),
    (
        "a dataset of x",
        DATASET.map(lambda x, y: x).batch(4),
        ValueError,
        r"`data` must hold labels. Received: batches of only x",
    ),
    (
        "a dataset of x and None",
        DATASET.map(lambda x, y: (x, None)).batch(4),
        ValueError,
        r"`data` must hold labels. Received: batches of only x",
    ),
    ("a generator of x", iter([X]), ValueError, r"`data` must hold labels. Received: .*only x"),
]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [case[1:] for case in (*BAD_DATA, *WITHOUT_LABELS)],
    ids=[case[0] for case in (*BAD_DATA, *WITHOUT_LABELS)],
)
def test_bad_data_is_refused_before_anything_is_measured(data, error, message, monkeypatch):
    meter = GradientNormMeter(nets.plain("dense"))
    monkeypatch.setattr(keras.Model, "__call__", unwanted)
    with pytest.raises(error, match=message):
        meter(data)


def unwanted(*args, **kwargs):
    raise AssertionError("the model was called")


@pytest.mark.parametrize("measure", LABELLED)
def test_every_measurement_with_given_labels_needs_them(measure):
    with pytest.raises(ValueError, match=r"`data` must hold labels. Received: only x"):
        measure(nets.plain("dense"), (X, None))


@pytest.mark.parametrize("measure", [*MEASURES, *SPECTRA])
@pytest.mark.parametrize("data", [(X, Y), DATASET.batch(5, drop_remainder=True)])
def test_fewer_examples_than_asked_for_are_refused_beforehand_where_that_can_be_seen(
    measure, data, monkeypatch
):
    net = nets.plain("dense")
    monkeypatch.setattr(keras.Model, "__call__", unwanted)
    with pytest.raises(
        ValueError, match=r"`num_examples` must be at most .*num_examples=11 and 10 examples"
    ):
        measure(net, data, num_examples=11)


@pytest.mark.parametrize("data", [DATASET.batch(4), UNKNOWN.batch(4)])
def test_fewer_examples_than_asked_for_are_refused_at_the_end_of_a_dataset(data):
    with pytest.raises(
        ValueError, match=r"`num_examples` must be at most .*num_examples=11 and 10 examples"
    ):
        kf.gradient_norm(nets.plain("dense"), data, num_examples=11)


@pytest.mark.matrix
@pytest.mark.parametrize("measure", [*MEASURES, *SPECTRA])
@pytest.mark.parametrize("argument", ["num_examples", "batch_size"])
@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_sizes_must_be_integers_of_at_least_1(measure, argument, value, error):
    message = rf"`{argument}` must be an integer >= 1. Received: {argument}={value!r}"
    with pytest.raises(error, match=message):
        measure(nets.plain("dense"), (X, Y), **{argument: value})


@pytest.mark.parametrize("measure", LABELLED)
@pytest.mark.parametrize("label", [-1, nets.CLASSES])
def test_an_array_with_a_label_outside_the_classes_is_refused_beforehand(
    measure, label, monkeypatch
):
    net, y = nets.plain("dense"), Y.copy()
    y[-1] = label
    monkeypatch.setattr(keras.Model, "__call__", unwanted)
    with pytest.raises(
        ValueError, match=r"`data` must hold labels from 0 to 2.*Received: .*" + str(label)
    ):
        measure(net, (X, y))


@pytest.mark.parametrize("name", ["dense", "subclassed"])
@pytest.mark.parametrize("measure", LABELLED)
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (Y / 2, "`data` must hold labels from 0 to 2, whole numbers.*Received: a label of 0.5"),
        (Y.astype(str), "`data` must hold numbers.*Received: labels of dtype <U"),
    ],
)
def test_labels_that_are_no_classes_are_refused(measure, name, labels, message):
    net = nets.plain(name)
    with pytest.raises(ValueError, match=message):
        measure(net, (X, labels))


@pytest.mark.matrix
@pytest.mark.parametrize("measure", [*MEASURES, *SPECTRA])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_that_make_the_measurement_no_number_are_told_of(measure, value):
    x = X.copy()
    x[7, 1] = value
    for data in ((x, Y), reference.batches(x, Y, 5)):
        with pytest.raises(ValueError, match=r"`data` must hold finite inputs. Received: .*NaN"):
            measure(nets.plain("dense"), data)


@pytest.mark.matrix
@pytest.mark.parametrize("measure", MEASURES)
def test_a_model_may_take_inputs_that_are_no_numbers(measure):
    class Filled(keras.layers.Layer):
        def call(self, inputs):
            return keras.ops.nan_to_num(inputs, nan=0.5)

    x = X.copy()
    x[7, 1] = np.nan
    plain = nets.build("dense")
    net = keras.Sequential([keras.Input((4,)), Filled(), plain])
    arguments = {"likelihood": kf.likelihoods.Categorical()}
    if measure is not kf.gradient_norm:
        arguments["seed"] = 0
    expected = measure(plain, (np.nan_to_num(x, nan=0.5), Y), **arguments)
    assert measure(net, (x, Y), **arguments) == pytest.approx(expected, rel=1e-5, nan_ok=True)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("value", [1, "yes", None, X])
def test_by_layer_is_true_or_false(measure, value):
    with pytest.raises(TypeError, match=r"`by_layer` must be True or False. Received: by_layer="):
        measure(nets.plain("dense"), (X, Y), by_layer=value)


@pytest.mark.parametrize("measure", [*MEASURES, *SPECTRA])
def test_an_optional_input_that_is_left_out_is_told_of(measure):
    with pytest.raises(ValueError, match=r"`data` must hold every input .* also optional ones"):
        measure(nets.plain("dense"), ([X, None], Y))


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["dense", "subclassed"])
@pytest.mark.parametrize("measure", [*LABELLED, kf.tuning.alpha_range])
def test_a_label_outside_the_classes_in_a_batch_is_refused(measure, name):
    net, y = nets.plain(name), nets.labels()
    y[-1] = nets.CLASSES
    data = reference.batches(nets.inputs(name), y, size=len(y) // 2)
    with pytest.raises(ValueError, match=r"`data` must hold labels from 0 to 2.*Received: .*3"):
        measure(net, data)


def test_an_endless_dataset_is_measured_as_far_as_is_asked_for():
    data = kf.data.load("digits", batch_size=50, num_train=100, validation_size=0).train
    layers = [keras.layers.Flatten(), keras.layers.Dense(10)]
    net = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    net.compile("sgd", nets.loss())
    assert np.isfinite(kf.gradient_norm(net, data, num_examples=100, batch_size=50).value)
    with pytest.raises(ValueError, match="`data` must be finite, or `num_examples` given"):
        kf.gradient_norm(net, data)


@pytest.mark.parametrize("sizes", [(2, 4), (4, 2, 4)])
def test_a_measure_over_mini_batches_refuses_other_sizes_before_the_last(sizes):
    net = nets.build("dense")
    x = nets.inputs("dense", batch=4)
    data = [(x[:size], nets.labels(batch=4)[:size]) for size in sizes]
    with pytest.raises(ValueError, match=r"mini-batches of equal size.*sizes"):
        kf.gradient_norm(net, iter(data), likelihood=kf.likelihoods.Categorical())
