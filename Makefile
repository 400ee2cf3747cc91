# `make demo` and `make test` need only Python 3, pip and make: they build .venv themselves.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help demo recipes-demo test lint format wheel clean
.DEFAULT_GOAL := help

help:  ## Say what each target does
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(STAMP)  ## Run the noisy-labels recipe on a small data set (two to three minutes)
	$(BIN)/python recipes/noisy_cifar100.py --preset demo

recipes-demo: $(STAMP)  ## Run every recipe on a small data set (one to two minutes each)
	for recipe in recipes/*.py; do $(BIN)/python $$recipe --preset demo || exit; done

test: lint  ## Run the linters, the type checker, the tests and the docstrings' examples
	$(BIN)/python -m pytest --numprocesses=2 --max-worker-restart=0 --dist=loadfile --no-loadscope-reorder

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
	rm -rf .venv dist .mypy_cache .pytest_cache .ruff_cache

# The stamp comes last, so an interrupted installation is taken up again by the next call. An
# environment whose own creation was interrupted has no working pip, and is made anew.
$(STAMP): pyproject.toml
	$(BIN)/python -m pip show --quiet pip 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $@
