"""Does a long training stay as small and as fast as it began?

    python tools/soak.py --out runs/soak

Trains 2,000 epochs of digits under the penalty with the callbacks of the package and TensorBoard,
and notes after each epoch the resident memory, the epoch's time, and how many threads, files and
Python objects there are and how often the step was traced. The last epochs must be as those around
epoch 100: memory and time within 5%, all else the same; threads, which TensorFlow starts when it
first needs one more, as those halfway. TensorFlow's own cache of the numbers that
it was given, which grows without end, is emptied after each epoch.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))
sys.path.insert(0, str(Path(__file__).parent))

import keras
from benchmarks.timing import resident_mib
from experiment.files import write_json
from experiment.on_tensorflow import forget_numbers
from tqdm import tqdm

import keras_fisher as kf

EARLY, WINDOW = 100, 50  # epochs
TOLERANCE = 0.05
NUM_TRAIN, BATCH = 512, 64


class Counted(kf.FisherPenaltyModel):
    """Counts how often Python goes through its step, which is once in each trace."""

    traces = 0

    def train_step(self, data: Any) -> dict[str, Any]:
        self.traces += 1
        return super().train_step(data)


class Notes(keras.callbacks.Callback):
    """Notes after each epoch what must not grow."""

    def __init__(self, folder: Path, epochs: int) -> None:
        super().__init__()
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self._bar = tqdm(total=epochs, unit="epoch")
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        seconds = time.perf_counter() - self._began
        gc.collect()
        forget_numbers()
        self.rows.append(
            {
                "seconds": seconds,
                "memory_mib": resident_mib("VmRSS"),
                "objects": len(gc.get_objects()),
                "threads": len(list(Path("/proc/self/task").iterdir())),
                "python_threads": threading.active_count(),
                "files": sum(path.is_file() for path in self.folder.rglob("*")),
                "open_files": len(list(Path("/proc/self/fd").iterdir())),
                "traces": self.model.traces,
            }
        )
        self._bar.update()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    description, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=usage, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    given = parser.parse_args(arguments)
    if given.epochs < EARLY + WINDOW:
        parser.error(f"`--epochs` must be at least {EARLY + WINDOW}. Received: {given.epochs}")
    if given.out.exists():
        parser.error(f"`--out` must be a new folder. Received: {given.out}, which is there")
    given.out.mkdir(parents=True)
    rows = train(given.epochs, given.out)
    if len(rows) < given.epochs:
        sys.exit(f"error: training stopped after {len(rows)} of {given.epochs} epochs")
    write_json(given.out / "soak.json", {"epochs": rows})
    print(table(rows))
    if grown := [what for what in rows[0] if has_grown(rows, what)]:
        sys.exit(f"error: these have grown: {', '.join(grown)}")


def train(epochs: int, out: Path) -> list[dict[str, Any]]:
    """Trains with everything that a long training has, and returns what was noted."""
    keras.utils.set_random_seed(0)
    train, validation, _, num_classes = kf.data.load_arrays(
        "digits", validation_size=180, num_train=NUM_TRAIN
    )
    y, is_noisy = kf.data.uniform_label_noise(train.y, 0.5, num_classes, seed=0)
    batches = kf.data.training_batches(train.x, y, batch_size=BATCH, seed=0)
    x_shape, hidden = train.x.shape[1:], keras.layers.Dense(64, activation="relu")
    backbone = keras.Sequential([keras.Input(x_shape), keras.layers.Flatten(), hidden])
    backbone.add(keras.layers.Dense(num_classes))
    model = Counted(backbone, alpha=0.1, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, metrics=["accuracy"])
    measured: dict[str, Any] = {"num_examples": 128, "batch_size": 128}
    notes = Notes(out, epochs)
    model.fit(
        batches,
        steps_per_epoch=-(-NUM_TRAIN // BATCH),
        epochs=epochs,
        validation_data=validation,
        verbose=0,
        callbacks=[
            kf.callbacks.FisherTrace((train.x, y), seed=0, explosion_factor=1e9, **measured),
            kf.callbacks.HessianTrace((train.x, y), seed=0, num_probes=2, **measured),
            kf.callbacks.MinibatchFisherTrace((train.x, y), seed=0, **measured),
            kf.callbacks.GradientNorm((train.x, y), **measured),
            kf.callbacks.LabelNoiseMonitor(train.x, y, is_noisy, gradient_batches=1),
            kf.callbacks.AlphaScheduler(lambda epoch: 0.1 if epoch % 2 else 0.2),
            kf.callbacks.NonFiniteGuard(),
            keras.callbacks.TensorBoard(out / "tensorboard", write_graph=False),
            notes,
        ],
    )
    return notes.rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: what there was around epoch 100 and at the end."""
    lines = [
        f"| | around epoch {EARLY} (threads: halfway) | last of {len(rows):,} epochs | change |",
        "|---|---|---|---|",
    ]
    for what in rows[0]:
        early, late = moments(rows, what)
        change = f"{late / early - 1:+.1%}"
        lines.append(f"| {what.replace('_', ' ')} | {early:.4g} | {late:.4g} | {change} |")
    return "\n".join(lines)


def has_grown(rows: Sequence[dict[str, Any]], what: str) -> bool:
    """Whether there is more of something at the end; less is welcome."""
    early, late = moments(rows, what)
    return late > early * (1 + TOLERANCE if what in ("seconds", "memory_mib", "objects") else 1)


def moments(rows: Sequence[dict[str, Any]], what: str) -> tuple[float, float]:
    """The medians of a number around an early epoch and over the last epochs."""
    early_epoch = len(rows) // 2 if what == "threads" else EARLY
    around = slice(early_epoch - WINDOW // 2, early_epoch + WINDOW // 2)
    last = slice(-WINDOW, None)
    early, late = (statistics.median(row[what] for row in rows[part]) for part in (around, last))
    return early, late


if __name__ == "__main__":
    main()
