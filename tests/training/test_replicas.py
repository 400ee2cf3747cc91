"""Several replicas, of one process and of several, train what one device trains."""

import functools
import itertools
import json

import numpy as np
import pytest

from tests import nets, reference
from tests.processes import configurations, printed, start

tf = pytest.importorskip("tensorflow")
pytestmark = reference.tensorflow_only
# `python -m tests.replicas 2` tries every case; a difference of gradients has half of the digits.
CASES = {
    2: {
        "fp": 1e-10,
        "fp with a limit, eagerly": 1e-6,
        "batch norm of the first, eagerly": 1e-10,
        "attention, eagerly": 1e-10,
    },
    4: {
        "fp of a share, in parts, by difference, eagerly": 1e-8,
        "gp_x of the first, eagerly": 1e-10,
        "padding, of a share, in parts, eagerly": 1e-10,
        "synchronized batch norm by difference, eagerly": 1e-8,
        "mixed_float16, eagerly": 1e-2,
    },
}
LOOKS = ("labels", "refusals", "trouble", "skips an overflow")
WORKERS = 3


def trained(strategy):
    with strategy.scope():
        model = nets.compiled("subclassed", seed=0)
    x, y = nets.inputs("subclassed"), nets.labels()
    history = model.fit(x, y, batch_size=4, epochs=2, validation_data=(x, y), verbose=0).history
    return nets.flat(model.backbone.weights).tolist(), history


@pytest.mark.slow
def test_one_device_strategy_trains_as_without_one():
    strategies = tf.distribute.get_strategy(), tf.distribute.OneDeviceStrategy("CPU:0")
    expected, found = (trained(strategy) for strategy in strategies)
    assert found == expected


@pytest.mark.slow
def test_a_mirrored_strategy_of_one_device_trains_what_one_device_does():
    expected = trained(tf.distribute.get_strategy())
    weights, logs = trained(tf.distribute.MirroredStrategy(["CPU:0"]))
    np.testing.assert_allclose(weights, expected[0], rtol=1e-5)
    for key, values in expected[1].items():
        np.testing.assert_allclose(logs[key], values, rtol=1e-5)


# ---- Of one process ------------------------------------------------------------------------------


@functools.cache
def replicas(number):
    program = start("-m", "tests.replicas", number, *CASES[number], *LOOKS)
    return json.loads(printed(program))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "case"),
    [(n, case) for n in CASES for case in CASES[n]],
)
def test_replicas_train_what_one_device_does(number, case):
    assert replicas(number)[case] < CASES[number][case]


@pytest.mark.slow
@pytest.mark.parametrize("number", CASES)
def test_every_replica_draws_its_own_labels(number):
    labels = replicas(number)["labels"]
    assert len(labels) == number
    for one, other in itertools.combinations(labels, 2):
        assert one != other


@pytest.mark.slow
@pytest.mark.parametrize("number", CASES)
def test_what_keras_cannot_do_on_replicas_is_refused(number):
    messages = replicas(number)["refusals"]
    assert "`steps_per_execution` must be 1 " in messages["steps_per_execution"]
    assert "`jit_compile` must be False " in messages["jit_compile"]
    assert "`gradient_accumulation_steps` must be None " in messages["gradient_accumulation_steps"]
    assert "`global_clipnorm` must be None " in messages["global_clipnorm"]
    assert "`clipnorm` must be None " in messages["clipnorm"]
    assert "`loss` must be a mean over the batch " in messages["loss"]
    assert "`micro_batch_size` must be None " in messages["micro_batch_size"]
    assert "`ema_overwrite_frequency` must be None " in messages["ema_overwrite_frequency"]
    assert "`gradient` must be 'exact', or run_eagerly True, " in messages["gradient"]
    assert "`train_step` must be that of FisherPenaltyModel " in messages["train_step"]
    said = messages["scalar losses"]
    assert len(said) == 3
    assert all("`loss` must return a value for each example " in message for message in said)


@pytest.mark.slow
@pytest.mark.parametrize("number", CASES)
def test_all_replicas_skip_a_step_in_which_one_overflows(number):
    assert replicas(number)["skips an overflow"]


@pytest.mark.slow
@pytest.mark.parametrize("number", CASES)
def test_a_loss_that_is_nan_on_one_replica_is_told_at_its_step(number):
    steps, told, refused = replicas(number)["trouble"]
    assert steps == 2
    assert told.startswith("At step 1 (counted from 0) the loss became NaN")
    assert "`action` must be 'stop' under a tf.distribute strategy that mirrors" in refused


# ---- Of several processes ------------------------------------------------------------------------


def together(folder):
    """Starts all workers."""
    configs = configurations(WORKERS)
    return [start("-m", "tests.workers", folder, TF_CONFIG=config) for config in configs]


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """What workers end with of which one is killed, and all are started again; and where."""
    folder = tmp_path_factory.mktemp("workers")
    (folder / "kill").touch()
    first = together(folder)
    errors = [process.communicate()[1] for process in first]
    assert first[1].returncode < 0, errors
    assert all(process.returncode > 0 for process in (first[0], *first[2:])), errors
    return folder, [json.loads(printed(process)) for process in together(folder)]


@pytest.mark.slow
def test_workers_of_which_one_was_killed_end_as_one_device_does(workers, tmp_path):
    expected = json.loads(printed(start("-m", "tests.workers", tmp_path)))
    # A backup of Keras's holds the model, and not what callbacks have seen.
    del expected["last"]["fisher_trace_peak"]
    for worker in workers[1]:
        np.testing.assert_allclose(worker["weights"], expected["weights"], atol=1e-10)
        for key, value in expected["last"].items():
            assert worker["last"][key] == pytest.approx(value, rel=1e-6), key


@pytest.mark.slow
def test_the_chief_alone_writes(workers):
    folder = workers[0]
    assert {path.name for path in folder.iterdir()} == {"model.keras", "tensorboard"}
    # One file for each of the two times that it was started.
    assert len([*(folder / "tensorboard" / "train").iterdir()]) == 2
