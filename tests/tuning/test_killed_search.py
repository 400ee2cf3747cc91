"""Searches whose processes are killed, on one machine and by a chief with workers."""

import json
import random
import signal
import time
from pathlib import Path

import pytest

from tests.processes import free_addresses, printed, start
from tests.tuning.grid_of_digits import ALPHAS, main

PROGRAM = Path(__file__).with_name("grid_of_digits.py")
TRIALS = "grid/trial_*/trial.json"


def trials(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob(TRIALS))]


def alphas(found):
    return sorted(trial["hyperparameters"]["values"]["alpha"] for trial in found)


def best_alpha(found):
    return max(found, key=lambda trial: trial["score"])["hyperparameters"]["values"]["alpha"]


def kill_in(process, folder, number):
    """Kills a process at a random moment after trial `number` has begun."""
    while len(list(folder.glob(TRIALS))) < number:
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(random.Random(number).random())
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("never_killed")
    main(str(folder))
    return trials(folder)


@pytest.mark.slow
def test_a_killed_search_ends_as_one_that_was_not(tmp_path, never_killed):
    kill_in(start(PROGRAM, tmp_path), tmp_path, 2)
    printed(start(PROGRAM, tmp_path))
    found = trials(tmp_path)
    assert alphas(found) == sorted(ALPHAS)
    assert [trial["score"] for trial in found] == [trial["score"] for trial in never_killed]


@pytest.mark.slow
def test_chief_and_workers_of_which_one_is_killed_finish_the_same_grid(tmp_path, never_killed):
    host, port = free_addresses(1)[0].split(":")
    there = {"KERASTUNER_ORACLE_IP": host, "KERASTUNER_ORACLE_PORT": port}

    def member(name):
        return start(PROGRAM, tmp_path, KERASTUNER_TUNER_ID=name, **there)

    chief, *workers = [member(name) for name in ("chief", "tuner0", "tuner1")]
    kill_in(workers[1], tmp_path, 2)
    workers[1] = member("tuner1")
    for process in (*workers, chief):
        printed(process)
    found = trials(tmp_path)
    assert alphas(found) == sorted(ALPHAS)
    assert best_alpha(found) == best_alpha(never_killed)
