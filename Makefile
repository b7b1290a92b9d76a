# Two commands do everything on a fresh machine with Python 3.11 or later: `make demo` and `make test`.
# Each makes its own environment in .venv first; PYTHON=python3.13 chooses the interpreter, VENV=... another folder.
# PIP_CONSTRAINT=constraints/python3.13.txt before the command installs the versions that were tested.
export PYTHON ?= python3
export VENV ?= .venv
export CONFIG ?=
export WORKDIR ?=
export WORKERS ?= auto
export TAG ?=

# The shell reads these variables itself, in quotes, so that paths may have spaces. A path with spaces cannot be a target.
RUN := "$$VENV/bin/python" -m

.PHONY: demo test slow check format docs release-check clean install-demo install-dev install-docs install-release environment

demo: install-demo ## standard training and a line on digits with random labels, side by side; or the run of CONFIG=...
	@if [ -n "$$CONFIG" ]; then $(RUN) jsubspace.main --config="$$CONFIG" $${WORKDIR:+--workdir="$$WORKDIR"}; \
	  else $(RUN) experiments.demo $${WORKDIR:+--runs="$$WORKDIR"}; fi

test: check ## everything that must hold
	$(RUN) pytest -n "$$WORKERS" --maxprocesses 8 --dist worksteal

slow: install-dev ## the tests that take minutes each
	$(RUN) pytest -n "$$WORKERS" --maxprocesses 8 -m slow

check: install-dev ## format, lint and types, in seconds
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy

format: install-dev ## rewrites files as `check` wants them
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

docs: install-docs ## the documentation in build/docs; a warning, a dead link or a missing name is an error
	$(RUN) sphinx -E -W --keep-going -q -b html -c docs -d build/doctrees . build/docs
	@echo "build/docs/docs/index.html"

release-check: install-release ## builds, checks and installs what a release would publish, in build/release; TAG=v0.1.0 as well
	"$$VENV/bin/python" .ci/release.py $${TAG:+--tag="$$TAG"}

clean: ## removes the environment and what tools leave behind; runs/ stays
	rm -rf "$$VENV" build *.egg-info .mypy_cache .pytest_cache .ruff_cache

# The empty files .demo, .dev, .docs and .release say when the packages were installed: again if setup.py is newer.
install-demo: environment
	@[ "$$VENV/.demo" -nt setup.py ] || { \
	  $(RUN) pip install --quiet --editable '.[demo]' && touch "$$VENV/.demo"; }

install-dev: environment
	@[ "$$VENV/.dev" -nt setup.py ] || { \
	  $(RUN) pip install --quiet --editable '.[dev]' && touch "$$VENV/.dev" "$$VENV/.demo"; }

install-docs: environment
	@[ "$$VENV/.docs" -nt setup.py ] || { \
	  $(RUN) pip install --quiet --editable '.[docs]' && touch "$$VENV/.docs"; }

install-release: environment
	@[ "$$VENV/.release" -nt setup.py ] || { \
	  $(RUN) pip install --quiet --editable '.[release]' && touch "$$VENV/.release"; }

environment:
	@[ -x "$$VENV/bin/python" ] || { \
	  "$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "error: $$("$$PYTHON" --version) is too old; jsubspace needs Python 3.11 or later: make PYTHON=python3.13 ..."; exit 2; }; \
	  "$$PYTHON" -m venv "$$VENV" && $(RUN) pip install --quiet --upgrade pip; }
