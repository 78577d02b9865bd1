# What one does in a working copy of fastgan. `make` alone lists it; every target makes the environment it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# Where the demonstration leaves its files, and what it passes to `fastgan train` (for example: DEMO=--steps=500).
DEMO =
# What `make bench` measures and how (for example: BENCH="startup --full").
BENCH = all --quick
# Options of `make gpu-check` (for example: GPU_CHECK="--parts tests,bench --data-dir DIR").
GPU_CHECK =
# Options of pytest (for example: TEST="-k packaging").
TEST =

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lint bench gpu-check clean

help: ## this list
	@echo "make TARGET [PYTHON=python3.12], where TARGET is"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-11s %s\n", $$1, $$2 }'

demo: $(VENV)/.installed ## train on the digits that come with fastgan, draw, score; the files go to runs/
	@echo "Training on the embedded digits ..."
	@set -e; \
	run="$$($(BIN)/fastgan train --dataset digits --runs runs $(DEMO))"; \
	echo "Drawing ..."; \
	$(BIN)/fastgan sample "$$run" --out "$$run/grid.png" > /dev/null; \
	echo "Scoring ..."; \
	$(BIN)/fastgan parzen "$$run"; \
	echo; \
	echo "The run          $$run"; \
	echo "A grid of digits $$run/grid.png"; \
	echo "The report       $$run/report.html"

test: $(VENV)/.installed-test ## run the tests
	@$(BIN)/python -m pytest $(TEST)

lint: $(VENV)/.installed-test ## check style, format and types
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy

bench: $(VENV)/.installed ## run the comparisons, quickly; peers that are not installed become rows that say so
	@$(BIN)/python -m bench $(BENCH)

# With the system's Python and what it has (CuPy and Numba for the machine's CUDA, pytest): nothing is installed.
gpu-check: ## check and measure all there is on a machine with a GPU, in 8 minutes
	@PYTHONPATH="$(CURDIR)" $(PYTHON) -m bench.gpu_check $(GPU_CHECK)

clean: ## remove what builds and tests leave behind; runs/, data/ and the environment stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# Takes away what `pip install .` in this environment has copied, and what the copy has compiled, which pip would leave
# behind: Python would take that folder, empty as it is, for fastgan.
WITHOUT_COPIES = $(PIP) uninstall --yes fastgan > /dev/null 2>&1 || true; rm -rf $(VENV)/lib/python3.*/site-packages/fastgan

# The environment is made once. The installation is renewed when what it was made from has changed; the code itself is
# used from where it lies. The order-only bar: the interpreter is a link whose date is that of the system's Python.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "fastgan needs Python 3.11 or newer, and '$(PYTHON)' is not one; name one, as in: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	    exit 1; }
	@echo "Making the environment $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml setup.py | $(BIN)/python
	@echo "Installing fastgan into $(VENV) ..."
	@$(WITHOUT_COPIES)
	@$(PIP) install -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml setup.py | $(BIN)/python
	@echo "Installing fastgan and its test tools into $(VENV) ..."
	@$(WITHOUT_COPIES)
	@$(PIP) install -e '.[test]'
	@touch $(VENV)/.installed $@
