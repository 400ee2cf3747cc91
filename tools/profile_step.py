"""Where the time of a step goes, operation by operation.

    python tools/profile_step.py VGG-11 --examples 4

Takes training steps of a network, plain and with a penalty computed at each step, under
TensorFlow's profiler, and prints what each kind of operation took in either: milliseconds a step,
summed over threads, and how many there were.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf
from benchmarks.subjects import NETWORKS, prepare
from benchmarks.timing import use_cpu
from benchmarks.training import compiled, penalised
from tensorflow.tsl.profiler.protobuf import xplane_pb2

Times = dict[str, tuple[float, float]]
SHOWN = 20
# Operations that contain others, whose time would count twice.
CONTAINERS = ("If", "StatelessIf", "While", "PartitionedCall", "StatefulPartitionedCall")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    description, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=usage, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--examples", type=int, help="of the penalty; default: the mini-batch")
    parser.add_argument("--gradient", choices=("exact", "finite_difference"), default="exact")
    parser.add_argument("--steps", type=int, default=8, help="default: 8")
    given = parser.parse_args(arguments)
    use_cpu()
    subject = prepare(given.network, NETWORKS[given.network].batch)
    with_penalty = penalised(
        subject, update_freq=1, penalty_batch_size=given.examples, gradient=given.gradient
    )
    plain, penalty = (
        profiled(model, subject.batches(), given.steps)
        for model in (compiled(subject.model), with_penalty)
    )
    print(table(plain, penalty))


def profiled(model: keras.Model, data: tf.data.Dataset, steps: int) -> Times:
    """The milliseconds and the number of each kind of operation in a step, and of all."""
    model.fit(data, steps_per_epoch=2, verbose=0)
    began = time.perf_counter()
    model.fit(data, steps_per_epoch=steps, verbose=0)
    seconds = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            model.fit(data, steps_per_epoch=steps, verbose=0)
        (path,) = Path(folder).rglob("*.xplane.pb")
        times = of_operations(path, steps)
    return {"the step, on the clock": (1000 * seconds / steps, 1), **times}


def of_operations(path: Path, steps: int) -> Times:
    """What a profile says of each kind of operation, for each step."""
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    times: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for plane in space.planes:
        if "host:CPU" not in plane.name:
            continue
        for event in (event for line in plane.lines for event in line.events):
            # An operation is "its/name:Kind"; the profiler's own events have other names.
            name, _, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
            if name and ":" not in name and kind.isidentifier() and kind not in CONTAINERS:
                times[kind][0] += event.duration_ps / 1e9 / steps
                times[kind][1] += 1 / steps
    return {kind: (milliseconds, number) for kind, (milliseconds, number) in times.items()}


def table(plain: Times, penalty: Times) -> str:
    """Markdown: both steps, by what the penalty adds."""
    none = (0.0, 0.0)
    added = {kind: penalty.get(kind, none)[0] - plain.get(kind, none)[0] for kind in penalty}
    lines = [
        "| | plain: ms | number | penalised: ms | number | more: ms |",
        "|---|---|---|---|---|---|",
    ]
    for kind in sorted(added, key=lambda kind: -abs(added[kind]))[:SHOWN]:
        (before, count), (after, new_count) = plain.get(kind, none), penalty[kind]
        lines.append(
            f"| {kind} | {before:.1f} | {count:.0f} | {after:.1f} | {new_count:.0f} "
            f"| {added[kind]:+.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
