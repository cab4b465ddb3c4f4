# `make demo` and `make test` set up all they need on a fresh machine with Python 3.11+ and make.
PYTHON ?= python3
VENV   ?= .venv
YEAST  ?=
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help setup demo test test-slow lint format bench bench-gpu clean

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

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## let ruff rewrite the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Both take a folder of yeast tables, YEAST=DIR, for the real topology beside (or instead of) the generated one.
bench: $(STAMP)  ## compare layers on the CPU; fills in docs/benchmarks.md
	$(BIN)/python tests/benchmarks cpu --write-docs $(if $(YEAST),--yeast $(YEAST))

bench-gpu: $(STAMP)  ## train the cell model on a GPU; fills in docs/benchmarks.md
	$(BIN)/python tests/benchmarks gpu --write-docs $(if $(YEAST),--yeast $(YEAST))

clean:  ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
