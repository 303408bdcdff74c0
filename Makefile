# `make help` explains every target. VENV, PYTHON, STAGE and ADDRESS may be set on the command line.
PYTHON ?= python3
VENV ?= .venv
ADDRESS ?= http://127.0.0.1:8265
STAGE ?= all
SHELL := /bin/bash
export PATH := $(abspath $(VENV))/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export NO_MKDOCS_2_WARNING := true
export RAY_AUTH_MODE ?= token

.DEFAULT_GOAL := help
.PHONY: help env repro smoke check test soak bench plots ui docs submit analysis clean

help: ## Show this help
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/.ready: pyproject.toml
	@echo "Installing into $(VENV), which takes a few minutes"
	$(PYTHON) -m venv $(VENV)
	pip install --quiet --upgrade pip 'setuptools>=77'
	pip install --quiet --no-compile --editable '.[pipeline,test,docs]'
	python -W ignore -m compileall -q -j 0 $(VENV)/lib > /dev/null 2>&1 || true # on all cores; pip would use one core
	touch $@

env: $(VENV)/.ready ## Make the environment in .venv from pyproject.toml

repro: env ## Run the whole DAG (dvc repro), then print the results and where they are
	python -m pipeline params > /dev/null # refuse wrong params before DVC deletes the last run's outputs
	dvc repro
	python -m pipeline summary

smoke: env ## The same, as small as possible, in 3 to 5 minutes (edits params.yaml: `git checkout params.yaml`)
	python -m pipeline preset smoke
	dvc repro
	python -m pipeline summary

check: env ## Check style and types and run the quick tests, in about 90 seconds on 2 CPU cores
	ruff check .
	ruff format --check .
	mypy & pytest -m "not slow and not soak" --numprocesses auto && wait $$!

test: check ## The same, then the tests that run the smoke preset, Ray, DVC and MLflow: about 10 minutes in all
	OMP_NUM_THREADS=1 pytest -m "slow and not soak" --numprocesses 3 --dist worksteal # they wait half of the time

soak: env ## Try every outage in each kind of stage, 20 kills of a run and other long tests (an hour or more)
	OMP_NUM_THREADS=1 pytest -m soak --numprocesses 3 --dist loadfile --ignore tests/test_outages.py
	pytest -m soak tests/test_outages.py # alone, because it measures times

bench: env ## Time training and decoding on this machine, in a few minutes
	python -m benchmarks

analysis: env ## Make the tables and figures again from the result files
	python -m analysis

plots: env ## Draw DVC's plots as a page that works offline, dvc_plots/index.html
	pip install --quiet 'vl-convert-python>=1.6'
	mkdir -p dvc_plots
	python -c 'import vl_convert; print(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))' \
	    > dvc_plots/vega.js
	dvc plots show

ui: env ## Browse the runs in MLflow, on loopback; prints the links
	python -m pipeline ui

docs: env ## Build docs/ as a site (site/index.html); `mkdocs serve` serves it with search
	mkdocs build --quiet

submit: env ## Run STAGE (default: all) as a Ray job on ADDRESS, then fetch the results
	python -m pipeline submit $(STAGE) --address "$(ADDRESS)"
	test -z "$$(dvc config core.remote 2> /dev/null)" || dvc repro --pull $(filter-out all,$(STAGE))

clean: ## Send unsent logs to MLflow, then delete checkpoints and finished trials (DVC's cache stays)
	test ! -d runs || python -m pipeline sync
	test ! -d runs || find -H runs -mindepth 1 -maxdepth 1 -exec rm -rf {} +
