"""Programs that tests start: backends split devices and join processes only at their start."""

import json
import os
import signal
import socket
import subprocess
import sys

# The value of XLA_FLAGS for tests, which compile much and compute little.
QUICKLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def start(*arguments, **environment):
    """Starts Python on the CPU, with the paths of this process."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "CUDA_VISIBLE_DEVICES": "",
            **environment,
        },
    )


def printed(process):
    """What a program printed that went well."""
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


def free_addresses(number):
    """Addresses of this machine that nothing listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    hosts = [f"127.0.0.1:{free.getsockname()[1]}" for free in sockets]
    for free in sockets:
        free.close()
    return hosts


def configurations(number):
    """The TF_CONFIG of each of several workers of this machine."""
    hosts = free_addresses(number)
    return [
        json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}})
        for index in range(number)
    ]


def jax_environments(number):
    """The environment variables of each of several JAX processes of this machine."""
    (coordinator,) = free_addresses(1)
    common = {
        "KERAS_BACKEND": "jax",
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": coordinator,
        "KERAS_DISTRIBUTION_NUM_PROCESSES": str(number),
    }
    return [common | {"KERAS_DISTRIBUTION_PROCESS_ID": str(index)} for index in range(number)]


def killed(*_):
    """Ends the process that calls it, as the system does where memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
