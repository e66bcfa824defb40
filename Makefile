PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install report test test-long test-all check validate publish timings figures tutorial

help:  ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

install: $(VENV)/.installed  ## Create .venv and install everything into it

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q torch==2.13.0
	$(BIN)/pip install -q -c constraints.txt -e '.[all,dev]'
	@touch $@

report: install  ## Run the quickstart experiment and write its HTML report
	$(BIN)/quantbench run experiments/quickstart.yaml

TESTS := $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

test: install  ## Run the tests, but for the long ones
	$(TESTS) -m "not long"

test-long: install  ## Run real models, long simulations, whole matrices and kills
	$(TESTS) -m long

test-all: test test-long  ## Run every test

check: install  ## Linter, formatter and type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

validate: install  ## Measure what the numbers are worth on this machine (about 35 minutes)
	$(BIN)/python -m tools.validation

publish: install  ## Copy the newest run of EXPERIMENT=name to results/reference/
	$(BIN)/python tools/figures.py publish results/$(EXPERIMENT) results/reference/$(EXPERIMENT)

timings: install  ## Time the quickstart and a diagnosis, and publish both
	$(BIN)/python tools/figures.py time
	$(BIN)/python tools/figures.py diagnose

figures: install  ## Write the numbers of the published runs into README and docs
	$(BIN)/python tools/figures.py write

tutorial: install  ## Run docs/tutorial.ipynb and store its outputs (about four minutes)
	$(BIN)/python tools/execute.py
