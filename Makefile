# Two commands do everything on a fresh machine with Python 3.11 or later: `make demo` and `make test`.
# Each makes its own environment in .venv first; PYTHON=python3.13 chooses the interpreter, VENV=... another folder.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONFIG ?= configs/digits_cresnet8_line.py
WORKDIR ?= runs/$(basename $(notdir $(CONFIG)))
WORKERS ?= auto

.PHONY: demo test slow check format clean

demo: $(VENV)/.demo ## train a line on handwritten digits, evaluate it, print the table and draw the figures
	$(BIN)/python -m jsubspace.main --config=$(CONFIG) --workdir=$(WORKDIR)

test: check ## everything that must hold
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal

slow: $(VENV)/.dev ## the tests that take minutes each
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 -m slow

check: $(VENV)/.dev ## format, lint and types, in seconds
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev ## rewrites files as `check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## removes the environment and what tools leave behind; runs/ stays
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) is too old; jsubspace needs Python 3.11 or later: make PYTHON=python3.13 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: setup.py $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/.dev: setup.py $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.demo
