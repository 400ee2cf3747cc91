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
