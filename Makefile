# `make demo` and `make test` need only Python 3, pip and make: they build .venv themselves.

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export TF_CPP_MIN_LOG_LEVEL ?= 2

# What `make test` runs with the JAX backend too; the public CI runs everything with both.
JAX_TESTS := tests/training/test_gradients.py tests/callbacks/test_within_epochs.py \
	tests/traces/test_minibatch.py tests/traces/test_gradient_norm.py
# Not what takes long there and adds little.
JAX_CHOICE := not recurrent and not pooled and not dropout and not difference_agrees \
	and not augmentation and not resizing and not numpy and not takes_the_first and not (cnn and gp)
# Tests compile much and compute little.
JAX_FLAGS := --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true
BACKEND_FLAGS := $(if $(filter jax,$(KERAS_BACKEND)),$(JAX_FLAGS))

# Without TensorFlow and JAX.
TORCH := VENV=.venv-torch EXTRAS=recipes,test,torch KERAS_BACKEND=torch

.PHONY: help demo recipes-demo results docs test test-jax test-torch test-slow test-lowest test-newest pytest lint format wheel clean
.DEFAULT_GOAL := help

help:  ## Say what each target does
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(STAMP)  ## Run the noisy-labels recipe on a small data set (two to five minutes)
	$(BIN)/python recipes/noisy_cifar100.py --preset demo

recipes-demo: $(STAMP)  ## Run every recipe on a small data set (one to five minutes each)
	for recipe in recipes/*.py; do $(BIN)/python $$recipe --preset demo || exit; done

results: $(STAMP)  ## Rebuild the tables and pictures of docs/results.md from docs/results/data
	$(BIN)/python tools/results_page.py

docs: $(STAMP)  ## Build the site into site/, and fail on a broken link
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

test: lint pytest test-jax  ## Run the linters, the type checker, the tests and the docstrings' examples

test-jax: $(STAMP)  ## Run the tests that are run with the JAX backend
	KERAS_BACKEND=jax XLA_FLAGS="$(JAX_FLAGS)" $(BIN)/python -m pytest --numprocesses=2 \
		--max-worker-restart=0 --dist=load -k '$(JAX_CHOICE)' $(JAX_TESTS)

test-torch:  ## Run the tests with the PyTorch backend, in an environment without TensorFlow and JAX
	$(MAKE) pytest $(TORCH)

test-slow: $(STAMP)  ## Run the tests that take minutes: kill and resume, long trainings, every network and paper preset
	XLA_FLAGS="$(BACKEND_FLAGS)" $(BIN)/python -m pytest -m slow

# In environments of their own. Linters are left out: they change their minds between versions.
test-lowest:  ## Run the tests with the lowest versions that pyproject.toml declares
	$(PYTHON) tools/lowest_versions.py > .lowest.txt
	$(MAKE) pytest VENV=.venv-lowest PIP_OPTIONS='--constraint .lowest.txt'

test-newest:  ## Run the tests with the newest versions that install
	rm -f .venv-newest/.installed
	$(MAKE) pytest VENV=.venv-newest PIP_OPTIONS='--upgrade --upgrade-strategy eager'

# With the backend that KERAS_BACKEND says, TensorFlow by default.
pytest: $(STAMP)
	XLA_FLAGS="$(BACKEND_FLAGS)" $(BIN)/python -m pytest --numprocesses=2 --max-worker-restart=0 \
		--dist=loadfile --no-loadscope-reorder

lint: $(STAMP)  ## Run the linters and the type checker
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(STAMP)  ## Reformat the code and repair what ruff can repair
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

wheel: $(STAMP)  ## Build the source distribution and the wheel into dist/
	$(BIN)/python -m build

clean:  ## Remove the environment and all that was built
	rm -rf .venv .venv-torch .venv-lowest .venv-newest .lowest.txt dist site .mypy_cache .pytest_cache .ruff_cache

# The stamp comes last, so an interrupted installation is taken up again by the next call. An
# environment whose own creation was interrupted has no working pip, and is made again.
$(STAMP): pyproject.toml
	$(BIN)/python -m pip show --quiet pip 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install $(PIP_OPTIONS) --editable '.[$(EXTRAS)]'
	@touch $@
