# make demo   train, test and picture a detector and a segmenter with ACmix backbones
# make test   the test suite
# make nightly  the test suite with its long tests (an hour or two on 2 cores)
# make mutations  plant faults in a copy of the sources; each must turn the tests red (a quarter of an hour)
# make core TORCH=2.0.1  the tests of operators, layers and backbones with this torch, in .venv-torch-2.0.1
# make docs   the site, in docs/_build/html
# make lint   ruff
# make env    only make .venv, which the others do first when it is missing or out of date
# STACK=onedl uses the OneDL forks of the OpenMMLab packages, in .venv-onedl: make test STACK=onedl
# With another Python than the python3.11 on PATH: make PYTHON=/path/to/python3.11 demo

PYTHON ?= $(shell command -v python3.11 || command -v python3)
STACK ?= stock
BIN := $(if $(filter stock,$(STACK)),.venv,.venv-$(STACK))/bin
export STACK

.PHONY: help env demo test nightly mutations core docs lint

help:
	@sed -n 's/^# //p' Makefile

env:
	$(if $(PYTHON),,$(error Python 3.11 must be on PATH (python3.11 or python3), got none))
	@$(PYTHON) tools/setup/make_env.py

demo: env
	@$(BIN)/python tools/demo/run_demo.py

test: env
	@OMP_NUM_THREADS=1 $(BIN)/pytest --import-mode=importlib --numprocesses 2 --dist loadfile --durations 40 tests

nightly: env
	@OMP_NUM_THREADS=1 $(BIN)/pytest --import-mode=importlib --numprocesses 2 --dist loadfile --nightly tests

mutations: env
	@$(BIN)/python tests/mutations/run.py

core:
	$(if $(PYTHON),,$(error Python 3.8 or later must be on PATH (python3.11 or python3), got none))
	@TORCH=$(TORCH) $(PYTHON) tools/setup/make_core.py
	@OMP_NUM_THREADS=1 .venv-torch-$(TORCH)/bin/python -m pytest --import-mode=importlib --numprocesses 2 --dist loadfile \
		tests/ops tests/layers tests/backbones

docs: env
	@OMP_NUM_THREADS=1 $(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

lint: env
	@$(BIN)/ruff check .
