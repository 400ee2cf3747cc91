"""Several replicas, of one process and of several, train what one device trains."""

import itertools
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

# `python -m tests.replicas 2` tries every case; a difference of gradients has half of the digits.
CASES = {
    2: {"fp": 1e-10, "batch norm, eagerly": 1e-10, "attention, eagerly": 1e-10},
    4: {
        "gp_x of the first, eagerly": 1e-10,
        "synchronized batch norm by difference, eagerly": 1e-8,
        "mixed_float16, eagerly": 1e-2,
    },
}
WORKERS = 2


def start(module, *arguments, config=None):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "CUDA_VISIBLE_DEVICES": "",
        **({"TF_CONFIG": json.dumps(config)} if config else {}),
    }
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def printed(process):
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return json.loads(output)


# ---- Of one process ------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=CASES)
def replicas(request):
    return request.param, printed(start("tests.replicas", request.param, *CASES[request.param]))


def test_replicas_train_what_one_device_does(replicas):
    number, found = replicas
    for case, difference in found["differences"].items():
        assert difference < CASES[number][case], case


def test_every_replica_draws_its_own_labels(replicas):
    number, found = replicas
    assert len(found["labels"]) == number
    for one, other in itertools.combinations(found["labels"], 2):
        assert one != other


def test_what_keras_cannot_do_on_replicas_is_refused(replicas):
    messages = replicas[1]["refusals"]
    assert "`steps_per_execution` must be 1 " in messages["steps_per_execution"]
    assert "`jit_compile` must be False " in messages["jit_compile"]
    assert "`gradient_accumulation_steps` must be None " in messages["gradient_accumulation_steps"]
    assert "`loss` must be a mean over the batch " in messages["loss"]


# ---- Of several processes ------------------------------------------------------------------------


def together(folder, number):
    """Starts workers once, and returns them."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    hosts = [f"127.0.0.1:{free.getsockname()[1]}" for free in sockets]
    for free in sockets:
        free.close()
    return [
        start(
            "tests.workers",
            folder,
            config={"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}},
        )
        for index in range(number)
    ]


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """What workers end with of which one is killed, and all are started again; and where."""
    folder = tmp_path_factory.mktemp("workers")
    (folder / "kill").touch()
    first = together(folder, WORKERS)
    errors = [process.communicate()[1] for process in first]
    assert first[1].returncode < 0, errors
    assert all(process.returncode > 0 for process in (first[0], *first[2:])), errors
    return folder, [printed(process) for process in together(folder, WORKERS)]


def test_workers_of_which_one_was_killed_end_as_one_device_does(workers, tmp_path):
    expected = printed(start("tests.workers", tmp_path))
    # A backup of Keras's holds the model, and not what callbacks have seen.
    del expected["last"]["fisher_trace_peak"]
    for worker in workers[1]:
        np.testing.assert_allclose(worker["weights"], expected["weights"], atol=1e-10)
        for key, value in expected["last"].items():
            assert worker["last"][key] == pytest.approx(value, rel=1e-6), key


def test_the_chief_alone_writes(workers):
    folder = workers[0]
    assert {path.name for path in folder.iterdir()} == {"model.keras", "tensorboard"}
    # One file for each of the two times that it was started.
    assert len([*(folder / "tensorboard" / "train").iterdir()]) == 2
