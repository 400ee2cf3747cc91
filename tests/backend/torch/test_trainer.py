"""What PyTorch's own generator draws, loaders of batches, and steps that are not compiled."""

import keras
import numpy as np
import pytest

import keras_fisher as kf
from keras_fisher.utils import messages
from tests import nets, reference

torch = pytest.importorskip("torch")
pytestmark = reference.torch_only

X, Y = nets.inputs("dense", batch=24), nets.labels(batch=24)


def with_dropout(alpha=0.5, **arguments):
    """Keras draws the masks of unseeded dropout from PyTorch's own generator."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, "tanh"), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
    net = keras.Sequential([keras.Input((4,)), *layers])
    model = kf.FisherPenaltyModel(net, alpha, seed=0, **arguments)
    model.compile(keras.optimizers.SGD(0.1), nets.loss())
    return model


def fit(model, **arguments):
    return model.fit(X, Y, batch_size=6, shuffle=False, verbose=0, **arguments)


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_training_with_unseeded_dropout_resumes_exactly(tmp_path, micro_batch_size):
    arguments = {"update_freq": 3, "micro_batch_size": micro_batch_size}
    expected = with_dropout(**arguments)
    fit(expected, epochs=2)
    first = with_dropout(**arguments)
    fit(first)
    first.save(tmp_path / "model.keras")
    torch.manual_seed(17)
    resumed = keras.models.load_model(tmp_path / "model.keras")
    fit(resumed)
    np.testing.assert_array_equal(
        nets.flat(resumed.backbone.weights), nets.flat(expected.backbone.weights)
    )


def test_masks_differ_between_steps_and_micro_batches():
    seen = []

    class Sees(keras.layers.Layer):
        def call(self, inputs):
            seen.append(nets.array(inputs == 0.0))
            return inputs

    net = keras.Sequential(
        [keras.Input((50,)), keras.layers.Dropout(0.5), Sees(), keras.layers.Dense(3)]
    )
    model = kf.FisherPenaltyModel(net, 0.1, update_freq=1, micro_batch_size=3, seed=0)
    model.compile("sgd", nets.loss())
    x = np.ones((6, 50), "float32")
    for _ in range(2):
        seen.clear()
        model.train_on_batch(x, nets.labels())
        whole, *parts = [mask for mask in seen if mask.any()]
        shown = {mask.tobytes() for mask in (whole[:3], whole[3:], *parts)}
        assert len(parts) == 4  # two passes of two parts
        assert len(shown) == 3  # the first part has the mask of the step
        step, *_ = shown
        assert step


def test_penalised_steps_leave_pytorchs_generator_alone():
    model = with_dropout()
    before = torch.get_rng_state()
    model.train_on_batch(X, Y)
    assert torch.equal(torch.get_rng_state(), before)


def loader():
    data = torch.utils.data.TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))
    return torch.utils.data.DataLoader(data, batch_size=6)


def test_a_loader_is_trained_on_and_measured_like_arrays():
    from_arrays, from_loader = (nets.compiled("dense", penalty="gp") for _ in range(2))
    fit(from_arrays, epochs=2, callbacks=[kf.callbacks.FisherTrace((X, Y), labels="given")])
    history = from_loader.fit(
        loader(),
        validation_data=loader(),
        epochs=2,
        verbose=0,
        callbacks=[kf.callbacks.FisherTrace(loader(), labels="given")],
    ).history
    np.testing.assert_array_equal(
        nets.flat(from_loader.backbone.weights), nets.flat(from_arrays.backbone.weights)
    )
    assert history["fisher_trace"] == pytest.approx(
        from_arrays.history.history["fisher_trace"], rel=1e-6
    )


TRACES = {
    kf.fisher_trace: {"labels": "given"},
    kf.minibatch_fisher_trace: {"labels": "given"},
    kf.hessian_trace: {"seed": 0},
    kf.gradient_norm: {},
}


@pytest.mark.parametrize("measure", TRACES)
def test_traces_of_a_loader_are_those_of_arrays(measure):
    net = nets.plain("dense")
    # Tr(F) of mini-batches depends on their size.
    options = {} if measure is kf.hessian_trace else {"batch_size": 6}
    from_arrays = measure(net, (X, Y), **options, **TRACES[measure])
    assert measure(net, loader(), **TRACES[measure]).value == pytest.approx(
        from_arrays.value, rel=1e-4
    )


def test_jit_compile_leaves_the_step_uncompiled_and_says_so_once(caplog):
    messages.warn_once.cache_clear()

    def trained(**arguments):
        model = nets.compiled("dense", compile_args=arguments)
        for _ in range(2):
            fit(model)
        return nets.flat(model.backbone.weights)

    np.testing.assert_array_equal(trained(jit_compile=True), trained())
    (said,) = [record.message for record in caplog.records]
    assert said.startswith("jit_compile=True compiles `evaluate` and `predict` on PyTorch, but not")


def kept_gradient(net, **arguments):
    model = kf.FisherPenaltyModel(net, 1.0, penalty="gp", update_freq=1, **arguments)
    return nets.first_penalty(model, nets.loss(), X, Y)[1]


def deep(activation="tanh"):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, activation) for _ in range(2)]
    return keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(3)])


@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 12}, {"penalty_batch_size": 24}])
def test_layers_that_compute_again_see_the_shifted_weights(options):
    with keras.RematScope("full"):
        net = deep()
    found = kept_gradient(net, gradient="finite_difference", **options)
    assert nets.relative_error(found, kept_gradient(deep(), **options)) < 0.01


@keras.ops.custom_gradient
def softplus(x):
    e = keras.ops.exp(x)
    return keras.ops.log(1 + e), lambda *_, upstream: upstream * (1 - 1 / (1 + e))


@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 12}])
def test_custom_gradients_are_differentiated_again(options):
    expected = kept_gradient(deep("softplus"), **options)
    np.testing.assert_allclose(kept_gradient(deep(softplus), **options), expected, rtol=1e-4)
