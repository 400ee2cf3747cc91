"""Trains on virtual CPU devices and on one, and prints what differs; run by test_agreement.py."""

import contextlib
import json
import sys
import tempfile

import jax
import keras
import numpy as np

import keras_fisher as kf
from tests import nets
from tests.double_precision import use_double_precision

BATCH = 16
CASES = {
    "fp": {},
    "gp_x": {"penalty": "gp_x"},
    "gp by difference": {"penalty": "gp", "gradient": "finite_difference"},
    "a share of the batch": {"penalty": "gp", "penalty_batch_size": 0.25},
    "in parts": {"penalty": "gp", "micro_batch_size": 4},
}


# The same with weights that are spread over the devices.
SHARDED = {
    "fp, sharded": {},
    "gp_x in parts, sharded": {"penalty": "gp_x", "micro_batch_size": 4},
}


def sharded():
    """Two parts of each batch, on two devices each, which share the kernels."""
    mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"])
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[".*kernel"] = ("model", None)
    return keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")


def trained(name, on, **arguments):
    with on:
        model = nets.compiled(
            name, keras.optimizers.SGD(0.1, momentum=0.9), alpha=0.5, update_freq=2, **arguments
        )
        x, y = nets.inputs(name, 4 * BATCH), nets.labels(4 * BATCH)
        history = model.fit(x, y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0).history
        traces = [
            kf.fisher_trace(model, (x, y), labels="expected").value,
            kf.hessian_trace(model, (x, y), seed=0).value,
        ]
        kernel, kept = model.trainable_weights[0], model._state.gradients[0]
        assert kept.value.sharding == kernel.value.sharding
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/model.keras"
            model.save(path)
            again = keras.models.load_model(path)
        assert again.trainable_weights[0].value.sharding == kernel.value.sharding
        again.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
        parts = len({str(shard.index) for shard in kernel.value.addressable_shards})
        devices = len(kernel.value.sharding.device_set)
    weights = nets.flat([*model.weights, *again.weights])
    return np.array([*weights, *history["loss"], *history["penalty"], *traces]), devices, parts


def compared(name, distribution, arguments):
    alone, *one = trained(name, contextlib.nullcontext(), **arguments)
    together, *several = trained(name, distribution.scope(), **arguments)
    return {"devices": [one, several], "error": float(nets.relative_error(together, alone))}


def in_dispatches(steps):
    """Weights after two epochs of five batches, the last one smaller, so many in a dispatch.

    In one dispatch as on an accelerator; by themselves as on a CPU.
    """
    jax.default_backend = lambda: "cpu" if steps == 1 else "gpu"
    arguments = {"steps_per_execution": steps, "metrics": ["accuracy"]}
    model = nets.compiled("dropout", keras.optimizers.SGD(0.1), alpha=0.5, compile_args=arguments)
    x, y = nets.inputs("dropout", 4 * BATCH + 3), nets.labels(4 * BATCH + 3)
    fit = model.fit(x, y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0)
    return [*nets.flat(model.weights).tolist(), *fit.history["accuracy"], *fit.history["penalty"]]


if __name__ == "__main__":
    assert len(jax.devices()) == 4
    use_double_precision()
    parallel = keras.distribution.DataParallel()
    found = {case: compared("subclassed", parallel, CASES[case]) for case in CASES}
    found |= {case: compared("subclassed", sharded(), SHARDED[case]) for case in SHARDED}
    found["dispatches"] = [in_dispatches(steps) for steps in (1, 2, 5)]
    json.dump(found, sys.stdout)
