# Every target makes .venv from requirements.lock first, if that has not been done. `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
# The installed programs call each other by name (MLflow starts its server that way).
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Where it is set, each process would compile all our modules anew, which takes it a second.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test test-long chaos check ui bench bench-gpu lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

run: .venv/installed ## from raw data to registered models, all tasks
	pedigree data
	pedigree run

test: .venv/installed ## the tests that take seconds each
	python -m pytest

test-long: .venv/installed ## the tests that take minutes each: a team's servers, two hosts, everything at once
	python -m pytest -m long --timeout 900

chaos: .venv/installed ## blows to the product, into docs/reliability.md; ROWS="fuzz" for some of them
	python -m tests.chaos $(ROWS)

check: .venv/installed ## lint, types, the one-way imports, known vulnerabilities
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	python .ci/audit.py

ui: .venv/installed ## MLflow's pages on http://127.0.0.1:5000
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --workers 1 --host 127.0.0.1 --port 5000

bench: .venv/installed ## throughput beside its peers, evaluation, more workers, large sets, the minutes around, into docs/performance.md
	pedigree data
	python -m benchmarks.throughput
	python -m benchmarks.inference
	python -m benchmarks.scaling
	python -m benchmarks.large
	python -m benchmarks.around

bench-gpu: .venv/installed ## on a GPU: images a second, share of peak, time to 94 % and 96 % on CIFAR-10
	pedigree data cifar10
	python -m benchmarks.result cifar10-fast data/vision --gpu
	python -m benchmarks.result cifar10-fast data/vision --gpu --set train.compile=true
	python -m benchmarks.result cifar10 data/vision --gpu --set train.compile=true --seeds 1

lock: .venv/installed ## solve requirements.lock anew from pyproject.toml
	uv pip compile pyproject.toml --extra dev --extra demo --extra team --generate-hashes --universal --python-version 3.11 --no-header --quiet -o requirements.lock

# A virtual environment knows the folder it was made in: a checkout that was moved gets another.
ifneq ($(file <.venv/installed),$(CURDIR))
.PHONY: .venv/installed
endif

# --compile-bytecode: without .pyc files every process spends seconds on importing torch, MLflow and Ray.
.venv/installed: requirements.lock pyproject.toml
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "$$(grep -o '^uv==[0-9.]*' requirements.lock)"
	$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation -e .
	echo $(CURDIR) > $@
