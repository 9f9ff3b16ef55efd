# Everything runs in .venv, which the first call makes. Needs Python 3.11 or newer, make, git.
PYTHON ?= python3
JOBS ?= 2
MODELS ?= autoencoder resnet8 ds_cnn mobilenet_v1 resnet18 mobilenet_v2 tcn

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH := $(VENV)/lib/python*/site-packages/torch/version.py

OLD_PYTHON := 'import sys; sys.exit(sys.version_info < (3, 11) and "hwcost needs Python 3.11 or \
  newer and this is %d.%d; name another: make PYTHON=python3.12" % sys.version_info[:2])'

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint docs bench clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1 /p' $(MAKEFILE_LIST) | awk '{n=$$1; $$1=""; printf "%-8s%s\n", n, $$0}'

demo: $(READY) ## compare the example networks on every shipped platform
	@$(BIN)/hwcost compare $(MODELS)

test: $(READY) ## run the tests, but for the slow ones
	@$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow"

test-slow: $(READY) ## run the slow tests: examples that train, more networks
	@$(BIN)/python -m pytest -q -n $(JOBS) -m slow

lint: $(READY) ## check format, style and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

docs: $(READY) ## write what the docs show of the tool's output anew
	@$(BIN)/python -m docs.generate

bench: $(READY) ## run the benchmarks
	@$(BIN)/python -m pytest -q tests/benchmarks -o python_files='bench_*.py'

clean: ## remove build products and caches; .venv stays
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage
	find hwcost search platforms tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone, at the pinned version, so that nothing after it can choose a build;
# the last lines see to it that nothing did.
$(READY): pyproject.toml constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { $(PYTHON) -c $(OLD_PYTHON) && $(PYTHON) -m venv --clear $(VENV); }
	$(BIN)/python -m pip install -q -c constraints.txt torch
	@cp $(TORCH) $(VENV)/torch-version.py
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,examples,onnx]'
	@diff $(VENV)/torch-version.py $(TORCH) || { echo 'another build of torch replaced the pinned one'; $(BIN)/python -m pip uninstall -q -y torch; exit 1; }
	@touch $@
