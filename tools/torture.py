"""Does a recipe that is killed again and again end as one that never was?

    python tools/torture.py noisy_cifar100
    python tools/torture.py noisy_cifar100 --kills 10 -- --epochs 8 --seeds 0

Runs a recipe once to its end, and then once more, sending `kill -9` at random moments and starting
the same command again: at any time, while a checkpoint or another file is written, while
TensorBoard writes, and between two runs. What finishes before it was killed often enough is
compared and begun anew. Histories, figures and the weights of every run must be the same, bit for
bit. With `--kills 0` it is a run of the same seeds, undisturbed.

What follows `--` goes to the recipe. Started again after being stopped itself, it goes on counting.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

from experiment.files import write_json

RECIPES = Path(__file__).parents[1] / "recipes"
WHOLE, KILLED, TALLY = "whole", "killed", "torture.json"
ANY_TIME = "at any time"
# What a kill waits for, by the files that tell of it.
MOMENTS = {
    "while a checkpoint is written": "*/*-*.weights.h5",
    "while a file is replaced": "**/part-*",
    "while TensorBoard writes": "*/tensorboard/**/events.*",
    "between two runs": "*/results.json",
}
AFTER_START = 45.0  # seconds, at most
AFTER_MOMENT = 0.03
EVENTS = 6
POLL = 0.002
TIMES = ("seconds",)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    description, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        usage="%(prog)s [-h] [--kills KILLS] [--out OUT] [--seed SEED] recipe [-- ...]",
        description=description,
        epilog=usage,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    names = sorted(path.stem for path in RECIPES.glob("*.py"))
    parser.add_argument("recipe", choices=names, metavar="recipe", help=f"of: {', '.join(names)}")
    parser.add_argument("--kills", type=int, default=50, help="default: 50")
    parser.add_argument("--out", type=Path, help="folder; default: runs/torture/RECIPE")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default: 0")
    own, of_recipe = _split(sys.argv[1:] if arguments is None else arguments)
    given = parser.parse_args(own)
    out = given.out or Path("runs") / "torture" / given.recipe
    command = [sys.executable, str(RECIPES / f"{given.recipe}.py"), *of_recipe]
    differences = torture(command, out, given.kills, random.Random(given.seed))
    print(json.dumps(json.loads((out / TALLY).read_text()), indent=1))
    if differences:
        sys.exit("error: these differ:\n" + "\n".join(differences))
    print("Everything is the same, bit for bit.")


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before and after `--`, which argparse takes apart only right after the recipe."""
    before = list(itertools.takewhile(lambda argument: argument != "--", arguments))
    return before, list(arguments[len(before) + 1 :])


def torture(command: Sequence[str], out: Path, kills: int, moments: random.Random) -> list[str]:
    """Runs a command whole and killed, and returns what differs."""
    out.mkdir(parents=True, exist_ok=True)
    finish([*command, "--out", str(out / WHOLE)], out)
    tally = Counter(json.loads((out / TALLY).read_text()) if (out / TALLY).exists() else {})
    differences: list[str] = []
    with tqdm(total=kills, initial=min(tally.total(), kills), unit="kill") as bar:
        while not differences:
            left = kills - tally.total()
            while left > 0 and (moment := kill(command, out, moments)):
                tally[moment] += 1
                left -= 1
                write_json(out / TALLY, tally)
                bar.update()
            finish([*command, "--out", str(out / KILLED)], out)
            differences = compared(out / WHOLE, out / KILLED)
            if left <= 0:
                break
            shutil.rmtree(out / KILLED)
    write_json(out / TALLY, tally)
    return differences


def finish(command: Sequence[str], out: Path) -> None:
    """Runs a command to its end."""
    with (out / "log.txt").open("a") as log:
        code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    if code:
        sys.exit(f"error: {' '.join(command)} ended with {code}; see {out / 'log.txt'}")


def kill(command: Sequence[str], out: Path, moments: random.Random) -> str:
    """Starts a command and kills it at a random moment; nothing is returned if it ended before."""
    moment = moments.choice([ANY_TIME, *MOMENTS])
    until = time.monotonic() + moments.uniform(0, AFTER_START)
    with (out / "log.txt").open("a") as log:
        process = subprocess.Popen(
            [*command, "--out", str(out / KILLED)], stdout=log, stderr=log, start_new_session=True
        )
        try:
            if moment == ANY_TIME:
                wait(process, until)
            else:
                await_events(process, out / KILLED, MOMENTS[moment], moments.randint(1, EVENTS))
                wait(process, time.monotonic() + moments.uniform(0, AFTER_MOMENT))
        finally:
            ended = process.poll()
            if ended is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if ended:
        sys.exit(f"error: it ended with {ended}; see {out / 'log.txt'}")
    return moment if ended is None else ""


def wait(process: subprocess.Popen, until: float) -> None:
    """Waits until a time, or the end of a process."""
    while process.poll() is None and time.monotonic() < until:
        time.sleep(POLL)


def await_events(process: subprocess.Popen, folder: Path, pattern: str, events: int) -> None:
    """Waits until files of a name were made or grew so many times."""
    seen = sizes(folder, pattern)
    while process.poll() is None and events:
        time.sleep(POLL)
        found = sizes(folder, pattern)
        events -= any(seen.get(path) != size for path, size in found.items())
        seen = found


def sizes(folder: Path, pattern: str) -> dict[Path, int]:
    """The size of each file of a name."""
    found = {}
    for path in folder.glob(pattern):
        try:
            found[path] = path.stat().st_size
        except FileNotFoundError:  # it was there a moment ago
            continue
    return found


# ---- What must be the same -------------------------------------------------------------------


def compared(one: Path, other: Path) -> list[str]:
    """The names of what differs between two folders of finished runs, apart from times."""
    names = {path.relative_to(folder) for folder in (one, other) for path in kept(folder)}
    return [str(name) for name in sorted(names) if not same(one / name, other / name)]


def kept(folder: Path) -> Iterator[Path]:
    """The figures, histories and weights of a folder."""
    yield from folder.rglob("results.json")
    yield from folder.rglob("table.md")
    yield from folder.rglob("*.weights.h5")


def same(one: Path, other: Path) -> bool:
    """Whether both files are there and hold the same."""
    if not (one.exists() and other.exists()):
        return False
    if one.suffix == ".h5":
        return same_arrays(arrays(one), arrays(other))
    if one.suffix == ".json":
        return timeless(json.loads(one.read_text())) == timeless(json.loads(other.read_text()))
    return one.read_bytes() == other.read_bytes()


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file of weights, by name."""
    found: dict[str, np.ndarray] = {}

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(add)
    return found


def same_arrays(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Whether arrays are the same to the last bit, NaN included."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


def timeless(content: object) -> object:
    """JSON without the times in it."""
    if isinstance(content, dict):
        return {key: timeless(value) for key, value in content.items() if key not in TIMES}
    return [timeless(item) for item in content] if isinstance(content, list) else content


if __name__ == "__main__":
    main()
