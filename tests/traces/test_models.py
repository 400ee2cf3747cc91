"""Which models may be measured, and that measuring leaves them as they were."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

import keras_fisher as kf
from keras_fisher.likelihoods import Categorical, Gaussian
from keras_fisher.traces import (
    FisherTraceMeter,
    GradientNormMeter,
    HessianEigenvaluesMeter,
    HessianTraceMeter,
    MinibatchFisherTraceMeter,
    PerExampleGradientNormsMeter,
    SpectralDensityMeter,
)
from tests import nets, reference
from tests.traces import oracles
from tests.traces.measures import MEASURES, SPECTRA
from tests.traces.per_example import loop

X, Y = nets.inputs("dense"), nets.labels()
METERS = [FisherTraceMeter, MinibatchFisherTraceMeter, HessianTraceMeter, GradientNormMeter]


def compiled(net):
    net.compile("sgd", nets.loss())
    return net


def not_built():
    return keras.Sequential([layers.Dense(5, activation="tanh"), layers.Dense(nets.CLASSES)])


def several_inputs():
    left, right = keras.Input((4,)), keras.Input((3,))
    x = layers.Concatenate()([layers.Dense(3, activation="tanh")(left), right])
    return keras.Model([left, right], layers.Dense(nets.CLASSES)(x))


class SeveralArguments(keras.Model):
    def __init__(self):
        super().__init__()
        self.left, self.head = layers.Dense(3, activation="tanh"), layers.Dense(nets.CLASSES)

    def call(self, inputs):
        return self.head(keras.ops.concatenate([self.left(inputs["left"]), inputs["right"]], -1))


class WithABackbone(keras.Model):
    """A network that has parts with the names of a wrapped one's, and of other kinds."""

    def __init__(self):
        x = keras.Input((4,))
        backbone = keras.Model(x, layers.Dense(2, activation="tanh")(x))
        super().__init__(x, layers.Dense(nets.CLASSES)(backbone(x)))
        self.backbone, self.likelihood = backbone, "high"


TWO = nets.inputs("two_inputs")
MODELS = {
    "sequential": (lambda: compiled(nets.dense()), X),
    "sequential, not built": (lambda: compiled(not_built()), X),
    "subclassed, not built": (lambda: compiled(nets.Subclassed()), X),
    "functional, inputs in a dictionary": (lambda: compiled(nets.two_inputs()), TWO),
    "functional, inputs in a list": (
        lambda: compiled(several_inputs()),
        [TWO["left"], TWO["right"]],
    ),
    "subclassed, inputs in a dictionary": (lambda: compiled(SeveralArguments()), TWO),
    "with parts of its own that are called backbone and likelihood": (
        lambda: compiled(WithABackbone()),
        X,
    ),
    "wrapped, not built": (lambda: compiled(kf.FisherPenaltyModel(not_built())), X),
    "wrapped, not compiled": (
        lambda: kf.FisherPenaltyModel(nets.dense(), likelihood=Categorical()),
        X,
    ),
}


@pytest.mark.matrix
@pytest.mark.parametrize(("make", "x"), MODELS.values(), ids=MODELS.keys())
def test_any_model_is_measured_as_a_loop_measures_it(make, x):
    model = make()
    fisher = kf.fisher_trace(model, (x, Y), labels="given", by_layer=True)
    minibatch = kf.minibatch_fisher_trace(model, (x, Y), labels="given", batch_size=2)
    hessian = kf.hessian_trace(model, (x, Y), num_probes=2, seed=0, by_layer=True)
    exact = oracles.squares(model, x, Y)
    assert fisher.value == pytest.approx(exact.sum(1).mean(), rel=1e-5)
    assert fisher.layers == pytest.approx(oracles.by_layer(model, exact.mean(0)), rel=1e-4)
    exact = oracles.squares(model, x, Y, batch_size=2).sum(1)
    assert minibatch.value == pytest.approx(exact.mean(), rel=1e-5)
    assert np.isfinite(hessian.value)
    assert set(hessian.layers) == set(fisher.layers)


def test_a_wrapped_model_measures_like_its_backbone():
    net = nets.build("subclassed")
    plain = kf.hessian_trace(compiled(net), (X, Y), by_layer=True, seed=0)
    wrapped = kf.hessian_trace(compiled(kf.FisherPenaltyModel(net)), (X, Y), by_layer=True, seed=0)
    assert wrapped == pytest.approx(plain)
    assert wrapped.layers == pytest.approx(plain.layers)


def test_a_given_likelihood_goes_before_the_compiled_loss():
    net = nets.build("dense")
    net.compile("sgd", "mse")
    data = X, np.eye(nets.CLASSES)[Y]
    given = kf.gradient_norm(net, data, likelihood=Gaussian(variance=0.25))
    assert given.value == pytest.approx(2 * kf.gradient_norm(net, data).value, rel=1e-5)


def busy():
    """A net with everything that a forward pass may move, in the midst of training."""
    net = keras.Sequential(
        [
            keras.Input((4,)),
            layers.GaussianNoise(0.1),
            layers.Dense(5, kernel_regularizer="l2", activity_regularizer="l2"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(nets.CLASSES),
        ]
    )
    net.compile(keras.optimizers.Adam(), nets.loss(), metrics=["accuracy"])
    net.fit(X, Y, epochs=2, verbose=0)
    return net


def state(model):
    """All numbers that belong to a model: seeds, metrics and the optimizer's variables too."""
    metrics = [variable for metric in model.metrics for variable in metric.variables]
    return nets.flat([*model.variables, *model.optimizer.variables, *metrics, *model.losses])


def test_measuring_moves_nothing():
    backbone = busy()
    model = compiled(kf.FisherPenaltyModel(backbone))
    model(X)  # leaves the activity's loss behind
    assert len(model.losses) == 2
    before = state(model), state(backbone)
    for measure in [*MEASURES, *SPECTRA]:
        measure(model, (X, Y))
        np.testing.assert_array_equal(state(model), before[0])
        np.testing.assert_array_equal(state(backbone), before[1])


@pytest.mark.slow
def test_training_goes_on_as_if_nothing_had_been_measured():
    weights = []
    for measures in ([], [*MEASURES, *SPECTRA]):
        keras.utils.set_random_seed(0)
        net = keras.Sequential([keras.Input((4,)), layers.Dropout(0.5), layers.Dense(3)])
        compiled(net)
        for measure in measures:
            measure(net, (X, Y))
        net.fit(X, Y, batch_size=2, epochs=2, verbose=0)
        weights.append(nets.flat(net.weights))
    np.testing.assert_array_equal(*weights)


@pytest.mark.matrix
@pytest.mark.parametrize("make_meter", METERS)
def test_a_meter_measures_the_weights_of_the_moment(make_meter):
    net = nets.plain("dense")
    arguments = {} if make_meter is GradientNormMeter else {"seed": 0}
    meter = make_meter(net, **arguments)
    meter((X, Y))
    net.set_weights([1.5 * weight for weight in net.get_weights()])
    again, fresh = meter, make_meter(net, **arguments)
    if make_meter is not GradientNormMeter:
        fresh((X, Y))  # both draw for the second time
    assert again((X, Y)) == pytest.approx(fresh((X, Y)), nan_ok=True)


@pytest.mark.matrix
@pytest.mark.parametrize("make_meter", METERS)
def test_a_meter_notices_which_layers_are_trained(make_meter):
    net = nets.plain("dense")
    meter = make_meter(net)
    assert len(meter((X, Y), by_layer=True).layers) == 2
    net.layers[0].trainable = False
    assert list(meter((X, Y), by_layer=True).layers) == [net.layers[1].path]


@pytest.mark.matrix
@pytest.mark.parametrize("make_meter", METERS)
def test_weights_that_are_not_finite_give_nan(make_meter):
    net = nets.plain("dense")
    finite = net.get_weights()
    arguments = {"labels": "given"} if make_meter in METERS[:2] else {}
    meter = make_meter(net, **arguments)  # it is compiled with these weights
    net.set_weights([np.full_like(weight, np.nan) for weight in finite])
    trace = meter((X, Y), by_layer=True)
    assert np.isnan(trace.value)
    assert all(np.isnan(list(trace.layers.values())))
    net.set_weights(finite)
    if make_meter is not HessianTraceMeter:  # which draws new probes
        exact = make_meter(net, **arguments)((X, Y))
        assert meter((X, Y)) == pytest.approx(exact, rel=1e-5, nan_ok=True)


MANY = nets.inputs("dense", batch=40), nets.labels(batch=40)
DRAWN = {  # how a meter is made, and the numbers that it measures
    "fisher_trace": (FisherTraceMeter, lambda meter: meter(MANY).value),
    "minibatch_fisher_trace": (
        MinibatchFisherTraceMeter,
        lambda meter: meter(MANY, batch_size=10).value,
    ),
    "hessian_trace": (
        functools.partial(HessianTraceMeter, num_probes=2),
        lambda meter: meter(MANY).value,
    ),
    "hessian_trace, xtrace": (
        functools.partial(HessianTraceMeter, num_probes=6, estimator="xtrace"),
        lambda meter: meter(MANY).value,
    ),
    "hessian_eigenvalues": (
        functools.partial(HessianEigenvaluesMeter, k=1),
        lambda meter: meter(MANY, return_vectors=True).vectors,
    ),
    "spectral_density": (
        functools.partial(SpectralDensityMeter, num_probes=1, num_steps=3),
        lambda meter: meter(MANY).nodes,
    ),
    "per_example_gradient_norms": (
        functools.partial(PerExampleGradientNormsMeter, labels="sampled"),
        lambda meter: meter(MANY),
    ),
}


@pytest.mark.matrix
@pytest.mark.parametrize("name", DRAWN)
def test_a_seed_draws_the_same_again_and_the_next_measurement_draws_others(name):
    make_meter, measure = DRAWN[name]
    net = nets.plain("dense")
    meters = [make_meter(net, seed=seed) for seed in (0, 0, 1)]
    one, again, other = map(measure, meters)
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    assert np.any(one != measure(meters[0]))


@pytest.mark.parametrize("labels", ["sampled", "expected"])
def test_labels_drawn_with_weights_that_are_not_finite_give_nan(labels):
    net = nets.plain("dense")
    net.set_weights([np.full_like(weight, np.nan) for weight in net.get_weights()])
    assert np.isnan(kf.fisher_trace(net, (X, None), labels=labels).value)


@pytest.mark.parametrize("measure", [*MEASURES, *SPECTRA])
@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (lambda: layers.Dense(3), TypeError, "be a keras.Model. Received: Dense"),
        (lambda: None, TypeError, "be a keras.Model. Received: NoneType"),
        (
            nets.two_outputs,
            ValueError,
            "have one output. Received: 'functional.*' with 2.*Measure the part",
        ),
        (nets.dictionary_of_one, ValueError, "have one output, .*which returned a dict of 1"),
        (
            nets.TwoOutputs,
            ValueError,
            "have one output, .*'two_outputs.*', which returned a tuple of 2",
        ),
        (nets.frozen, ValueError, "have trainable weights. Received: 'sequential.*' with none"),
    ],
)
def test_models_that_cannot_be_measured_are_refused(measure, model, error, message):
    with pytest.raises(error, match=rf"`model` must {message}"):
        measure(model(), (X, Y), likelihood=Categorical())


@pytest.mark.parametrize("measure", [*MEASURES, *SPECTRA])
def test_a_model_that_is_not_compiled_needs_a_likelihood(measure):
    with pytest.raises(ValueError, match=r"`likelihood` must be given.*not compiled. Received: 's"):
        measure(nets.build("dense"), (X, Y))


@pytest.mark.parametrize("measure", [*MEASURES, *SPECTRA])
@pytest.mark.parametrize("loss", ["mae", None])
def test_a_loss_without_a_known_likelihood_needs_a_given_one(measure, loss):
    net = nets.build("dense")
    net.compile("sgd", loss)
    with pytest.raises(ValueError, match=rf"`loss` .*Received: .*{loss!r}.*likelihood="):
        measure(net, (X, Y))


@pytest.mark.parametrize("measure", [*MEASURES, *SPECTRA])
@pytest.mark.parametrize("likelihood", ["categorical", Categorical])
def test_a_likelihood_must_be_one(measure, likelihood):
    with pytest.raises(
        TypeError, match=r"`likelihood` must be a .*Likelihood.*Received: .*ategori"
    ):
        measure(nets.plain("dense"), (X, Y), likelihood=likelihood)


@pytest.mark.parametrize(
    ("measure", "argument", "value", "error", "accepted"),
    [
        (kf.fisher_trace, "labels", "nonsense", ValueError, "'sampled', 'expected', 'given'"),
        (kf.fisher_trace, "labels", None, ValueError, "'sampled', 'expected', 'given'"),
        (kf.minibatch_fisher_trace, "labels", "expected", ValueError, "'sampled', 'given'"),
        (kf.hessian_trace, "distribution", "uniform", ValueError, "'gaussian', 'rademacher'"),
        *(
            (measure, argument, value, error, "an integer >= 1")
            for measure, argument in (
                (kf.hessian_trace, "num_probes"),
                (kf.spectral_density, "num_probes"),
                (kf.spectral_density, "num_steps"),
            )
            for value, error in ((0, ValueError), (True, TypeError), (1.5, TypeError))
        ),
        *(
            (measure, "seed", value, error, r"an integer in \[0, 4294967295\]")
            for measure in [*MEASURES[:3], *SPECTRA]
            for value, error in ((-1, ValueError), (1.5, TypeError), ("0", TypeError))
        ),
    ],
)
def test_bad_arguments_are_named_with_what_was_given_and_is_accepted(
    measure, argument, value, error, accepted
):
    message = rf"`{argument}` must be .*{accepted}. Received: {argument}={value!r}"
    with pytest.raises(error, match=message):
        measure(nets.plain("dense"), (X, Y), **{argument: value})


@pytest.mark.parametrize("shape", [(6, 5), (6, 1, 1)])
def test_labels_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"`y` must hold a class .*Received: labels of shape"):
        kf.gradient_norm(nets.plain("dense"), (X, np.zeros(shape)))


class Plain(keras.Model):
    """Hands its inputs to its layer as they are."""

    def __init__(self):
        super().__init__()
        self.head = layers.Dense(nets.CLASSES)

    def call(self, inputs):
        x = keras.tree.flatten(inputs)[0]
        return self.head(x)


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_integers_that_go_into_a_dense_layer_are_measured_as_the_numbers_they_are(dtype):
    net = compiled(Plain())
    x = np.arange(24).reshape(6, 4)
    as_floats = kf.fisher_trace(net, (x.astype("float32"), Y), labels="given").value
    as_integers = kf.fisher_trace(net, (x.astype(dtype), Y), labels="given").value
    assert as_integers == pytest.approx(as_floats, rel=1e-6)


def test_a_meter_takes_inputs_in_another_structure_than_before():
    meter = FisherTraceMeter(compiled(Plain()), labels="given")
    assert meter(({"x": X}, Y)).value == pytest.approx(meter(([X], Y)).value, rel=1e-6)


def inner(name):
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(3, name="fc")(inputs), name=name)


def test_layers_of_equal_path_are_kept_apart():
    inputs = keras.Input((4,))
    model = compiled(keras.Model(inputs, layers.add([inner("a")(inputs), inner("b")(inputs)])))
    found = kf.fisher_trace(model, (X, Y), labels="given", by_layer=True)
    assert len(found.layers) == 2
    assert sum(found.layers.values()) == pytest.approx(found.value, rel=1e-5)


def test_nan_outputs_have_no_accuracy():
    model = nets.plain("dense")
    assert 0 <= kf.traces.accuracy(model, X, Y) <= 1
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    assert np.isnan(kf.traces.accuracy(model, X, Y))


def test_accuracy_needs_labels_that_are_outputs():
    with pytest.raises(ValueError, match=r"`y` must hold labels from 0 to 2.* from 1 to 3"):
        kf.traces.accuracy(nets.plain("dense"), X[:3], np.array([1, 2, 3]))


def test_a_meter_does_not_measure_the_loss_of_an_earlier_compile():
    model = nets.plain("dense")
    meter = GradientNormMeter(model)
    meter((X, Y))
    model.compile("sgd", nets.loss())
    with pytest.raises(ValueError, match="GradientNormMeter must be made anew after `compile`"):
        meter((X, Y))


def test_one_output_has_no_classes():
    model = compiled(keras.Sequential([keras.Input((4,)), layers.Dense(1)]))
    with pytest.raises(ValueError, match="Categorical needs an output for each of at least 2"):
        kf.fisher_trace(model, (X, np.zeros(6, "int32")))


def make_encoder(name, use_bias):
    """A model whose layers have the names that another program gives them."""
    keras.utils.clear_session()
    inputs = keras.Input(X.shape[1:])
    outputs = layers.Dense(4, name="dense_1")(
        layers.Dense(5, use_bias=use_bias, name="dense")(inputs)
    )
    return keras.Model(inputs, outputs, name=name)


def test_layers_of_two_encoders_with_the_same_names_stay_apart():
    encoders = [make_encoder(*each) for each in (("image", False), ("text", True))]
    inputs = keras.Input(X.shape[1:])
    merged = layers.Concatenate()([encoder(inputs) for encoder in encoders])
    net = keras.Model(inputs, layers.Dense(nets.CLASSES, name="head")(merged))
    model = compiled(net)
    exact = oracles.squares(model, X, Y).mean(0)
    fisher = kf.fisher_trace(model, (X, Y), labels="given", by_layer=True)
    expected = [part.sum() for part in np.split(exact, [1, 3, 5, 7])]  # kernel and bias
    assert list(fisher.layers.values()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.skipif(reference.IS_TENSORFLOW, reason="the likelihood reads the logits there")
def test_a_likelihood_of_logits_on_a_softmax_is_reported(caplog):
    net = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")])
    for likelihood in (Categorical(from_logits=False), Categorical()):
        assert not caplog.text
        kf.fisher_trace(net, (np.ones((2, 4)), np.array([0, 1])), likelihood=likelihood)
    assert "Pass likelihood=Categorical(from_logits=False)" in caplog.text


@pytest.mark.parametrize(
    ("policy", "positions", "told"),
    [
        ("mixed_float16", 2**14, 0),
        ("mixed_float16", 2**14 + 1, 1),
        ("mixed_bfloat16", 2**14 + 1, 1),
        ("float32", 2**14 + 1, 0),
    ],
)
def test_many_positions_in_half_precision_are_reported(policy, positions, told):
    net = keras.Sequential([keras.Input((positions, 1)), layers.Dense(2, dtype=policy)])
    net.compile("sgd", nets.loss())
    x, y = np.ones((2, positions, 1), "float32"), np.zeros((2, positions), int)
    with loop.logged() as messages:
        for _ in range(2):
            kf.minibatch_fisher_trace(net, (x, y), labels="given", batch_size=2)
    assert sum(f"have {positions} positions" in message for message in messages) == told
