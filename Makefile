# make install, then build | test-fast | test | lint | format | bench | demo. Needs Python and a C++ compiler; with a
# CUDA toolkit the CUDA operators are built too. CONTRIBUTING.md says what each target checks.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
TESTS ?= tests benchmarks
# Files of tests run side by side, each whole in one process, because tests of a file share what they build.
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# Whether git tracks a file or not: a new one is checked like all others.
CPP_FILES = $(sort $(shell find $(wildcard csrc tests benchmarks) -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh'))

.PHONY: install build test-fast test bench demo lint format cuda-check portability check-all gpu-check clean

# The environment with the package in it, up to date with the sources.
install: build
$(VENV)/.installed: pyproject.toml
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install -q --upgrade pip
	$(RUN)/python -c 'import torch, torchvision' 2>/dev/null || $(RUN)/python -m pip install -q torch torchvision
	$(RUN)/python -m pip install -q -e '.[dev]'
	touch $@

# Compiles what has changed and links. RETINA_OPS_CUDA=0 leaves the CUDA operators out.
build: $(VENV)/.installed
	$(RUN)/python setup.py build_ext --inplace

# The operators in float32, in about two minutes. ARGS goes to pytest: make test-fast ARGS="-k nms -x".
test-fast: build
	$(RUN)/python -m pytest tests/ops --fast --benchmark-disable $(PARALLEL) $(ARGS)

# Every test, and every benchmark once without timing. One file: make test TESTS=tests/tooling/test_build.py.
# PARALLEL= runs them one after another, as --pdb needs.
test: build
	$(RUN)/python -m pytest $(TESTS) --benchmark-disable $(PARALLEL) $(ARGS)

# Times every operator, prints the table and keeps the record; BENCH=--full adds sizes.
bench: build
	mkdir -p build
	$(RUN)/python -m pytest benchmarks -p no:cacheprovider --benchmark-save-data --benchmark-json=build/bench.json $(BENCH)
	$(RUN)/python benchmarks/publish.py build/bench.json

# Trains a small RetinaNet for five minutes on scenes that need no download, and evaluates it.
demo: build
	$(RUN)/retina-ops demo --output runs/demo

lint: $(VENV)/.installed
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/clang-format --dry-run --Werror $(CPP_FILES)
	$(RUN)/mypy
	$(RUN)/python build_tools/generated_files.py --check

# Puts right what `make lint` reports, where a tool can.
format: $(VENV)/.installed
	$(RUN)/python build_tools/generated_files.py
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .
	$(RUN)/clang-format -i $(CPP_FILES)

# Compiles every CUDA source without a GPU: warnings are errors. ARGS="--sources nms --arch 90" for one room.
cuda-check: $(VENV)/.installed
	$(RUN)/python build_tools/check_cuda.py $(ARGS)

# The wheel under a torch without CUDA, and the sources against the oldest supported torch. Downloads both.
portability: $(VENV)/.installed
	$(RUN)/python build_tools/check_portability.py

# What CI has no time for: every architecture, planted bugs, many schedules, every supported torch. Keeps a record.
check-all: build
	$(RUN)/python build_tools/check_all.py

# On a machine with a GPU: build, tests, sanitizers, determinism, benchmarks, a training. Keeps one JSON record.
# Uses $(PYTHON) and its torch as they are. GPU_CHECK passes options, such as GPU_CHECK="--stages build,tests".
gpu-check:
	$(PYTHON) tests/gpu/check.py $(GPU_CHECK)

clean:
	rm -rf build dist *.egg-info retina_ops/*.so retina_ops/_build_info.json $(VENV)/.installed
