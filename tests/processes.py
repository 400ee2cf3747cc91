"""Programs that tests start: TensorFlow splits devices and joins workers only at its start."""

import json
import os
import signal
import socket
import subprocess
import sys


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


def configurations(number):
    """The TF_CONFIG of each of several workers of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    hosts = [f"127.0.0.1:{free.getsockname()[1]}" for free in sockets]
    for free in sockets:
        free.close()
    return [
        json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}})
        for index in range(number)
    ]


def killed(*_):
    """Ends the process that calls it, as the system does where memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
