# `make demo` and `make test` set up all they need on a fresh machine with Python 3.11+ and make.
PYTHON ?= python3
VENV   ?= .venv
YEAST  ?=
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help setup demo test test-slow test-gpu test-oldest lint format bench bench-gpu clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

# Installed again only when what is to be installed has changed.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

setup: $(STAMP)  ## make or reuse .venv

demo: $(STAMP)  ## train on the embedded E. coli model and write a report
	$(BIN)/pyg-nsa demo

# One process for each core, four at most: more would need much memory.
test: $(STAMP)  ## run the tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-slow: $(STAMP)  ## the tests that take minutes: published counts of genome-scale models
	$(BIN)/python -m pytest -m slow

# torch 2.11 comes from PyPI with CUDA: some gigabytes.
test-oldest:  ## the tests with the oldest versions that pyproject.toml allows, in .venv-oldest
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt torch
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e '.[dev]'
	.venv-oldest/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## let ruff rewrite the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-gpu:  ## run the tests of the GPU path with PYTHON, where there is a CUDA device; installs nothing
	PYTHONPATH=.:plugins $(PYTHON) -m pytest tests/gpu -v

# Both take a folder of yeast tables, YEAST=DIR, for the real topology beside (or instead of) the generated one.
bench: $(STAMP)  ## compare layers on the CPU; fills in docs/benchmarks.md
	$(BIN)/python tests/benchmarks cpu --write-docs $(if $(YEAST),--yeast $(YEAST))

bench-gpu: $(STAMP)  ## train the cell model on a GPU; fills in docs/benchmarks.md
	$(BIN)/python tests/benchmarks gpu --write-docs $(if $(YEAST),--yeast $(YEAST))

clean:  ## remove the environment and caches
	rm -rf $(VENV) .venv-oldest .pytest_cache .mypy_cache .ruff_cache
