"""The sections of `tools/benchmark.py`."""

from benchmarks.memory import memory, step_memory
from benchmarks.pipelines import input_pipelines
from benchmarks.precision import precision
from benchmarks.replicas import replicas
from benchmarks.rivals import torch
from benchmarks.traces import fisher, hessian
from benchmarks.training import training

SECTIONS = {
    "training": training,
    "fisher": fisher,
    "hessian": hessian,
    "torch": torch,
    "memory": memory,
    "step_memory": step_memory,
    "precision": precision,
    "input": input_pipelines,
    "replicas": replicas,
}
# Those that compare with other packages, which have to be installed.
COMPARISONS = ("torch",)
