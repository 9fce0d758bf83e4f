# Everything that this project does is started from here. Each target makes .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Interpreters for test-pythons (without any, python3.12 to python3.14 where the PATH has them), and for wheel and
# test-wheel besides .venv's.
PYTHONS ?=
JS := build/js
NATIVE := $(shell find ort_ops/native mylinear/native -name '*.cpp' -o -name '*.hpp')
CPP := $(NATIVE) $(shell find benchmarks examples tests -name '*.cpp' -o -name '*.cu')

.PHONY: setup demo test lint format bench bench-models soak wheel clean
.PHONY: test-cuda test-wheel test-ort-versions test-torch-versions test-real-exports test-pythons test-sanitizers test-js

setup: $(VENV)/.ready

# Installed in two steps, so that torch is the release in constraints.txt and nothing replaces it.
$(VENV)/.ready: pyproject.toml constraints.txt CMakeLists.txt $(NATIVE)
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=..."'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --upgrade pip
	$(PIP) install --constraint constraints.txt torch
	$(PIP) install --constraint constraints.txt --build-constraint constraints.txt \
	    --editable '.[cpu,torch,cli,report,ray,test,dev]'
	touch $@

demo: setup
	$(BIN)/mylinear demo

test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(CPP)

format: setup
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

bench: setup
	$(PIP) install --constraint constraints.txt polygraphy onnx-diagnostic
	$(BIN)/python -m benchmarks.features
	$(BIN)/python -m benchmarks.op_overhead
	$(BIN)/python -m benchmarks.python_kernels
	$(BIN)/python -m benchmarks.cpp_operators
	$(BIN)/python -m benchmarks.native_kernels
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.replicas
	$(BIN)/python -m benchmarks.export
	$(BIN)/python -m benchmarks.parity
	$(BIN)/python -m benchmarks.parity_faults
	$(BIN)/python -m benchmarks.parity_margins
	$(BIN)/python -m benchmarks.parity_located

# A sentence encoder, a CNN, a decoder with MyLinear: in an environment of its own, with PyTorch for CUDA (5 GB).
bench-models: setup
	$(BIN)/python -m tests.environments.real_models

# A million runs, ten thousand sessions, ten thousand failures: is memory flat?
soak: setup
	$(BIN)/python -m benchmarks.soak

# Into dist/: the sdist, and from it a wheel for .venv's interpreter and for each of PYTHONS. Without pip's cache,
# which would answer with the wheel of an sdist before.
wheel: setup
	rm -rf dist
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m build --sdist --outdir dist
	for python in $(BIN)/python $(PYTHONS); do \
	    $(PIP) --no-cache-dir --python "$$(command -v $$python)" wheel --no-deps --build-constraint constraints.txt \
	        --wheel-dir dist dist/*.tar.gz || exit 1; \
	done

# On a machine with an NVIDIA GPU, by a PYTHON that has torch with CUDA, onnxruntime-gpu and this project: every test
# that needs a GPU, of which none may be skipped, and what it costs there (benchmarks/results/cuda.md).
test-cuda:
	$(PYTHON) -m tests.environments.cuda

# What is in dist/, installed without and with its requirements into new environments: what is in it, does it run?
test-wheel: setup
	$(BIN)/python -m tests.environments.wheels $(PYTHONS)

# The tests of ort_ops in environments of their own below build/: other releases, interpreters, sanitizers.
test-ort-versions: setup
	$(BIN)/python -m tests.environments.onnxruntimes

# Each with the CUDA libraries that its release of torch asks for: 4 GB.
test-torch-versions: setup
	$(BIN)/python -m tests.environments.torches

# Libraries from PyPI with Functions (Brevitas, MCT Quantizers, entmax), and models of transformers with one.
test-real-exports: setup
	$(BIN)/python -m tests.environments.real_exports

test-pythons: setup
	$(BIN)/python -m tests.environments.pythons $(PYTHONS)

test-sanitizers: setup
	$(BIN)/python -m tests.environments.sanitizers

# Two trained models in onnxruntime-node and onnxruntime-web, in Node and in Chromium: Node.js 20, npm, Chromium.
test-js: setup $(JS)/node_modules/.package-lock.json
	$(BIN)/python -m tests.js

# Below build/, so that nothing else of the project meets their 450 MB. No package's script is run.
$(JS)/node_modules/.package-lock.json: tests/js/package.json tests/js/package-lock.json
	command -v npm >/dev/null || { echo 'npm is missing: apt-get install nodejs npm' >&2; exit 3; }
	mkdir -p $(JS)
	cp tests/js/package.json tests/js/package-lock.json $(JS)
	cd $(JS) && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

clean:
	rm -rf $(VENV) build dist runs
