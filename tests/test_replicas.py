"""Several replicas, in one process and in several, train what one device trains."""

import itertools
import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_fisher import FisherPenaltyModel
from tests import nets

# A difference of two gradients has half of the digits.
ROUNDING = {"exact": 1e-10, "by difference": 1e-8}
# `python -m tests.replicas 2` and `4` try every case.
CASES = {
    2: ("attention", "batch norm", "synchronized batch norm by difference", "eagerly"),
    4: ("fp", "gp_r by difference", "gp_x of the first"),
}


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
def trained(request):
    return printed(start("tests.replicas", request.param, *CASES[request.param]))


def test_replicas_train_what_one_device_does(trained):
    for case, difference in trained["differences"].items():
        assert difference < ROUNDING["by difference" if "difference" in case else "exact"], case


def test_every_replica_draws_its_own_labels(trained):
    for one, other in itertools.combinations(trained["labels"], 2):
        assert one != other
