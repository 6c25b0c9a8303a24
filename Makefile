# make quickstart [CORPUS=FOLDER]   from nothing to a trained, measured recogniser
# make test                         lint, types, fast tests
# make bench [NAME=quickstart ARGS=...]   what is measured, or one of the measurements
# make same-loss [BEFORE=HEAD~1 AFTER=HEAD]   do two commits train to the same losses, bit for bit?
# TORCH=2.12.0 / TORCH_INDEX=URL    another build of torch (empty: the pinned one from your usual index)
PYTHON ?= python3
VENV ?= .venv
CORPUS ?=
RUN ?= runs/quickstart
MINUTES ?=
TORCH ?=
TORCH_INDEX ?=
NAME ?=
ARGS ?=
BEFORE ?= HEAD~1
AFTER ?= HEAD
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
export OMP_WAIT_POLICY ?= PASSIVE
CONSTRAINTS := $(VENV)/constraints.txt

.PHONY: help quickstart test test-all lint types docs bench same-loss clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,5s/^# //p' Makefile

# torch goes first: a dependency that asks for it then finds the build chosen here. A build of TORCH_INDEX wins
# because of its local label (2.13.0+cpu counts as newer than 2.13.0); the rest comes from the usual index.
$(VENV)/.base: pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once; several minutes on a slow line)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@sed $(if $(TORCH),'s/^torch==.*/torch==$(TORCH)/',-e '') constraints.txt > $(CONSTRAINTS)
	@$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c $(CONSTRAINTS) torch
	@$(PIP) -c $(CONSTRAINTS) -e '.[train,quickstart]'
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@$(PIP) -c $(CONSTRAINTS) -e '.[train,quickstart,tensorboard,lhotse,llm,export,dev]'
	@touch $@

quickstart: $(VENV)/.base
	@$(BIN)/firstwords quickstart --to $(RUN) $(if $(CORPUS),--corpus $(CORPUS)) $(if $(MINUTES),--minutes $(MINUTES))

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

# Two processes of one thread each: the machine that the limit of twelve minutes is set for has two cores.
test: export OMP_NUM_THREADS ?= 1
test: lint types
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not gpu"

test-all: export FIRSTWORDS_EXAMPLES := others
test-all: lint types
	$(BIN)/pytest

docs: $(VENV)/.dev
	$(PIP) -c $(CONSTRAINTS) -e '.[docs]'
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.base
ifeq ($(NAME),)
	@for script in benchmarks/*.py; do printf '%s\n    ' "$$script"; sed -n '1s/"""//gp' "$$script"; done
else
	$(BIN)/python benchmarks/$(NAME).py $(ARGS)
endif

same-loss: $(VENV)/.base
	@$(BIN)/python benchmarks/same_loss.py $(BEFORE) $(AFTER)

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache
