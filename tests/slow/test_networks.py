"""Every network of the zoo, at full depth, with every penalty and trace, on a few random images."""

from functools import partial

import keras
import numpy as np
import pytest

import keras_fisher as kf
from keras_fisher import zoo
from tests import nets

pytestmark = pytest.mark.slow

BATCH, STEPS = 4, 3
MEASURING = {"likelihood": kf.likelihoods.Categorical(), "batch_size": BATCH}
CIFAR, IMAGES = (32, 32, 3), (64, 64, 3)
NETWORKS = {
    "SimpleCNN": partial(zoo.simple_cnn, CIFAR, 10),
    "VGG-11": partial(zoo.vgg11, CIFAR, 100),
    "Wide ResNet 44-3": partial(zoo.wide_resnet, CIFAR, 100),
    "Wide ResNet 44-3, SkipInit": partial(zoo.wide_resnet, CIFAR, 100, batch_norm=False),
    "DenseNet 40-12": partial(zoo.densenet, CIFAR, 100),
    "ResNet 26": partial(zoo.resnet, CIFAR, 10),
    "ResNet 26, weight norm": partial(zoo.resnet, CIFAR, 10, batch_norm=False),
    "ResNet 50": partial(zoo.resnet, CIFAR, 10, depth=50),
    "ResNet 50, weight norm": partial(zoo.resnet, CIFAR, 10, depth=50, batch_norm=False),
    "ResNet 56": partial(zoo.resnet, CIFAR, 10, depth=56),
    "ResNet 56, weight norm": partial(zoo.resnet, CIFAR, 10, depth=56, batch_norm=False),
    "ResNet-18, Fixup": partial(zoo.resnet18, IMAGES, 1000),
}
# Tracing the second derivatives of a deep network takes far longer than a few steps of it.
TRACED = ("SimpleCNN", "VGG-11", "Wide ResNet 44-3", "ResNet 26, weight norm")


@pytest.fixture(scope="module", params=NETWORKS)
def subject(request):
    """A network, examples for it, and whether its training is traced."""
    model = NETWORKS[request.param](seed=0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, *model.input_shape[1:])).astype("float32")
    y = rng.integers(model.output_shape[-1], size=BATCH).astype("int32")
    return model, x, y, request.param in TRACED


def compiled(model, is_traced=True, **arguments):
    penalised = kf.FisherPenaltyModel(model, alpha=0.01, update_freq=1, seed=0, **arguments)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    penalised.compile(keras.optimizers.SGD(1e-3), loss, run_eagerly=not is_traced)
    return penalised


@pytest.mark.parametrize("penalty", ["fp", "gp", "gp_x", "gp_r"])
def test_it_trains(subject, penalty):
    backbone, x, y, is_traced = subject
    model = compiled(backbone, is_traced, penalty=penalty)
    before = [nets.array(weight) for weight in backbone.trainable_weights]
    logs = [model.train_on_batch(x, y, return_dict=True) for _ in range(STEPS)]
    assert np.isfinite([[log["loss"], log["penalty"]] for log in logs]).all()
    # Only at the last step: a network whose logits start at 0 has no gradient by its inputs.
    assert logs[-1]["penalty"] > 0
    after = [nets.array(weight) for weight in backbone.trainable_weights]
    assert all(np.isfinite(weight).all() for weight in after)
    assert not all(map(np.array_equal, before, after))


def test_its_traces_have_no_slow_way_and_are_finite(subject, caplog):
    model, x, y, _ = subject
    fisher = kf.fisher_trace(model, (x, y), seed=0, **MEASURING)
    hessian = kf.hessian_trace(model, (x, y), num_probes=2, seed=0, **MEASURING)
    assert [record.message for record in caplog.records if record.name == "keras_fisher"] == []
    minibatch = kf.minibatch_fisher_trace(model, (x, y), seed=0, **MEASURING)
    norm = kf.gradient_norm(model, (x, y), likelihood=MEASURING["likelihood"])
    for trace in (fisher, minibatch, norm):
        assert 0 < trace.value < np.inf
    assert np.isfinite([hessian.value, hessian.stderr]).all()
    assert hessian.value != 0  # of either sign
