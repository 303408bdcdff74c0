# `make help` explains each target. Set VENV, PYTHON, STAGE and ADDRESS on the command line.
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
	python -W ignore -m compileall -q -j 0 $(VENV)/lib > /dev/null 2>&1 || true # in parallel, unlike pip
	touch $@

env: $(VENV)/.ready ## Create the virtual environment .venv from pyproject.toml

repro: env ## Run the whole DAG (dvc repro), then print the main results
	python -m pipeline params > /dev/null # validate before DVC deletes the last outputs
	dvc repro
	python -m pipeline summary

smoke: env ## Run the smallest preset in 2 to 3 minutes (edits params.yaml; undo: `git checkout params.yaml`)
	python -m pipeline preset smoke
	dvc repro
	python -m pipeline summary

check: env ## Check style and types and run the quick tests, in about 90 seconds on 2 CPU cores
	ruff check .
	ruff format --check .
	mypy & pytest -m "not slow and not soak" --numprocesses auto && wait $$!

test: check ## Run `check`, then the tests with the smoke preset, Ray, DVC and MLflow: about 13 minutes in total
	OMP_NUM_THREADS=1 pytest -m "slow and not soak" --numprocesses 3 --dist worksteal # they are idle half the time

soak: env ## Run the long tests, such as outages in each kind of stage and 20 kills of a run, in an hour
	OMP_NUM_THREADS=1 pytest -m soak --numprocesses 3 --dist loadfile --ignore tests/test_outages.py
	pytest -m soak tests/test_outages.py # alone, because it measures times

bench: env ## Time training and decoding on this machine, in a few minutes
	python -m benchmarks

analysis: env ## Recreate the tables and figures from the result files
	python -m analysis

plots: env ## Write DVC's plots to dvc_plots/index.html, a page that works offline
	pip install --quiet 'vl-convert-python>=1.6'
	mkdir -p dvc_plots
	python -c 'import vl_convert; print(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))' \
	    > dvc_plots/vega.js
	dvc plots show

ui: env ## Browse the runs in MLflow, on loopback; prints the links
	python -m pipeline ui

docs: env ## Build docs/ as a site (site/index.html); `mkdocs serve` also enables its search
	mkdocs build --quiet

submit: env ## Run STAGE (or all) as a Ray job on ADDRESS, and fetch the results
	python -m pipeline submit $(STAGE) --address "$(ADDRESS)"
	test -z "$$(dvc config core.remote 2> /dev/null)" || dvc repro --pull $(filter-out all,$(STAGE))

clean: ## Sync MLflow, then delete live checkpoints and finished trials (DVC's cache stays)
	test ! -d runs || python -m pipeline sync
	test ! -d runs || find -H runs -mindepth 1 -maxdepth 1 -exec rm -rf {} +
