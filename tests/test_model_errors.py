"""What `FisherPenaltyModel` refuses, and what its errors say."""

import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_fisher as kf
from keras_fisher import FisherPenaltyModel
from keras_fisher.likelihoods import Bernoulli, Categorical, Gaussian
from tests import nets, reference

tf = pytest.importorskip("tensorflow")

BAD_ARGUMENTS = [
    *(("alpha", value, ValueError) for value in (-0.1, np.nan, np.inf)),
    *(("alpha", value, TypeError) for value in ("0.1", None, True, np.array([0.1]))),
    ("alpha", keras.KerasTensor(()), TypeError),
    *(("penalty", value, ValueError) for value in ("fisher", None)),
    *(("gradient", value, ValueError) for value in ("forward", None)),
    *(("update_freq", value, ValueError) for value in (0, -1)),
    *(("update_freq", value, TypeError) for value in (2.5, "10", True)),
    *(("penalty_batch_size", value, ValueError) for value in (0, 0.0, 1.5, np.nan)),
    ("penalty_batch_size", "all", TypeError),
    ("micro_batch_size", 0, ValueError),
    ("micro_batch_size", 0.5, TypeError),
    ("likelihood", "categorical", TypeError),
    ("likelihood", Gaussian, TypeError),
    ("seed", -1, ValueError),
    ("seed", "0", TypeError),
]
ACCEPTED = {
    "penalty_batch_size": r"an integer >= 1, a share in \(0, 1\] or None",
    "micro_batch_size": "an integer >= 1",
}
DATA = nets.inputs("dense"), nets.labels()


@pytest.mark.parametrize(("argument", "value", "error"), BAD_ARGUMENTS)
def test_bad_arguments_are_named_with_what_was_given_and_is_accepted(argument, value, error):
    accepted = ACCEPTED.get(argument, "")
    with pytest.raises(error, match=rf"`{argument}` must be {accepted}.*Received: ") as raised:
        FisherPenaltyModel(nets.build("dense"), **{argument: value})
    assert str(value) in str(raised.value)


@pytest.mark.parametrize("value", [-1.0, np.nan, "much"])
def test_a_bad_alpha_is_refused_later_too_and_the_old_one_stays(value):
    model = nets.compiled("dense", alpha=0.5)
    with pytest.raises((TypeError, ValueError), match=r"`alpha` must be .*Received: "):
        model.alpha = value
    assert model.alpha == 0.5


def without_weights():
    return keras.Sequential([keras.Input((4,)), layers.Flatten()])


@pytest.mark.parametrize(
    ("backbone", "error", "message"),
    [
        (lambda: layers.Dense(3), TypeError, "must be a keras.Model"),
        (lambda: None, TypeError, "must be a keras.Model"),
        (without_weights, ValueError, "must have trainable weights"),
        (nets.frozen, ValueError, "must have trainable weights"),
        (nets.two_outputs, ValueError, "must have one output"),
    ],
)
def test_backbones_that_cannot_be_penalised_are_refused(backbone, error, message):
    with pytest.raises(error, match=rf"`backbone` {message}.*Received: "):
        FisherPenaltyModel(backbone())


@pytest.mark.matrix
@pytest.mark.parametrize("build", [nets.two_outputs, nets.dictionary_of_one])
def test_the_error_for_several_outputs_names_a_way_out(build):
    backbone = build()
    with pytest.raises(ValueError, match="must have one output") as raised:
        FisherPenaltyModel(backbone)(DATA[0])
    way_out = "keras.Model(backbone.inputs, backbone.outputs[0])"
    assert way_out in str(raised.value)
    model = FisherPenaltyModel(eval(way_out))
    model.compile("sgd", nets.loss())
    assert model.train_on_batch(*DATA, return_dict=True)["penalty"] > 0


def itself(inner):
    return inner


def in_a_sequential_model(inner):
    return keras.Sequential([keras.Input((4,)), layers.Dense(4), inner])


def in_a_model_in_a_subclassed_one(inner):
    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = [in_a_sequential_model(inner)]

        def call(self, inputs):
            return self.parts[0](inputs)

    return Outer()


@pytest.mark.parametrize("place", [itself, in_a_sequential_model, in_a_model_in_a_subclassed_one])
def test_a_model_with_a_penalty_inside_another_is_refused(place):
    inner = nets.compiled("dense")
    with pytest.raises(ValueError, match=rf"`backbone` must neither be.*Received.*{inner.name}"):
        FisherPenaltyModel(place(inner))


def test_a_penalty_that_a_larger_model_ignores_is_reported_once(caplog):
    inner = nets.compiled("dense")
    inner.fit(*DATA, verbose=0)
    outer = in_a_sequential_model(inner)
    outer.compile("sgd", nets.loss())
    outer.predict(DATA[0], verbose=0)
    outer.evaluate(*DATA, verbose=0)
    assert not caplog.text
    outer.fit(*DATA, verbose=0)
    outer.fit(*DATA, verbose=0)
    assert [record.name for record in caplog.records] == ["keras_fisher"]
    assert f"penalty of '{inner.name}' is ignored" in caplog.text
    # On JAX Keras does not show which model is being trained.
    how = (
        "by a training step other than its own" if reference.IS_JAX else f"layer of '{outer.name}'"
    )
    assert how in caplog.text


def test_a_subclassed_backbone_with_two_outputs_is_refused_at_its_first_call():
    model = FisherPenaltyModel(nets.TwoOutputs())
    with pytest.raises(ValueError, match=r"`backbone` must have one output.*Received: .*2"):
        model(DATA[0])


def test_a_backbone_whose_weights_are_frozen_later_is_refused():
    model = nets.compiled("dense")
    model.backbone.trainable = False
    model.compile("sgd", nets.loss())
    with pytest.raises(ValueError, match=r"`backbone` must have trainable weights"):
        model.fit(*DATA, verbose=0)


@pytest.mark.parametrize("loss", ["mae", lambda y, p: keras.ops.mean(p**2, axis=-1), None])
def test_a_loss_without_a_known_likelihood_is_refused_by_compile(loss):
    model = FisherPenaltyModel(nets.build("dense"))
    with pytest.raises(ValueError, match=r"`loss`.*likelihood="):
        model.compile("sgd", loss)


def test_a_compile_that_is_refused_leaves_nothing_to_train_with():
    model = nets.compiled("dense")
    with pytest.raises(ValueError, match="likelihood="):
        model.compile("sgd", "mae")
    with pytest.raises(ValueError, match=r"call `compile\(\)`"):
        model.fit(*DATA, verbose=0)


@pytest.mark.usefixtures("eagerly")
def test_a_loss_that_is_no_mean_is_refused_unless_the_likelihood_is_given():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    for given in (loss, [loss], {"output": loss}):
        with pytest.raises(ValueError, match=r"`loss` must be a mean.*Received: reduction='sum'"):
            FisherPenaltyModel(nets.build("dense")).compile("sgd", given)
    model = FisherPenaltyModel(nets.build("dense"), likelihood=Categorical())
    model.compile("sgd", loss)
    model.fit(*DATA, verbose=0)


def test_a_loss_without_a_known_likelihood_trains_with_a_given_one():
    model = FisherPenaltyModel(nets.build("dense"), likelihood=Bernoulli())
    model.compile("sgd", "mae")
    y = np.eye(nets.CLASSES)[nets.labels()]
    assert model.train_on_batch(DATA[0], y, return_dict=True)["penalty"] > 0


@pytest.mark.matrix
@reference.tensorflow_only  # with JAX the loss is NaN: test_non_finite_guard.py
@pytest.mark.parametrize("alpha", [0.0, 0.1])
@pytest.mark.parametrize("label", [-1, nets.CLASSES])
def test_a_data_set_with_a_label_outside_the_classes_is_refused(label, alpha):
    model = nets.compiled("dense", alpha=alpha)
    before = nets.flat(model.backbone.weights)
    y = nets.labels()
    y[4] = label
    data = tf.data.Dataset.from_tensor_slices((DATA[0], y)).batch(6)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"`y` must hold labels from 0 to 2"):
        model.fit(data, verbose=0)
    np.testing.assert_array_equal(nets.flat(model.backbone.weights), before)


NO_CLASSES = {  # with what the error says was received
    "one below": (lambda y: np.where(np.arange(len(y)) == 4, -1, y), "labels from -1 to 2"),
    "one above": (lambda y: np.where(np.arange(len(y)) == 4, 3, y), "labels from 0 to 3"),
    "fractions": (lambda y: y + 0.5, "a label of 0.5"),
    "halves": (lambda y: y / 2, "a label of 0.5"),
    "a tensor of fractions": (lambda y: keras.ops.convert_to_tensor(y / 2), "a label of 0.5"),
    "a tensor outside": (lambda y: keras.ops.convert_to_tensor(y + 1), "labels from 1 to 3"),
    "not a number": (lambda y: np.where(y == 1, np.nan, y), "labels from nan to nan"),
    "in a list": (lambda y: [y + 1], "labels from 1 to 3"),
}


@pytest.mark.parametrize(("change", "received"), NO_CLASSES.values(), ids=NO_CLASSES.keys())
def test_labels_that_are_no_classes_are_refused_before_the_first_step(change, received):
    model = nets.compiled("dense")
    before = nets.flat(model.backbone.weights)
    y = change(np.arange(nets.BATCH) % nets.CLASSES)
    accepted = "`y` must hold labels from 0 to 2, whole numbers"
    with pytest.raises(ValueError, match=f"{accepted}.* Received: {received}"):
        model.fit(DATA[0], y, batch_size=2, verbose=0)
    np.testing.assert_array_equal(nets.flat(model.backbone.weights), before)


def test_validation_labels_are_checked_before_the_first_step():
    model = nets.compiled("dense")
    before = nets.flat(model.backbone.weights)
    for validation in [(DATA[0], nets.labels() + 1), [DATA[0], nets.labels() + 1, np.ones(6)]]:
        with pytest.raises(ValueError, match=r"`validation_data` must hold labels from 0 to 2"):
            model.fit(*DATA, validation_data=validation, verbose=0)
    np.testing.assert_array_equal(nets.flat(model.backbone.weights), before)


LOSSES = {
    "one class for each": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "a number for each of the 3 classes": keras.losses.CategoricalCrossentropy(from_logits=True),
}


@pytest.mark.parametrize("expected", LOSSES)
@pytest.mark.usefixtures("eagerly")
def test_labels_in_the_layout_of_the_other_cross_entropy_are_refused(expected):
    model = FisherPenaltyModel(nets.build("dense"), alpha=0.1)
    model.compile("sgd", LOSSES[expected])
    classes = np.arange(nets.BATCH) % nets.CLASSES
    both = [classes, keras.utils.to_categorical(classes, nets.CLASSES)]
    right, wrong = both if expected.startswith("one") else both[::-1]
    shape = re.escape(str(wrong.shape))
    with pytest.raises(ValueError, match=rf"`y` must hold {expected}.* Received: .*{shape}"):
        model.fit(DATA[0], wrong, verbose=0)
    with pytest.raises(ValueError, match=f"`validation_data` must hold {expected}"):
        model.fit(DATA[0], right, validation_data=(DATA[0], wrong), verbose=0)
    model.fit(DATA[0], right, validation_data=(DATA[0], right), verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool"])
def test_labels_of_any_type_of_number_train_the_same(dtype):
    def trained(y):
        model = nets.compiled("dense")
        model.fit(DATA[0], y, shuffle=False, verbose=0)
        return nets.flat(model.backbone.weights)

    y = np.arange(nets.BATCH) % 2
    np.testing.assert_array_equal(trained(y.astype(dtype)), trained(y))


def test_a_batch_with_a_fractional_label_is_refused_or_gives_no_finite_loss():
    model = nets.compiled("dense")
    y = nets.labels() + np.float32(0.5)
    if not reference.IS_JAX:
        errors = ValueError if reference.IS_TORCH else tf.errors.InvalidArgumentError
        with pytest.raises(errors, match=r"`y` must .*whole numbers"):
            model.train_on_batch(DATA[0], y)
    else:
        assert np.isnan(model.train_on_batch(DATA[0], y, return_dict=True)["loss"])


STRINGS = {
    "str": lambda y: y.astype(str),
    "bytes": lambda y: y.astype("S"),
    "objects": lambda y: y.astype(str).astype(object),
}


@pytest.mark.parametrize("name", ["dense", "subclassed"])
@pytest.mark.parametrize("kind", STRINGS)
def test_labels_that_are_strings_are_refused_by_name(kind, name):
    x, y = nets.inputs(name), STRINGS[kind](nets.labels())
    for likelihood in (Categorical(), Bernoulli(), Gaussian()):
        model = nets.compiled(name, likelihood=likelihood)
        with pytest.raises(ValueError, match=r"`y` must hold numbers.*Received: labels of dtype"):
            model.fit(x, y, verbose=0)


@reference.tensorflow_only  # JAX has no strings
def test_a_data_set_of_labels_that_are_strings_is_refused_by_name():
    data = tf.data.Dataset.from_tensors((DATA[0], nets.labels().astype(str)))
    with pytest.raises(ValueError, match=r"`y` must hold numbers.*Received: .*string"):
        nets.compiled("dense").fit(data, verbose=0)


class Task(keras.Model):
    """As tasks of KerasHub are: functional, of preprocessed inputs, with what preprocesses them."""

    made = 0

    def __init__(self, preprocessor):
        tokens = keras.Input((5,), dtype="int32")
        x = layers.GlobalAveragePooling1D()(layers.Embedding(7, 4)(tokens))
        Task.made += 1  # each has a name of its own, as a warning is shown once for each
        super().__init__(tokens, layers.Dense(nets.CLASSES)(x), name=f"made_{Task.made}")
        self.preprocessor = preprocessor


def tokenized(texts, labels):
    return np.array([[len(text)] * 5 for text in texts], "int32"), labels


TEXTS = ["a", "bc", "def"] * 2
RAW = {
    "a list": TEXTS,
    "an array": np.array(TEXTS),
    "objects": np.array(TEXTS, object),
    "a data set": tf.data.Dataset.from_tensors((TEXTS, nets.labels())),
}


@pytest.mark.matrix
@pytest.mark.parametrize("kind", RAW)
@pytest.mark.usefixtures("eagerly")
def test_strings_for_a_task_with_a_preprocessor_are_refused(kind):
    model = FisherPenaltyModel(Task(tokenized))
    model.compile("sgd", nets.loss())
    y = () if kind == "a data set" else (nets.labels(),)
    with pytest.raises(ValueError, match=r"`x` must be preprocessed.*strings.*preprocessor first"):
        model.fit(RAW[kind], *y, verbose=0)
    data = model.backbone.preprocessor(TEXTS, nets.labels())
    assert np.isfinite(model.fit(*data, verbose=0).history["loss"][0])
    assert np.isfinite(model.fit(reference.batches(*data, 3), verbose=0).history["loss"][0])


def test_a_preprocessor_that_is_not_applied_is_reported(caplog):
    FisherPenaltyModel(Task(None))
    assert not caplog.text
    task = Task(tokenized)
    FisherPenaltyModel(task)
    assert f"The preprocessor of '{task.name}'" in caplog.text
    assert "is not applied" in caplog.text


@reference.tensorflow_only  # JAX has no strings
def test_a_model_that_takes_strings_trains_on_them():
    vectorize = layers.TextVectorization(vocabulary=["a", "bc", "def"], output_sequence_length=2)
    inputs = keras.Input((1,), dtype="string")
    x = layers.Flatten()(layers.Embedding(7, 4)(vectorize(inputs)))
    model = FisherPenaltyModel(keras.Model(inputs, layers.Dense(nets.CLASSES)(x)))
    model.compile("sgd", nets.loss())
    data = tf.data.Dataset.from_tensors((np.array(TEXTS)[:, None], nets.labels()))
    assert np.isfinite(model.fit(data, verbose=0).history["loss"][0])


@pytest.mark.usefixtures("eagerly")
def test_labels_in_a_column_or_a_frame_of_pandas_are_checked():
    pandas = pytest.importorskip("pandas")
    x, y = DATA[0], np.arange(nets.BATCH) % nets.CLASSES
    for column in (pandas.Series, lambda y: pandas.DataFrame({"y": y})):
        model = nets.compiled("dense")
        assert np.isfinite(model.fit(x, column(y), verbose=0).history["loss"][0])
        for bad in (y + 1, y / 2):
            with pytest.raises(ValueError, match="`y` must hold labels from 0 to 2, whole numbers"):
                model.fit(x, column(bad), verbose=0)
        with pytest.raises(ValueError, match="`y` must hold numbers"):
            model.fit(x, column(y.astype(str)), verbose=0)


def test_integer_inputs_have_no_input_gradient():
    model = nets.compiled("attention", penalty="gp_x")
    with pytest.raises(ValueError, match=r"'gp_x'.*floating-point.*Received .*int32"):
        model.fit(nets.inputs("attention"), nets.labels(), verbose=0)


def test_numbers_have_no_uniform_labels():
    model = FisherPenaltyModel(nets.build("dense"), penalty="gp_r")
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"'gp_r'.*Gaussian.*Use 'fp', 'gp' or 'gp_x'"):
        model.fit(DATA[0], np.zeros((nets.BATCH, nets.CLASSES)), verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("label", [-1, nets.CLASSES, 0.5])
def test_xla_has_no_assertions_but_never_gives_a_finite_loss_for_a_label_outside(label):
    y = nets.labels().astype(type(label))
    y[0] = label
    data = tf.data.Dataset.from_tensors((nets.inputs("dense"), y))
    model = nets.compiled("dense", compile_args={"jit_compile": True})
    assert np.isnan(model.fit(data, verbose=0).history["loss"][0])


@pytest.mark.usefixtures("eagerly")
def test_a_likelihood_may_accept_labels_outside_the_classes():
    class Partial(Categorical):
        def class_bound(self, labels, outputs):
            return None

    y = nets.labels()
    y[0] = -1
    model = FisherPenaltyModel(nets.build("dense"), likelihood=Partial())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    model.compile("sgd", loss)
    assert np.isfinite(model.fit(nets.inputs("dense"), y, verbose=0).history["loss"][0])


@reference.tensorflow_only  # with JAX it is 0
def test_inputs_that_the_output_does_not_depend_on_have_no_gradient_norm():
    net = keras.Sequential([keras.Input((3,)), layers.Embedding(4, 2), layers.Flatten()])
    net.add(layers.Dense(nets.CLASSES))
    model = FisherPenaltyModel(net, penalty="gp_x")
    model.compile("sgd", nets.loss())
    with pytest.raises(ValueError, match=r"floating-point inputs for 'gp_x'"):
        model.fit(np.ones((6, 3), "float32"), nets.labels(), verbose=0)


def test_renormalised_batches_need_a_finite_difference():
    net = keras.Sequential([keras.Input((4,)), layers.BatchNormalization(renorm=True)])
    net.add(layers.Dense(nets.CLASSES))
    with pytest.raises(NotImplementedError, match=r"renorm=True.*'batch_normalization"):
        FisherPenaltyModel(net).compile("sgd", nets.loss())
    model = FisherPenaltyModel(net, gradient="finite_difference")
    model.compile("sgd", nets.loss(), run_eagerly=True)
    model.train_on_batch(*DATA)


def frozen_first(model):
    model.backbone.layers[0].trainable = False


CHANGES = {
    "freezing": frozen_first,
    "quantizing the backbone": lambda model: model.backbone.quantize("int8"),
    "quantizing the model": lambda model: model.quantize("int8"),
    "adapting": lambda model: model.backbone.layers[0].enable_lora(2),
    "freezing one and unfreezing another": lambda model: (
        frozen_first(model),
        setattr(model.backbone.layers[1], "trainable", True),
    ),
}


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("train", ["fit", "train_on_batch"])
def test_changing_what_is_trained_asks_for_another_compile(change, train):
    net = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(4)])
    net.layers[1].trainable = "unfreezing" not in change
    model = FisherPenaltyModel(net)
    model.compile("adam", nets.loss())
    getattr(model, train)(*DATA)
    CHANGES[change](model)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"Call `compile` again.*Received: \d trainable"):
            getattr(model, train)(*DATA)
    model.compile("adam", nets.loss())
    getattr(model, train)(*DATA)


@reference.tensorflow_only
def test_freezing_before_the_penalised_step_is_traced_asks_for_another_compile():
    model = nets.compiled("dense", alpha=0.0)

    class FreezeAndPenalise(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            frozen_first(model)
            model.alpha = 0.1

    with pytest.raises(ValueError, match=r"Call `compile` again.*Received: \d trainable"):
        model.fit(*DATA, batch_size=2, callbacks=[FreezeAndPenalise()], verbose=0)


@reference.jax_only
def test_adapting_a_frozen_layer_asks_for_none():
    def trained(adapted):
        model = nets.compiled("dense", alpha=0.0)
        frozen_first(model)
        model.compile("sgd", nets.loss())
        model.fit(*DATA, verbose=0)
        if adapted:
            model.backbone.layers[0].enable_lora(2)  # of 0, as long as nothing trains it
        return model.fit(*DATA, shuffle=False, verbose=0).history["loss"]

    assert trained(adapted=True) == trained(adapted=False)


def test_a_compiled_backbone_does_not_compile_the_model():
    backbone = nets.plain("dense")
    model = FisherPenaltyModel(backbone)
    with pytest.raises(ValueError, match="`compile` must be called on the FisherPenaltyModel"):
        model.fit(nets.inputs("dense"), nets.labels(), verbose=0)


@pytest.mark.parametrize("make_data", [np.array, lambda x: tf.data.Dataset.from_tensors(x)])
@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_data_without_labels_are_refused(method, make_data):
    model = nets.compiled("dense", compile_args={"metrics": ["accuracy"]})
    with pytest.raises(ValueError, match="`y` must be given"):
        getattr(model, method)(make_data(nets.inputs("dense")), verbose=0)


def test_float8_layers_are_refused():
    net = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dense(nets.CLASSES)])
    net.quantize("float8")
    with pytest.raises(ValueError, match="`backbone` must not be quantised to float8"):
        FisherPenaltyModel(net)
    with pytest.raises(ValueError, match="`model` must not be quantised to float8"):
        kf.fisher_trace(net, DATA, likelihood=Categorical())


def test_a_step_of_the_backbones_own_is_reported(caplog):
    class Own(keras.Model):
        def compute_loss(self, **_):
            return 0.0

    FisherPenaltyModel(Own())
    assert "The methods compute_loss of Own are ignored" in caplog.text


@pytest.mark.skipif(reference.IS_TENSORFLOW, reason="the likelihood reads the logits there")
@pytest.mark.parametrize(
    ("activation", "likelihood"), [("softmax", Categorical), ("sigmoid", Bernoulli)]
)
def test_probabilities_for_a_likelihood_of_logits_are_reported(activation, likelihood, caplog):
    net = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation)])
    loss = keras.losses.KLDivergence()
    FisherPenaltyModel(net, likelihood=likelihood(from_logits=False)).compile("sgd", loss)
    assert not caplog.text
    FisherPenaltyModel(net, likelihood=likelihood()).compile("sgd", loss)
    assert f"Pass likelihood={likelihood.__name__}(from_logits=False)" in caplog.text
