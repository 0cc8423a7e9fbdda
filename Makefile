# Every word a newcomer needs; `make help` lists them. The logic lives in dvc.yaml and in Python.
SHELL := /bin/bash
BOOTSTRAP ?= python3
INSTALLER ?= uv
PYTHON := .venv/bin/python
STAMP := .venv/.installed
ZSPL_SHARED ?= ../shared

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export UV_SYSTEM_CERTS := 1
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS := 120

.DEFAULT_GOAL := help
.PHONY: help demo animals up down test test-all check fix bench docs pictures

help: ## List these targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 12

demo: $(STAMP) ## Run the default benchmark and print its table.
	@$(PYTHON) -m tasks check
	dvc repro
	@$(MAKE) --no-print-directory show FOLDER=.

animals: export ZSPL_WEIGHTS ?= $(abspath $(ZSPL_SHARED))/weights
animals: $(STAMP) data/voc_animals ## Run the benchmark on real photos and print its table.
	@cd benchmarks/animals && ../../$(PYTHON) -m tasks check
	dvc repro benchmarks/animals/dvc.yaml
	@$(MAKE) --no-print-directory show FOLDER=benchmarks/animals

up: $(STAMP) ## Start Prefect, its worker and MLflow on this machine; say where.
	@$(PYTHON) -m zspl up

down: $(STAMP) ## End them and what they started.
	@$(PYTHON) -m zspl down

test: $(STAMP) ## Run the tests, orchestration included.
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist loadfile -m "not weights and not gpu and not slow"

test-all: $(STAMP) ## Run every test, with those that need weights, a GPU or minutes.
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist loadfile -m "weights or gpu or not gpu"

check: $(STAMP) ## Check format, lint, types and layers.
	ruff format --check .
	ruff check .
	mypy
	lint-imports

fix: $(STAMP) ## Mend what the formatter and the linter can mend.
	ruff format .
	ruff check --fix .

bench: $(STAMP) ## Time what runs once per training step or per image.
	$(PYTHON) -m pytest benches -q -s -o addopts= -o python_files='bench_*.py' -o python_functions='bench_*'

docs: $(STAMP) ## Build the documentation site into site/.
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	@printf 'Site           site/index.html\n'

pictures: $(STAMP) ## Put the finished demo's figures into docs/images, for README.
	$(PYTHON) docs/hooks/pictures.py artifacts/tables docs/images

.PHONY: show
show:
	@cat $(FOLDER)/artifacts/tables/table.txt
	@printf '\nReport         %s/artifacts/tables/index.html\n' '$(FOLDER)'
	@printf 'Every run      .venv/bin/mlflow ui --backend-store-uri sqlite:///mlflow.db\n'
	@printf 'In the browser make up   (Prefect, its worker and MLflow; make down ends them)\n'

data/voc_animals:
	@test -d '$(ZSPL_SHARED)/data/voc_animals' || { printf '%s\n' \
	  'zspl: data/voc_animals: no such folder; put or link the photos there, or set ZSPL_SHARED (docs/results.md)' >&2; exit 2; }
	@mkdir -p data && ln -s '$(abspath $(ZSPL_SHARED))/data/voc_animals' $@

$(STAMP): requirements.lock pyproject.toml
	@$(BOOTSTRAP) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'zspl: needs Python 3.11 or newer; run make BOOTSTRAP=python3.11 ...' >&2; exit 2; }
	test -x $(PYTHON) || $(BOOTSTRAP) -m venv .venv
	@$(MAKE) --no-print-directory install-with-$(INSTALLER)
	@# Where Python keeps no compiled files, every start would compile its imports again: 3 s per stage.
	@test -z "$$PYTHONDONTWRITEBYTECODE" || $(PYTHON) -m compileall -q -j 0 .venv/lib > /dev/null 2>&1 || true
	@touch $@

.PHONY: install-with-uv install-with-pip
install-with-uv: # minutes faster than pip; where it cannot connect, pip may
	$(PYTHON) -m pip install --quiet uv
	{ $(PYTHON) -m uv pip install --quiet --python $(PYTHON) -r requirements.lock && \
	  $(PYTHON) -m uv pip install --quiet --python $(PYTHON) --no-deps -e .; } \
	  || $(MAKE) --no-print-directory install-with-pip

install-with-pip:
	$(PYTHON) -m pip install --quiet -r requirements.lock
	$(PYTHON) -m pip install --quiet --no-deps -e .
