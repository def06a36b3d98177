# `make demo` and `make test` need only Python ≥ 3.11 and make.

PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
  $$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; \
  done)
VENV := .venv
RUN := $(VENV)/bin/python
BENCH := .venv-bench
# Two test files run at a time. A file stays in one process, so that its tests can share results.
# tests/conftest.py sets the order of the files, the longest first.
PYTEST := -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=20

.PHONY: demo test test-all lint docs bench clean

demo: $(VENV)/base  ## train, evaluate and report on a generated chess board
	$(RUN) -m recon_ad.train --config configs/demo.py --workdir runs/demo

test: $(VENV)/dev  ## run all tests but the slow ones
	$(RUN) $(PYTEST) -m "not slow"

test-all: $(VENV)/dev  ## run the slow tests, which `make test` leaves out
	$(RUN) $(PYTEST) -m slow

lint: $(VENV)/dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports

docs: $(VENV)/docs  ## build the site of docs/ in build/site
	$(RUN) -m mkdocs build --strict

bench: $(BENCH)/peers  ## measure for results/, beside others; BENCH_FLAGS=--data=DATASETS runs all
	$(BENCH)/bin/python -m benchmarks.all $(BENCH_FLAGS)

clean:
	rm -rf $(VENV) $(BENCH) .cache build *.egg-info

$(VENV)/bin/python $(BENCH)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; install one, or call make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(patsubst %/bin/python,%,$@)

$(VENV)/base: pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install -q -e .
	touch $@

$(VENV)/dev: pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install -q -e ".[dev]"
	touch $@ $(VENV)/base $(VENV)/docs

$(VENV)/docs: pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install -q -e ".[docs]"
	touch $@ $(VENV)/base

# Separate from .venv, because PyTorch and anomalib are only needed for comparisons.
$(BENCH)/peers: pyproject.toml benchmarks/peers/peers.txt | $(BENCH)/bin/python
	$(BENCH)/bin/python -m pip install -q -e ".[export,openvino]" torch==2.13.0
	$(BENCH)/bin/python -m pip install -q --no-deps -r benchmarks/peers/peers.txt
	touch $@
