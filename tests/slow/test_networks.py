"""Every network of the zoo, at full depth, with every penalty and trace, on a few random images."""

import keras
import numpy as np
import pytest

import keras_fisher as kf
from tests import nets
from tests.zoo.networks import FULL

pytestmark = pytest.mark.slow

BATCH, STEPS = 4, 3
MEASURING = {"likelihood": kf.likelihoods.Categorical(), "batch_size": BATCH}
# Tracing the second derivatives of a deep network takes far longer than a few steps of it.
TRACED = ("simple_cnn", "vgg11", "wide_resnet", "resnet-26-weight_norm")


@pytest.fixture(scope="module", params=FULL)
def subject(request):
    """A network, examples for it, and whether its training is traced."""
    size = 64 if request.param == "resnet18" else 32
    model = FULL[request.param](input_shape=(size, size, 3), seed=0)
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
