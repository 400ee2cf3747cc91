"""What the traces cost: measures it, prints one table and writes one JSON file.

    python tools/benchmark.py                            # all sections
    python tools/benchmark.py --only fisher --repeats 21
    python tools/benchmark.py --quick                    # few examples: does everything still run?

Sections:
    fisher   the exact per-example Fisher trace against a plain forward and backward pass
    hessian  a probe of the Hessian trace against a plain forward and backward pass
    torch    both traces against BackPACK, torch.func and PyHessian, on the same network and data
    memory   the Fisher trace of 5,000 CIFAR-10 images: wall time and peak memory
    input    the batches of each data set against plain training of SimpleCNN, which consumes them
    replicas a step of 128 examples on 2 and 4 virtual devices of this machine against one device

Times are compared as ratios of things that take turns in one run: the median over the rounds, with
the smallest and the largest. All networks run on the CPU, with two threads, at their initial
weights.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tqdm import tqdm

import keras_fisher as kf
from keras_fisher import zoo
from keras_fisher.traces import FisherTraceMeter, HessianTraceMeter

THREADS = 2
PROBES = 30  # as many as in the paper, and by default
TORCH_PACKAGES = {
    "torch": "torch",
    "backpack-for-pytorch": "backpack",
    "pyhessian": "pyhessian",
}
# The fastest number of examples to give torch.func at a time.
TORCH_FUNC_CHUNKS = {"SimpleCNN": 128, "VGG-11": 16}
CATEGORICAL = kf.likelihoods.Categorical()
BATCH_SIZE = 128
PIPELINES: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("digits", {}),
    ("digits", {"augment": "flip_and_crop"}),
    ("cifar10", {}),
    ("cifar10", {"augment": "flip"}),
    ("cifar10", {"augment": "flip_and_crop"}),
    ("cifar10", {"mixup_beta": 1.0}),
    ("cifar10", {"augment": "flip_and_crop", "mixup_beta": 1.0}),
    ("tiny_imagenet32", {}),
    ("tiny_imagenet32", {"augment": "flip_and_crop"}),
)


class Network(NamedTuple):
    """A network, how much of it the Hessian is measured on, and the largest Fisher ratio wanted."""

    build: Callable[..., keras.Model]
    num_classes: int
    hessian_examples: int
    fisher_target: float


NETWORKS = {
    "SimpleCNN": Network(zoo.simple_cnn, 10, hessian_examples=128, fisher_target=1.3),
    "VGG-11": Network(zoo.vgg11, 100, hessian_examples=32, fisher_target=1.5),
    "Wide ResNet 44-3": Network(zoo.wide_resnet, 100, hessian_examples=32, fisher_target=1.5),
    "DenseNet 40-12": Network(zoo.densenet, 100, hessian_examples=32, fisher_target=1.5),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table; `numbers` goes into the JSON file alone."""

    section: str
    network: str
    quantity: str
    result: str
    target: str = ""
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class SectionSkipped(Exception):
    """A section cannot run on this machine; the message says why."""


# A measurement takes something's time: it returns the seconds and what was computed.
Measurement = Callable[[], tuple[float, Any]]


def main() -> None:
    arguments = parse_arguments()
    use_cpu()
    rows: list[Row] = []
    for section in arguments.only:
        try:
            rows += SECTIONS[section](arguments.repeats, arguments.quick)
        except SectionSkipped as reason:
            rows.append(Row(section, "", "skipped", str(reason)))
    print(table(rows))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "environment": environment(),
        "repeats": arguments.repeats,
        "quick": arguments.quick,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    arguments.output.write_text(json.dumps(report, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to run"
    )
    parser.add_argument(
        "--repeats", type=int, default=9, help="rounds in which each thing is timed once"
    )
    parser.add_argument("--quick", action="store_true", help="take few examples")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/benchmark.json"), help="where the JSON file goes"
    )
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"`--repeats` must be at least 1. Received: {arguments.repeats}")
    return arguments


def use_cpu() -> None:
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)


# ---- Sections ----------------------------------------------------------------------------------


def fisher(repeats: int, quick: bool) -> Iterator[Row]:
    for name, network in NETWORKS.items():
        subject = prepare(name, 16 if quick else 128)
        measurements = [timed_fisher(subject, "sampled"), plain_step(subject)]
        (ours, plain), _ = take_turns(measurements, repeats, f"fisher, {name}")
        yield ratio_row(
            "fisher",
            name,
            f"Tr(F), sampled labels / plain step, {len(subject.y)} examples",
            ours / plain,
            target=network.fisher_target,
            seconds={"fisher_trace": ours, "plain_step": plain},
        )


def hessian(repeats: int, quick: bool) -> Iterator[Row]:
    for name, network in NETWORKS.items():
        subject = prepare(name, 8 if quick else network.hessian_examples)
        measurements = [
            timed_hessian(subject, num_probes=1),
            timed_hessian(subject, PROBES),
            plain_step(subject),
        ]
        (one, many, plain), _ = take_turns(measurements, repeats, f"hessian, {name}")
        seconds = {"1_probe": one, f"{PROBES}_probes": many, "plain_step": plain}
        yield ratio_row(
            "hessian",
            name,
            f"one more probe / plain step, {len(subject.y)} examples",
            (many - one) / (PROBES - 1) / plain,
            target=2.0,
            seconds=seconds,
        )
        yield ratio_row(
            "hessian",
            name,
            f"Tr(H) of {PROBES} probes / {PROBES} / plain step, {len(subject.y)} examples",
            many / PROBES / plain,
            seconds=seconds,
        )


def torch(repeats: int, quick: bool) -> Iterator[Row]:
    if not all(map(importlib.util.find_spec, TORCH_PACKAGES.values())):
        raise SectionSkipped("PyTorch is missing: pip install -e '.[benchmark]'")
    for name, chunk_size in TORCH_FUNC_CHUNKS.items():
        subject = prepare(name, 16 if quick else 128)
        with torch_server(subject) as server:
            yield from torch_fisher(repeats, subject, server, chunk_size)
            subject = subject.first(NETWORKS[name].hessian_examples)
            yield from torch_hessian(repeats, subject, server)


def torch_fisher(
    repeats: int, subject: Subject, server: TorchServer, chunk_size: int
) -> Iterator[Row]:
    examples = len(subject.y)
    rivals = {
        "BackPACK": server.timed("backpack", examples=examples),
        "torch.func": server.timed("torch_func", examples=examples, chunk_size=chunk_size),
    }
    measurements = [timed_fisher(subject, "given"), *rivals.values()]
    title = f"torch, Tr(F), {subject.name}"
    (our_times, *times), (our_values, *values) = take_turns(measurements, repeats, title)
    for rival, their_times, their_values in zip(rivals, times, values, strict=True):
        yield ratio_row(
            "torch",
            subject.name,
            f"Tr(F), given labels / that of {rival}, {examples} examples",
            our_times / their_times,
            target=0.5,
            seconds={"ours": our_times, "theirs": their_times},
        )
        ours, theirs = our_values[-1].value, their_values[-1]["value"]
        difference = abs(ours - theirs) / theirs
        yield Row(
            "torch",
            subject.name,
            f"Tr(F): relative difference from {rival}",
            f"{difference:.1e}",
            "at most 1e-4",
            {"relative_difference": difference, "ours": ours, "theirs": theirs},
        )


def torch_hessian(repeats: int, subject: Subject, server: TorchServer) -> Iterator[Row]:
    examples = len(subject.y)
    measurements = [
        timed_hessian(subject, PROBES),
        server.timed("pyhessian", examples=examples, probes=PROBES),
    ]
    (ours, theirs), values = take_turns(measurements, repeats, f"torch, Tr(H), {subject.name}")
    yield ratio_row(
        "torch",
        subject.name,
        f"Tr(H) / that of PyHessian, {PROBES} probes, {examples} examples",
        ours / theirs,
        target=0.5,
        seconds={"ours": ours, "theirs": theirs},
    )
    estimates = {
        "ours": pooled([estimate._asdict() for estimate in values[0]]),
        "theirs": pooled(values[1]),
    }
    difference = in_standard_errors(**estimates)
    yield Row(
        "torch",
        subject.name,
        "Tr(H): difference from PyHessian, in standard errors",
        f"{difference:.1f}",
        "at most 4",
        {"difference": difference, **estimates},
    )


def memory(repeats: int, quick: bool) -> Iterator[Row]:
    num_examples = 256 if quick else 5000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cifar10.npz"
        in_fresh_process(save_cifar10, path, num_examples)
        for name in tqdm(("SimpleCNN", "Wide ResNet 44-3"), desc="memory"):
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


def input_pipelines(repeats: int, quick: bool) -> Iterator[Row]:
    steps, count = (1, 20) if quick else (4, 100)
    subject = prepare("SimpleCNN", BATCH_SIZE)
    for name, options in PIPELINES:
        try:
            data = kf.data.load(name, batch_size=BATCH_SIZE, **options)
        except (ImportError, kf.data.DatasetNotFoundError) as error:
            yield Row("input", name, "skipped", str(error))
            continue
        what = ", ".join(f"{key}={value}" for key, value in options.items()) or "plain"
        measurements = [timed_batches(data.train, count), timed_fit(subject, steps)]
        (batches, fit), _ = take_turns(measurements, repeats, f"input, {name}, {what}")
        yielded, taken = count * BATCH_SIZE / batches, steps * BATCH_SIZE / fit
        yield ratio_row(
            "input",
            name,
            f"{what}: {np.median(yielded):,.0f} examples/s / {np.median(taken):,.0f} that "
            "SimpleCNN's `fit` takes",
            yielded / taken,
            target=5.0,
            at_least=True,
            seconds={"batches": batches, "fit": fit},
        )


def replicas(repeats: int, quick: bool) -> Iterator[Row]:
    for number in (2, 4):
        for what, (one, many) in in_fresh_process(time_replicas, number, repeats, quick).items():
            yield ratio_row(
                "replicas",
                "SimpleCNN",
                f"step of {what} on {number} devices / on one",
                many / one,
                seconds={"one": one, "many": many},
            )


SECTIONS: dict[str, Callable[[int, bool], Iterator[Row]]] = {
    "fisher": fisher,
    "hessian": hessian,
    "torch": torch,
    "memory": memory,
    "input": input_pipelines,
    "replicas": replicas,
}


# ---- What is timed -----------------------------------------------------------------------------


class Subject(NamedTuple):
    """A network and random examples to measure it on."""

    name: str
    model: keras.Model
    x: np.ndarray
    y: np.ndarray

    def first(self, examples: int) -> Subject:
        return self._replace(x=self.x[:examples], y=self.y[:examples])


def prepare(name: str, num_examples: int) -> Subject:
    num_classes = NETWORKS[name].num_classes
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num_examples, 32, 32, 3)).astype("float32")
    y = rng.integers(num_classes, size=num_examples).astype("int32")
    return Subject(name, NETWORKS[name].build(num_classes=num_classes, seed=0), x, y)


def timed(function: Callable[[], Any]) -> Measurement:
    def measurement() -> tuple[float, Any]:
        start = time.perf_counter()
        value = function()
        return time.perf_counter() - start, value

    return measurement


def timed_fisher(subject: Subject, labels: str) -> Measurement:
    meter = FisherTraceMeter(subject.model, labels=labels, likelihood=CATEGORICAL, seed=0)
    return timed(lambda: meter((subject.x, subject.y)))


def timed_hessian(subject: Subject, num_probes: int) -> Measurement:
    meter = HessianTraceMeter(
        subject.model,
        num_probes=num_probes,
        distribution="rademacher",  # PyHessian has no other.
        likelihood=CATEGORICAL,
        seed=0,
    )
    return timed(lambda: meter((subject.x, subject.y)))


def plain_step(subject: Subject) -> Measurement:
    """The loss and its gradient; all are returned, so that none is optimised away."""
    loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            loss = loss_function(y, subject.model(x, training=False))
        return loss, tape.gradient(loss, subject.model.trainable_weights)

    return timed(partial(step, tf.constant(subject.x), tf.constant(subject.y)))


def timed_batches(train: tf.data.Dataset, count: int) -> Measurement:
    batches = iter(train)

    def measurement() -> tuple[float, Any]:
        for _ in range(count // 4):  # those fetched ahead, while others had their turn
            next(batches)
        return timed(lambda: [next(batches)[1] for _ in range(count)])()

    return measurement


def timed_fit(subject: Subject, steps: int) -> Measurement:
    """Plain training on one batch over and over, so that nothing waits for data."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    subject.model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss)
    batch = tf.data.Dataset.from_tensors((subject.x, subject.y)).repeat()
    return timed(partial(subject.model.fit, batch, steps_per_epoch=steps, verbose=0))


def timed_penalty(
    subject: Subject, strategy: tf.distribute.Strategy, alpha: float, steps: int
) -> Measurement:
    """Training under a strategy with the penalty recomputed at each step, or none of alpha 0."""
    with strategy.scope():
        model = kf.FisherPenaltyModel(zoo.simple_cnn(seed=0), alpha=alpha, update_freq=1)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss)
    data = tf.data.Dataset.from_tensor_slices((subject.x, subject.y)).batch(BATCH_SIZE).repeat()
    return timed(partial(model.fit, data, steps_per_epoch=steps, verbose=0))


def take_turns(
    measurements: Sequence[Measurement], repeats: int, title: str
) -> tuple[np.ndarray, list[list[Any]]]:
    """Returns the seconds, of shape (measurements, repeats), and the values of each measurement."""
    rounds = [  # The first compiles and warms up.
        [measure() for measure in measurements] for _ in tqdm(range(1 + repeats), desc=title)
    ]
    turns = list(zip(*rounds[1:], strict=True))
    seconds = np.array([[taken for taken, _ in results] for results in turns])
    return seconds, [[value for _, value in results] for results in turns]


# ---- PyTorch -----------------------------------------------------------------------------------


class TorchServer:
    """`benchmark_torch.py` in a process of its own, so that the two thread pools do not mix."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def timed(self, method: str, **settings: int) -> Measurement:
        request = json.dumps({"method": method, **settings})

        def measurement() -> tuple[float, Any]:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            print(request, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
            if not answer:
                raise RuntimeError("The PyTorch process has died; what it said is above.")
            result = json.loads(answer)
            return result.pop("seconds"), result

        return measurement


@contextlib.contextmanager
def torch_server(subject: Subject) -> Iterator[TorchServer]:
    script = Path(__file__).with_name("benchmark_torch.py")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.npz"
        names, parameters = for_torch(subject.model)
        arrays: dict[str, Any] = {f"parameter{i}": array for i, array in enumerate(parameters)}
        x, y = subject.x.transpose(0, 3, 1, 2), subject.y.astype("int64")
        np.savez(path, x=x, y=y, layers=names, **arrays)
        with subprocess.Popen(
            [sys.executable, script, path, str(THREADS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            yield TorchServer(process)


def for_torch(model: keras.Model) -> tuple[list[str], list[np.ndarray]]:
    """Returns the layers of a plain chain by name, and its parameters, in PyTorch's layout."""
    names: list[str] = []
    parameters: list[np.ndarray] = []
    for layer in model.layers[1:]:
        match layer:
            case layers.Conv2D():
                kernel, bias = layer.get_weights()
                names.append(f"conv_{layer.padding}")
                parameters += [kernel.transpose(3, 2, 0, 1), bias]
            case layers.Dense():
                kernel, bias = layer.get_weights()
                if names[-1] == "flatten":
                    kernel = channels_first(kernel, model.get_layer("flatten").input.shape[1:])
                names.append("dense")
                parameters += [kernel.T, bias]
            case layers.MaxPooling2D():
                names.append("pool")
            case layers.Flatten():
                names.append("flatten")
        if getattr(layer, "activation", None) is keras.activations.relu:
            names.append("relu")
    return names, parameters


def channels_first(kernel: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Reorders the rows of a dense kernel, from (height, width, channel) to channel first."""
    rows = np.arange(len(kernel)).reshape(image_shape).transpose(2, 0, 1).ravel()
    return kernel[rows]


def pooled(estimates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of independent estimates of one thing, each with as many probes."""
    values, stderrs = zip(*((one["value"], one["stderr"]) for one in estimates), strict=True)
    return {
        "value": float(np.mean(values)),
        "stderr": float(np.linalg.norm(stderrs)) / len(estimates),
    }


def in_standard_errors(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    difference = abs(ours["value"] - theirs["value"])
    return difference / float(np.hypot(ours["stderr"], theirs["stderr"]))


# ---- Memory ------------------------------------------------------------------------------------


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def time_replicas(
    number: int, repeats: int, quick: bool
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The seconds of training on one device and on several, each with the penalty and without."""
    use_cpu()
    device = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * number
    tf.config.set_logical_device_configuration(device, parts)
    mirrored = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(number)])
    subject, steps = prepare("SimpleCNN", BATCH_SIZE), 2 if quick else 5
    kinds = {"plain training": 0.0, "FP at every step": 0.01}
    measurements = [
        timed_penalty(subject, strategy, alpha, steps)
        for alpha in kinds.values()
        for strategy in (tf.distribute.get_strategy(), mirrored)
    ]
    seconds, _ = take_turns(measurements, repeats, f"replicas, {number}")
    return {what: (seconds[2 * i], seconds[2 * i + 1]) for i, what in enumerate(kinds)}


def save_cifar10(path: Path, num_examples: int) -> None:
    try:
        images = kf.data.load_arrays("cifar10", num_train=num_examples).train
    except (ImportError, kf.data.DatasetNotFoundError) as error:
        raise SectionSkipped(str(error)) from error
    np.savez(path, x=images.x, y=images.y)


def measure_memory(name: str, path: Path) -> dict[str, float]:
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


def resident_mib(field: str) -> float:
    # On Linux `ru_maxrss` starts from that of the process which started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


# ---- The report --------------------------------------------------------------------------------


def ratio_row(
    section: str,
    network: str,
    quantity: str,
    ratios: np.ndarray,
    *,
    seconds: Mapping[str, np.ndarray],
    target: float | None = None,
    at_least: bool = False,
) -> Row:
    median, low, high = (float(part(ratios)) for part in (np.median, np.min, np.max))
    numbers = {
        "median": median,
        "min": low,
        "max": high,
        "target": target,
        "seconds": {what: taken.tolist() for what, taken in seconds.items()},
    }
    return Row(
        section,
        network,
        quantity,
        f"{median:.2f} ({low:.2f} to {high:.2f})",
        "" if target is None else f"at {'least' if at_least else 'most'} {target}",
        numbers,
    )


def table(rows: Sequence[Row]) -> str:
    lines = ["| section | network | measured | result | target |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row.section, row.network, row.quantity, row.result, row.target)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def environment() -> dict[str, Any]:
    versions = {}
    for package in ("keras-fisher", "keras", "tensorflow", *TORCH_PACKAGES):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "threads": THREADS,
        "versions": versions,
    }


if __name__ == "__main__":
    main()
