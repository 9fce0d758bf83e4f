# Everything that this project does is started from here. Each target makes .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
NATIVE := $(shell find ort_ops/native -name '*.cpp' -o -name '*.hpp')

.PHONY: setup demo test lint format bench clean

setup: $(VENV)/.ready

# Installed in two steps, so that torch is the release in constraints.txt and nothing replaces it.
$(VENV)/.ready: pyproject.toml constraints.txt CMakeLists.txt $(NATIVE)
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=..."'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --upgrade pip
	$(PIP) install --constraint constraints.txt torch
	$(PIP) install --constraint constraints.txt --build-constraint constraints.txt \
	    --editable '.[cpu,torch,cli,report,test,dev]'
	touch $@

demo: setup
	$(BIN)/mylinear demo

test: setup
	$(BIN)/python -m pytest --numprocesses 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)

format: setup
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE)

bench: setup
	$(BIN)/python -m benchmarks.op_overhead

clean:
	rm -rf $(VENV) build dist runs
