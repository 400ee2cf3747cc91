"""Modules of `torch.nn` as layers of a penalised model."""

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets, reference

torch = pytest.importorskip("torch")
pytestmark = reference.torch_only

X, Y = nets.inputs("dense"), nets.labels()


def model_of(alpha=1.0, wrapped=True, **arguments):
    """A model whose only layer is a module, with statistics and draws of its own."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 5),
        torch.nn.Tanh(),
        torch.nn.BatchNorm1d(5),
        torch.nn.Dropout(0.3),
        torch.nn.Linear(5, nets.CLASSES),
    )
    net = keras.Sequential([keras.Input((4,)), keras.layers.TorchModuleWrapper(module)])
    model = kf.FisherPenaltyModel(net, alpha, seed=0, **arguments) if wrapped else net
    model.compile(keras.optimizers.SGD(0.1), nets.loss())
    return model, module


def trained(model, module, steps=3):
    torch.manual_seed(1)
    for _ in range(steps):
        model.train_on_batch(X, Y)
    return {name: nets.array(value) for name, value in module.state_dict().items()}


def assert_same(found, expected, rtol=1e-6, atol=0.0):
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol, atol, err_msg=name)


@pytest.mark.parametrize("penalty", ["fp", "gp_x"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"gradient": "finite_difference"},
        {"penalty_batch_size": nets.BATCH},
        {"penalty_batch_size": nets.BATCH, "gradient": "finite_difference"},
    ],
)
def test_further_passes_move_the_parameters_and_leave_the_statistics(penalty, arguments):
    options = {"penalty": penalty, "update_freq": 1}
    plain, expected, found = (
        trained(*model_of(**given), steps=1)
        for given in (options | {"alpha": 0.0}, options, options | arguments)
    )
    moves = [
        nets.flat([some[name] - plain[name] for name in plain if "running" not in name])
        for some in (found, expected)
    ]
    # The masks of a plain step are not those of a penalised one.
    assert nets.relative_error(*moves) < 1e-2
    statistics = [name for name in plain if "running" in name or "num" in name]
    assert_same(*({name: some[name] for name in statistics} for some in (found, expected)))


class Scaled(keras.layers.TorchModuleWrapper):
    """A layer with a call of its own, which reads a weight of its module."""

    def call(self, x, training=None):
        return super().call(x, training=training) * self.module.weight.square().sum()


def test_a_layer_with_its_own_call_is_penalised_as_it_is_called():
    def updated(**arguments):
        torch.manual_seed(0)
        module = torch.nn.Linear(4, nets.CLASSES)
        net = keras.Sequential([keras.Input((4,)), Scaled(module)])
        model = kf.FisherPenaltyModel(net, 1.0, penalty="gp", update_freq=1, **arguments)
        model.compile(keras.optimizers.SGD(0.1), nets.loss())
        return trained(model, module, steps=1)

    expected = updated()  # the only pass is the one of the loss
    assert_same(updated(penalty_batch_size=nets.BATCH), expected, rtol=1e-5, atol=1e-6)


def test_micro_batches_are_those_of_a_share_each():
    whole = {"penalty": "gp", "update_freq": 1, "penalty_batch_size": 2}
    expected = trained(*model_of(**whole), steps=1)
    found = trained(*model_of(**whole, micro_batch_size=2), steps=1)
    assert_same(found, expected, rtol=1e-5, atol=1e-6)


def test_alpha_0_trains_the_module_as_plain_keras():
    assert_same(trained(*model_of(alpha=0.0)), trained(*model_of(wrapped=False)), rtol=0, atol=0)


def trained_linear(compiles=True, **arguments):
    torch.manual_seed(0)
    linear = torch.nn.Linear(4, nets.CLASSES)
    module = torch.compile(linear, backend="aot_eager") if compiles else linear
    net = keras.Sequential([keras.Input((4,)), keras.layers.TorchModuleWrapper(module)])
    model = kf.FisherPenaltyModel(net, 1.0, penalty="gp", **arguments)
    model.compile(keras.optimizers.SGD(0.1), nets.loss())
    model.train_on_batch(X, Y)
    return nets.array(linear.weight)


@pytest.mark.slow
def test_a_compiled_module_is_refused_by_name_and_differentiated_by_difference():
    with pytest.raises(NotImplementedError, match=r"finite_difference.*torch\.compile"):
        trained_linear()
    found = trained_linear(gradient="finite_difference")
    np.testing.assert_allclose(found, trained_linear(compiles=False), rtol=1e-3, atol=1e-4)


def test_traces_of_a_module_are_those_of_the_same_keras_layer():
    dense = nets.build("dense")
    linears = [torch.nn.Linear(4, 5), torch.nn.Linear(5, nets.CLASSES)]
    with torch.no_grad():
        for linear, layer in zip(linears, dense.layers, strict=True):
            linear.weight.copy_(layer.kernel.value.T)
            linear.bias.copy_(layer.bias.value)
    module = torch.nn.Sequential(linears[0], torch.nn.Tanh(), linears[1])
    net = keras.Sequential([keras.Input((4,)), keras.layers.TorchModuleWrapper(module)])
    for model in (dense, net):
        model.compile("sgd", nets.loss())
    for measure in (kf.fisher_trace, kf.minibatch_fisher_trace):
        values = [measure(model, (X, Y), labels="given").value for model in (net, dense)]
        assert values[0] == pytest.approx(values[1], rel=1e-5)
    values = [kf.hessian_trace(m, (X, Y), num_probes=2000, seed=0).value for m in (net, dense)]
    assert values[0] == pytest.approx(values[1], rel=0.2)


# ---- What plain passes do once -------------------------------------------------------------------


class InPlace(torch.nn.Module):
    """Normalises its input in place."""

    def __init__(self, in_place=True):
        super().__init__()
        self.linear, self.in_place = torch.nn.Linear(4, nets.CLASSES), in_place

    def forward(self, x):
        return self.linear(x.sub_(1.0).div_(2.0) if self.in_place else (x - 1.0) / 2.0)


def wrapped(make, alpha=1.0, **arguments):
    torch.manual_seed(0)
    module = make()
    net = keras.Sequential([keras.Input((4,)), keras.layers.TorchModuleWrapper(module)])
    model = kf.FisherPenaltyModel(net, alpha, penalty="gp", update_freq=1, seed=0, **arguments)
    model.compile(keras.optimizers.SGD(0.1), nets.loss())
    return model, module


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"gradient": "finite_difference"},
        {"penalty_batch_size": nets.BATCH},
        {"micro_batch_size": 2},
    ],
)
def test_modules_may_work_on_their_input_in_place(arguments):
    found, expected = (
        trained(*wrapped(lambda i=in_place: InPlace(i), **arguments)) for in_place in (True, False)
    )
    assert_same(found, expected)


def test_measurements_leave_their_data_to_modules_that_work_in_place():
    models = [wrapped(lambda in_place=in_place: InPlace(in_place))[0] for in_place in (True, False)]
    for measure in (kf.fisher_trace, kf.gradient_norm, kf.hessian_trace):
        options = {"labels": "given"} if measure is kf.fisher_trace else {}
        found, expected = (measure(model, (X, Y), **options) for model in models)
        if measure is not kf.hessian_trace:  # whose probes are random
            assert float(getattr(found, "value", found)) == pytest.approx(
                float(getattr(expected, "value", expected))
            )


class WrittenOut(torch.nn.Module):
    """A linear layer with weight normalisation, in plain operations."""

    def __init__(self, linear):
        super().__init__()
        self.bias = linear.bias
        self.g = torch.nn.Parameter(linear.weight.detach().norm(dim=1, keepdim=True))
        self.v = torch.nn.Parameter(linear.weight.detach().clone())

    def forward(self, x):
        return x @ (self.g * self.v / self.v.norm(dim=1, keepdim=True)).T + self.bias


def test_weight_normalisation_is_differentiated_twice():
    normalise = torch.nn.utils.parametrizations.weight_norm
    models = [
        wrapped(lambda make=make: make(torch.nn.Linear(4, nets.CLASSES)))[0]
        for make in (normalise, WrittenOut)
    ]
    for model in models:
        model.train_on_batch(X, Y)
    assert_same(*({str(i): nets.array(w) for i, w in enumerate(m.weights)} for m in models))
    found, expected = (
        kf.hessian_trace(model, (X, Y), estimator="xtrace", num_probes=36, seed=0).value
        for model in models
    )
    assert found == pytest.approx(expected, rel=1e-4)


def test_alpha_range_and_recalibration_leave_statistics_of_modules():
    model, module = model_of()
    before = {name: nets.array(value).copy() for name, value in module.named_buffers()}
    kf.tuning.alpha_range(model, (X, Y), num_batches=1, batch_size=nets.BATCH, seed=0)
    assert_same({name: nets.array(value) for name, value in module.named_buffers()}, before)


def test_a_guard_that_would_skip_steps_refuses_statistics_that_it_cannot_restore():
    model, _ = model_of()
    with pytest.raises(ValueError, match=r"`action` must be 'stop' for a torch module with buffe"):
        model.fit(X, Y, callbacks=[kf.callbacks.NonFiniteGuard("skip")], verbose=0)


def test_a_parameter_that_was_frozen_after_it_was_wrapped_is_named():
    model, module = model_of()
    module[0].requires_grad_(False)
    with pytest.raises(ValueError, match=r"frozen.*requires_grad=False.*before you wrap"):
        model.fit(X, Y, verbose=0)


def test_inference_mode_is_refused_where_all_gradients_would_be_0():
    model, _ = model_of()
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"torch\.no_grad\(\) instead"):
        kf.fisher_trace(model, (X, Y))
    with torch.no_grad():
        assert kf.fisher_trace(model, (X, Y)).value > 0


def test_batches_in_the_same_tensors_are_kept_apart():
    x, y = np.concatenate([X, X + 1.0]), np.concatenate([Y, Y])

    class Filled(keras.utils.PyDataset):
        num_batches = 2

        def __init__(self):
            super().__init__()
            self.x, self.y = torch.empty(nets.BATCH, 4), torch.empty(nets.BATCH, dtype=torch.int64)

        def __getitem__(self, index):
            rows = slice(index * nets.BATCH, (index + 1) * nets.BATCH)
            self.x.copy_(torch.tensor(x[rows]))
            self.y.copy_(torch.tensor(y[rows]))
            return self.x, self.y

    model = nets.build("dense")
    model.compile("sgd", nets.loss())
    found, expected = (
        kf.hessian_trace(model, data, estimator="xtrace", num_probes=6, seed=0).value
        for data in (Filled(), (x, y))
    )
    assert found == pytest.approx(expected, rel=1e-4)


def test_neighbouring_seeds_of_a_trace_share_no_draws():
    model = nets.build("dense")
    model.compile("sgd", nets.loss())
    x = np.tile(nets.inputs("dense"), (40, 1))
    traces = [kf.fisher_trace(model, (x, None), seed=s, batch_size=24).value for s in range(40)]
    assert abs(np.corrcoef(traces[:-1], traces[1:])[0, 1]) < 0.4


def test_a_search_may_begin_modules_with_other_weights(tmp_path):
    def build(alpha):
        net = keras.Sequential([keras.Input((4,))])
        net.add(keras.layers.TorchModuleWrapper(torch.nn.Linear(4, nets.CLASSES)))
        model = kf.FisherPenaltyModel(net, alpha, update_freq=1, seed=0)
        model.compile(keras.optimizers.SGD(0.1), nets.loss(), metrics=["accuracy"])
        return model

    found = [
        kf.tuning.find_alpha(
            build,
            (X, Y),
            validation_data=(X, Y),
            epochs=2,
            alphas=(0.1, 0.3),
            directory=tmp_path,
            verbose=0,
        ).alpha
        for _ in range(2)
    ]
    assert found[0] == found[1]


def test_measuring_leaves_a_loaders_generator_and_its_only_iterator():
    dataset = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    generator = torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(dataset, 2, shuffle=True, generator=generator)

    def weights(callbacks):
        generator.manual_seed(0)
        model = nets.compiled("dense", alpha=0.0)
        model.fit(loader, epochs=3, callbacks=callbacks, verbose=0)
        return nets.flat(model.trainable_weights)

    measured = weights([kf.callbacks.FisherTrace(loader)])
    np.testing.assert_array_equal(measured, weights([]))
    kept = torch.utils.data.DataLoader(dataset, 2, num_workers=1, persistent_workers=True)
    with pytest.raises(ValueError, match=r"without persistent workers if `freq`.*freq=2"):
        kf.callbacks.FisherTrace(kept, freq=2)


def test_recalibration_reports_the_statistics_that_it_keeps():
    model, module = model_of()
    kept = nets.array(module[2].running_mean)
    fresh = kf.callbacks.BatchNormRecalibration((X,), batch_size=nets.BATCH)
    with pytest.warns(UserWarning, match="keeps the running statistics of torch modules"):
        model.evaluate(X, Y, callbacks=[fresh], verbose=0)
    np.testing.assert_array_equal(nets.array(module[2].running_mean), kept)


def test_a_module_must_not_add_parameters_after_its_layer_is_built():
    model, module = model_of(gradient="finite_difference")
    module.append(torch.nn.Linear(nets.CLASSES, nets.CLASSES))
    with pytest.raises(ValueError, match=r"whose parameter '5\.weight' is new"):
        model.train_on_batch(X, Y)
