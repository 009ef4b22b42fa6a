# `make demo` shows what the project does; `make test` and `make test-slow` prove that it works.
#
# Either makes .venv on its first run and installs nothing on the next, unless pyproject.toml or constraints.txt
# has changed. Needs Python 3.11 or newer with pip and venv, and any GNU make since 3.81; no GPU.
# Without make (Windows): the same commands are written out in CONTRIBUTING.md.

PYTHON ?= python3
# Test processes. Each computes with one thread (tests/conftest.py), so as many as there are cores is best.
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
# Not compiled to bytecode at once: Python does that for the few files that are imported, when they are.
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-compile --constraint constraints.txt

# $(call step,name,command): say its name, run it, stop if it fails, say how long it took.
step = @echo "== $(1)"; start=$$(date +%s); $(2) || exit 1; echo "== $(1): $$(($$(date +%s) - start)) s"

.PHONY: help demo test test-slow test-openvino test-isa format clean

help:
	@echo "make demo     train, evaluate and use a small model on generated videos"
	@echo "make test     formatting, lint, types, and all tests but the slow ones"
	@echo "make test-slow the slow tests; CI runs these too"
	@echo "make test-openvino the tests of the backend openvino, which is installed for them"
	@echo "make test-isa the numeric tests under each instruction set of this processor"
	@echo "make format   rewrite the Python files in the project's format"
	@echo "make clean    remove .venv, caches and build output; runs/ stays"

demo: $(VENV)/.installed
	$(BIN)/videomae demo --overwrite

# Together, since either leaves a core idle at times; what mypy found is printed last.
TYPES_AND_TESTS = $(BIN)/mypy > $(VENV)/mypy.log 2>&1 & mypy=$$!; \
	  $(BIN)/pytest -n $(WORKERS) --dist worksteal --durations=10 -m "not slow"; tests=$$?; \
	  wait $$mypy; types=$$?; cat $(VENV)/mypy.log; [ $$types = 0 ] && [ $$tests = 0 ]

test: $(VENV)/.installed-dev
	$(call step,format,$(BIN)/ruff format --check .)
	$(call step,lint,$(BIN)/ruff check .)
	$(call step,types and tests,{ $(TYPES_AND_TESTS); })

# Real kills and signals, models of published size, compilation to C++, the documents' commands.
test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --durations=40 -m slow

# In a process without data workers: with pytest's faulthandler, torch's handler of ended workers and OpenVINO in one
# process, the end of a child is a segmentation fault.
test-openvino: $(VENV)/.installed-dev
	$(PIP_INSTALL) --quiet --upgrade --target $(VENV)/openvino --no-deps "openvino>=2026.4" openvino-telemetry
	VIDEOMAE_TEST_OPENVINO=1 PYTHONPATH=$(VENV)/openvino $(BIN)/pytest -p no:faulthandler \
	  tests/inference/test_openvino_blocks.py tests/inference/test_calibration.py

# Under each instruction set of this processor, in processes of their own: a few minutes each.
test-isa: $(VENV)/.installed-dev
	$(BIN)/python .ci/instruction_sets.py --workers $(WORKERS)

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
