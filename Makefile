# Every target but `help`, which lists them, first creates .venv from requirements.lock if it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin
# The installed programs call each other by name (MLflow starts its server that way).
export PATH := $(CURDIR)/$(BIN):$(PATH)
# If it is set, each process compiles all our modules again, which takes a second.
unexport PYTHONDONTWRITEBYTECODE

EMBEDDED := digits docstrings words

.DEFAULT_GOAL := help
.PHONY: help install run run-all test test-long chaos check ui bench bench-gpu lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: .venv/installed ## create .venv: about 7 GB, which takes minutes; the other targets do so first, too

run: .venv/installed ## train and register the three models whose data sets are embedded, from raw data
	pedigree data $(EMBEDDED)
	pedigree run $(EMBEDDED)

run-all: .venv/installed ## the same for every model in params.yaml
	pedigree data --all
	pedigree run

test: .venv/installed ## the tests that take seconds each
	python -m pytest

test-long: .venv/installed ## the tests that take minutes each: a team's servers, two hosts, everything at once
	python -m pytest -m long --timeout 900

chaos: .venv/installed ## inject faults and write docs/reliability.md; ROWS="fuzz" selects some
	python -m tests.chaos $(ROWS)

check: .venv/installed ## lint, types, one-way imports, vulnerabilities; AUDIT=required fails if they are not checked
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	python .ci/audit.py

ui: .venv/installed ## MLflow's pages on http://127.0.0.1:5000, or at PEDIGREE_MLFLOW_PORT
	pedigree ui

bench: .venv/installed ## measure throughput, evaluation, beam search, scaling, large data sets and overhead; write docs/performance.md
	pedigree data $(EMBEDDED)
	python -m benchmarks.throughput
	python -m benchmarks.inference
	python -m benchmarks.beam
	python -m benchmarks.scaling
	python -m benchmarks.large
	python -m benchmarks.large_table
	python -m benchmarks.around

bench-gpu: .venv/installed ## on a GPU: what only it can show, speed, time to 94 % on CIFAR-10 (CIFAR10=FOLDER, or downloaded)
	pedigree data $(EMBEDDED)
	python -m benchmarks.gpu $(if $(CIFAR10),--cifar10 "$(CIFAR10)")

lock: .venv/installed ## resolve requirements.lock from pyproject.toml
	uv pip compile pyproject.toml --extra dev --extra demo --extra driving --extra medical --extra team --generate-hashes --universal --python-version 3.11 --no-header --quiet -o requirements.lock

# A virtual environment contains its own path, so a checkout that was moved needs a new one.
ifneq ($(file <.venv/installed),$(CURDIR))
.PHONY: .venv/installed
endif

# --compile-bytecode: without .pyc files every process spends seconds on importing torch, MLflow and Ray.
.venv/installed: requirements.lock pyproject.toml
	rm -rf .venv
	$(PYTHON) -m venv .venv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock | $(BIN)/python -m pip install --quiet --require-hashes -r /dev/stdin
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation -e .
	echo $(CURDIR) > $@
