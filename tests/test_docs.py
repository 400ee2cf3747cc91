"""README and the pages of the site promise nothing that does not run."""

import functools
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
from experiment import devices

import keras_fisher
from keras_fisher import backend
from tests import processes

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
# Pages whose examples run from top to bottom.
FIRST_PAGES = ("README", "getting_started")  # the others take longer
PAGES = [
    ROOT / "README.md",
    *(
        DOCS / f"{name}.md"
        for name in ("getting_started", "measuring", "choosing_alpha", "data_and_networks")
    ),
]
# Pages whose examples are programs of their own, for TensorFlow where they import it, else for JAX.
PROGRAMS = [DOCS / "distributed.md", DOCS / "performance.md"]
MODULES = ("callbacks", "data", "penalties", "likelihoods", "tuning", "zoo")


def read_examples(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[] if page.stem in FIRST_PAGES else pytest.mark.slow)
        for page in PAGES
    ],
    ids=lambda page: page.stem,
)
def test_the_examples_run_as_printed(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = "".join(read_examples(page)).splitlines()
    if importlib.util.find_spec("tensorflow") is None:
        _, left_out = INSTALLATIONS["torch"]
        lines = [line for line in lines if left_out not in line]
    exec(compile("\n".join(lines), page.name, "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "number"),
    [(page, n) for page in PROGRAMS for n in range(len(read_examples(page)))],
    ids=lambda value: getattr(value, "stem", value),
)
def test_a_program_for_one_backend_runs_as_printed(page, number, tmp_path):
    program = read_examples(page)[number]
    backend = "tensorflow" if "import tensorflow" in program else "jax"
    if keras.backend.backend() != backend:
        pytest.skip(f"a program for {backend}")
    path = tmp_path / "program.py"
    path.write_text(program.replace("/shared", str(tmp_path)))
    of_tensorflow, of_jax = processes.configurations(1)[0], processes.jax_environments(1)[0]
    cluster = {"TF_CONFIG": of_tensorflow} if backend == "tensorflow" else of_jax
    processes.printed(processes.start(path, **cluster))


def test_no_page_has_other_examples():
    texts = [*DOCS.rglob("*.md"), *DOCS.glob("guides/*.py")]
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *texts]
    assert {page for page in pages if read_examples(page)} == {*PAGES, *PROGRAMS}


def test_every_public_name_has_its_place_in_the_api_reference():
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    named = {*re.findall(r"^::: keras_fisher\.(\S+)$", text, re.MULTILINE)}
    public = {
        find_path(keras_fisher, name)
        for name in keras_fisher.__all__
        if not inspect.ismodule(getattr(keras_fisher, name))
    }
    for name in MODULES:
        module = importlib.import_module(f"keras_fisher.{name}")
        if name not in named:  # a module with a page of its own has all of its names there
            public |= {find_path(module, member) for member in module.__all__ if member != "NAMES"}
    assert public <= named


def find_path(module, name):
    """The path of a public name in the package; its full one where a file has the same name.

    Else the reference would show all that is in that file.
    """
    file = getattr(getattr(module, name), "__module__", "")
    path = f"{file}.{name}" if file.endswith(f".{name}") else f"{module.__name__}.{name}"
    return path.removeprefix("keras_fisher.")


def test_the_files_that_the_readme_shows_and_links_are_there():
    text = PAGES[0].read_text(encoding="utf-8")
    paths = [path for path in re.findall(r"\]\(([^)#]*)", text) if "://" not in path]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def take_several_steps_at_once():
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model = keras_fisher.FisherPenaltyModel(net)
    model.compile("sgd", "mse", steps_per_execution=2)
    model.fit(np.ones((2, 2)), np.ones((2, 2)), batch_size=1, verbose=0)


def need_logits():
    assert backend.LOSSES_READ_LOGITS


def compute_in_double_precision():
    assert keras.backend.result_type("float64") == "float64"


def have_forward_derivatives():
    assert backend.Line or backend.compute_summed_forms


def choose(kind):
    assert kind in devices.KINDS[backend.NAME]


def stream_imagenet():
    try:
        keras_fisher.data.load("imagenet2012", batch_size=2)
    except keras_fisher.data.DatasetNotFoundError:  # it would be read if it were there
        return


# What shows whether the running backend can do what a line of the table says.
ABILITIES = {
    "several devices of one machine": functools.partial(choose, "mirrored"),
    "several machines": functools.partial(choose, "multiworker"),
    "`steps_per_execution` above 1": take_several_steps_at_once,
    "`imagenet2012`, streamed from disk": stream_imagenet,
    "Tr(H) in forward mode, which takes fewer products": have_forward_derivatives,
    "losses that read the logits behind a softmax or sigmoid": need_logits,
    'double precision (`floatx="float64"`)': compute_in_double_precision,
}


@pytest.mark.parametrize("line", ABILITIES)
def test_the_table_says_what_the_running_backend_lacks(line):
    text = (DOCS / "backends.md").read_text(encoding="utf-8")
    columns = ("tensorflow", "jax", "torch")
    (cells,) = re.findall(
        rf"^\| {re.escape(line)} \| (\w+) \| (\w+) \| (\w+) \|$", text, re.MULTILINE
    )
    try:
        ABILITIES[line]()
    except (AssertionError, ValueError):
        found = "no"
    else:
        found = "yes"
    assert cells[columns.index(backend.NAME)] == found


# What the text says to install for the examples, and to leave out of them.
INSTALLATIONS = {
    "tensorflow": ("    pip install '.[tensorflow,recipes]'\n", None),
    "jax": ("With `.[jax,recipes]` and `KERAS_BACKEND=jax`", "keras.callbacks.TensorBoard"),
    "torch": ("`.[torch,recipes]` and `KERAS_BACKEND=torch`", "keras.callbacks.TensorBoard"),
}


@pytest.fixture
def folder():
    """A folder that is gone afterwards: an environment takes gigabytes."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.slow
@pytest.mark.parametrize("backend", INSTALLATIONS)
def test_the_examples_run_after_the_installation_that_is_documented(folder, backend):
    text, left_out = INSTALLATIONS[backend]
    page = DOCS / "getting_started.md"
    assert text in page.read_text(encoding="utf-8")
    python = folder / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    extras = f".[{backend},recipes]"
    subprocess.run([python, "-m", "pip", "install", "--quiet", extras], check=True, cwd=ROOT)
    for path in PAGES:
        lines = "".join(read_examples(path)).splitlines()
        kept = [line for line in lines if left_out is None or left_out not in line]
        (folder / f"{path.stem}.py").write_text("\n".join(kept))
    hidden = ("KERAS_BACKEND", "PYTHONPATH")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    if backend != "tensorflow":  # which is what Keras takes by itself
        environment["KERAS_BACKEND"] = backend
    for path in PAGES:
        subprocess.run([python, f"{path.stem}.py"], check=True, cwd=folder, env=environment)
    assert (folder / "plain.keras").exists()
