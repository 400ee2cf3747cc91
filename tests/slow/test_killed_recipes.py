"""A recipe that is killed and started again ends as one that never was, to the last bit."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.recipes.tiny import RECIPE_NAMES, RECIPES
from tests.run_folders import differences

# A kill comes as one of these files is made or changes.
WEIGHTS = "*/*.weights.h5"
CHECKPOINT = "*/epoch-*.weights.h5"
HALF_WRITTEN = "*/part-*"
TENSORBOARD = "*/tensorboard/**/events.*"
FINISHED = "*/results.json"


def command(name, *options):
    return [sys.executable, str(RECIPES / f"{name}.py"), "--preset", "demo", *options, "--out"]


def finish(command, out):
    subprocess.run([*command, str(out)], check=True, capture_output=True, text=True)


def kill(command, out, pattern):
    """Starts a recipe and kills it as soon as a file is made or changes; it must not end before."""
    started = files(out, pattern)
    process = subprocess.Popen(
        [*command, str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while files(out, pattern) <= started:
            assert process.poll() is None, f"it ended before a change of {pattern}"
            time.sleep(0.001)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def files(folder, pattern):
    """The files of a name with their times."""
    found = set()
    for path in folder.glob(pattern):
        try:
            found.add((path, path.stat().st_mtime_ns))
        except FileNotFoundError:  # it was there a moment ago
            continue
    return found


@pytest.mark.slow
def test_a_recipe_resumes_wherever_it_was_killed(tmp_path):
    # Long enough for a checkpoint, of which there is one every ten seconds.
    recipe = command("noisy_cifar100", "--methods", "fp", "--seeds", "0", "--epochs", "60")
    finish(recipe, tmp_path / "whole")
    for moment in (WEIGHTS, CHECKPOINT, HALF_WRITTEN, TENSORBOARD, FINISHED):
        kill(recipe, tmp_path / "killed", moment)
    finish(recipe, tmp_path / "killed")
    assert differences(tmp_path / "whole", tmp_path / "killed") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_every_recipe_resumes(name, tmp_path):
    recipe = command(name, "--seeds", "0")
    finish(recipe, tmp_path / "whole")
    for moment in (WEIGHTS, FINISHED):
        kill(recipe, tmp_path / "killed", moment)
    finish(recipe, tmp_path / "killed")
    assert differences(tmp_path / "whole", tmp_path / "killed") == []


@pytest.mark.slow
def test_another_seed_ends_otherwise(tmp_path):
    for seed in ("0", "1"):
        finish(command("noisy_cifar100", "--methods", "fp", "--seeds", seed), tmp_path / seed)
    assert "table.md" in differences(tmp_path / "0", tmp_path / "1")
