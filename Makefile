# `make help` explains every target. VENV, PYTHON and ADDRESS may be set on the command line.
PYTHON ?= python3
VENV ?= .venv
ADDRESS ?= http://127.0.0.1:8265
SHELL := /bin/bash
export PATH := $(abspath $(VENV))/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export RAY_AUTH_MODE ?= token

.DEFAULT_GOAL := help
.PHONY: help env repro smoke check test bench ui submit analysis clean

help: ## Show this help
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	pip install --quiet --upgrade pip 'setuptools>=77'
	PYTHONWARNINGS=ignore pip install --quiet --editable '.[test]'
	touch $@

env: $(VENV)/.ready ## Make the environment in .venv from pyproject.toml

repro: env ## Run the whole DAG (dvc repro), then print the results and where they are
	dvc repro
	python -m pipeline summary

smoke: env ## The same at its smallest, in 2 to 3 minutes (edits params.yaml: `git checkout params.yaml`)
	python -m pipeline preset smoke
	dvc repro
	python -m pipeline summary

check: env ## Check style, types and what is quick to test, in about a minute and a half
	ruff check .
	ruff format --check .
	mypy
	pytest -m "not slow" --numprocesses auto

test: env ## Run all the tests
	pytest

bench: env ## Time training and decoding here, in about 10 minutes (results/bench.json)
	python -m pipeline bench

analysis: env ## Make the tables and figures again from the result files
	python -m analysis

ui: env ## Browse the runs in MLflow, on loopback
	mlflow ui --host 127.0.0.1 --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}"

submit: env ## Run the sweep as a Ray job on ADDRESS, then take its rows into the project
	dvc repro schedules
	ray job submit --address $(ADDRESS) \
	    --runtime-env-json '{"env_vars": {"MLFLOW_TRACKING_URI": "'$$MLFLOW_TRACKING_URI'"}}' \
	    -- bash -c 'cd $(CURDIR) && $(abspath $(VENV))/bin/python -m stages.sweep'
	dvc repro --single-item sweep

clean: ## Delete live checkpoints and the sweep's finished trials (DVC's cache stays)
	rm -rf runs
