"""Peak memory: of the Fisher trace of 5,000 CIFAR-10 images, and of a step with the penalty."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

import keras_fisher as kf
from benchmarks.rows import Row, SectionSkipped
from benchmarks.subjects import CATEGORICAL, NETWORKS, prepare
from benchmarks.timing import forget_peak, in_fresh_process, resident_mib, timed, use_cpu
from benchmarks.training import Computation, compiled, penalised


def memory(repeats: int, quick: bool) -> Iterator[Row]:
    """Wall time and peak memory of the Fisher trace."""
    num_examples = 256 if quick else 5000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cifar10.npz"
        in_fresh_process(save_cifar10, path, num_examples)
        names = [name for name in ("SimpleCNN", "Wide ResNet 44-3") if name in NETWORKS]
        for name in tqdm(names, desc="memory"):
            numbers = in_fresh_process(measure_memory, name, path)
            yield Row(
                "memory",
                name,
                f"Tr(F) of {num_examples:,} CIFAR-10 images",
                f"{numbers['value']:.4g} ± {numbers['stderr']:.2g}; {numbers['seconds']:.0f} s; "
                f"peak {numbers['peak_mib']:,.0f} MiB, of which {numbers['growth_mib']:,.0f} MiB "
                "in measuring",
                numbers=numbers,
            )


def step_memory(repeats: int, quick: bool) -> Iterator[Row]:
    """What a step that computes the penalty takes, beside a plain one."""
    whole = Computation()
    ways = {
        "FP": whole,
        "FP by difference": whole._replace(gradient="finite_difference"),
        "FP, an eighth at a time": whole._replace(parts=8),
    }
    for name, network in tqdm(NETWORKS.items(), desc="step memory"):
        batch = 16 if quick else network.batch
        plain = in_fresh_process(peak_of_step, name, batch, None)
        for what, way in ways.items():
            peak = in_fresh_process(peak_of_step, name, batch, way)
            yield Row(
                "step memory",
                name,
                f"peak of a step with {what}, {batch} examples / of a plain step",
                f"{peak / plain:.2f} ({peak:,.0f} MiB / {plain:,.0f} MiB)",
                numbers={"peak_mib": peak, "plain_mib": plain},
            )


def peak_of_step(name: str, batch: int, computation: Computation | None) -> float:
    """The memory in MiB that a training step takes while it runs, without that of tracing it."""
    use_cpu()
    subject = prepare(name, batch)
    model = compiled(subject.model)
    if computation is not None:
        model = penalised(subject, update_freq=1, **computation.arguments(batch))
    for examples in (2, 3):  # The second time it is traced for any number of examples.
        model.train_on_batch(subject.x[:examples], subject.y[:examples])
    forget_peak()
    before = resident_mib("VmRSS")
    for _ in range(2):
        model.train_on_batch(subject.x, subject.y)
    return resident_mib("VmHWM") - before


def save_cifar10(path: Path, num_examples: int) -> None:
    """Leaves images in a file, prepared in another process than the one that is measured."""
    try:
        images = kf.data.load_arrays("cifar10", num_train=num_examples).train
    except (ImportError, kf.data.DatasetNotFoundError) as error:
        raise SectionSkipped(str(error)) from error
    np.savez(path, x=images.x, y=images.y)


def measure_memory(name: str, path: Path) -> dict[str, float]:
    """Tr(F), its wall time and memory."""
    use_cpu()
    model = NETWORKS[name].build(num_classes=10, seed=0)
    with np.load(path) as data:
        x, y = data["x"], data["y"]
    before = resident_mib("VmRSS")
    seconds, estimate = timed(
        lambda: kf.fisher_trace(model, (x, y), likelihood=CATEGORICAL, seed=0)
    )()
    peak = resident_mib("VmHWM")
    return {
        "value": estimate.value,
        "stderr": estimate.stderr,
        "seconds": seconds,
        "peak_mib": peak,
        "growth_mib": peak - before,
    }
