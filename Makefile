# make demo | install | test | bench | lint | cuda-check | portability | gpu-check : everything on a fresh machine with Python and a C++ compiler.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
CPP := $(shell git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.cuh')
CPP_TESTS := $(shell git ls-files 'tests/*.h' 'tests/*.cpp' 'benchmarks/cuda/*.cu')


.PHONY: install demo test bench lint format cuda-check portability check-all gpu-check clean

# The environment, and the package built in place. The stamp makes a second call free.
install: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml setup.py csrc/build.json $(CPP) build_tools/retina_ops_build.py build_tools/cuda_toolkit.py
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install -q --upgrade pip
	$(RUN)/python -c 'import torch, torchvision' 2>/dev/null || $(RUN)/python -m pip install -q torch torchvision
	$(RUN)/python -m pip install -q -e '.[dev]'
	touch $@

test: install
	$(RUN)/python -m pytest tests benchmarks --benchmark-disable

# Times every operator, prints the table and keeps the record; BENCH=--full adds sizes.
bench: install
	mkdir -p build
	$(RUN)/python -m pytest benchmarks -p no:cacheprovider --benchmark-save-data --benchmark-json=build/bench.json $(BENCH)
	$(RUN)/python benchmarks/publish.py build/bench.json

# Trains a small RetinaNet for five minutes on scenes that need no download, and evaluates it.
demo: install
	$(RUN)/retina-ops demo --output runs/demo

lint: install
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/clang-format --dry-run --Werror $(CPP) $(CPP_TESTS)
	$(RUN)/mypy

format: install
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .
	$(RUN)/clang-format -i $(CPP) $(CPP_TESTS)

# Compiles every CUDA source without a GPU: warnings are errors.
cuda-check: install
	$(RUN)/python build_tools/check_cuda.py

# The wheel under a torch without CUDA, and the sources against the oldest supported torch: downloads both.
portability: install
	$(RUN)/python build_tools/check_portability.py

# What CI has no time for: every architecture, planted bugs, many schedules, every supported torch; keeps a record.
check-all: install
	$(RUN)/python build_tools/check_all.py

# On a machine with a GPU: build, tests, sanitizers, determinism, benchmarks, a training; one JSON record.
# Uses $(PYTHON) and its torch as they are. GPU_CHECK passes options, such as GPU_CHECK="--stages build,tests".
gpu-check:
	$(PYTHON) tests/gpu/check.py $(GPU_CHECK)

clean:
	rm -rf build dist *.egg-info retina_ops/*.so retina_ops/_build_info.json $(VENV)/.installed
