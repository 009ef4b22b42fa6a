# `make demo` shows what the project does, `make test` proves that it works.
#
# Either makes .venv on its first run and installs nothing on the next, unless pyproject.toml or constraints.txt
# has changed. Needs Python 3.11 or newer with pip and venv, and any GNU make since 3.81; no GPU.
# Without make (Windows): the same commands are written out in CONTRIBUTING.md.

PYTHON ?= python3
# Test processes. Each computes with one thread (tests/conftest.py), so as many as there are cores is best.
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

# $(call step,name,command): say its name, run it, stop if it fails, say how long it took.
step = @echo "== $(1)"; start=$$(date +%s); $(2) || exit 1; echo "== $(1): $$(($$(date +%s) - start)) s"

.PHONY: help demo test format clean

help:
	@echo "make demo     train, evaluate and use a small model on videos made on the spot"
	@echo "make test     formatting, lint, types, tests: what CI runs"
	@echo "make format   rewrite the Python files in the project's format"
	@echo "make clean    remove .venv, caches and build output; runs/ stays"

demo: $(VENV)/.installed
	$(BIN)/videomae demo --overwrite

test: $(VENV)/.installed-dev
	$(call step,format,$(BIN)/ruff format --check .)
	$(call step,lint,$(BIN)/ruff check .)
	$(call step,types,$(BIN)/mypy)
	$(call step,tests,$(BIN)/pytest -n $(WORKERS) --dist worksteal --durations=10)

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist demo .pytest_cache .mypy_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "PYTHON is $(PYTHON) ($$($(PYTHON) --version 2>&1 | head -n 1)); videomae needs Python 3.11 or newer:" \
	    "name one, for example: make demo PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Both installations are editable: the command in .venv is always the checkout as it stands, and neither target
# undoes the other's. The wheel, which users get, is built and checked by .ci/run.
$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $(VENV)/.installed $@
