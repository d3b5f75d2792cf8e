# One line sets up, one line checks. uv and everything else go into .venv; nothing outside it is touched.

PYTHON ?= python3
VENV := .venv
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
RUN := $(VENV)/bin
OUT ?= demo

export UV_PROJECT_ENVIRONMENT := $(VENV)

.PHONY: help setup demo test check lock litert web clean

help:
	@echo 'make demo     the whole road on real pictures, about seven minutes on two cores; look at demo/report.html'
	@echo 'make test     checks and all tests'
	@echo 'make check    formatter, linter, types, import contracts'
	@echo 'make setup    everything for development, from the lock file (CPU=1: a small install with CPU torch)'

# uv, where the machine has none, in a folder of its own.
.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.8'

# CPU=1 takes the oldest torch we support in its CPU build (set UV_TORCH_BACKEND=cpu, or UV_FIND_LINKS to a folder with
# its wheel), and leaves out torchvision, and with it the comparisons with open_clip and timm.
ifdef CPU
SYNC = $(UV) venv --quiet --allow-existing $(VENV) && \
  $(UV) export --quiet --locked --no-hashes --no-emit-project --prune torch $(1) -o $(VENV)/requirements.txt && \
  $(UV) pip install --quiet --python $(RUN)/python 'torch==2.13.0' -r $(VENV)/requirements.txt && \
  $(UV) pip install --quiet --python $(RUN)/python --no-deps -e .
else
SYNC = $(UV) sync --quiet --locked --inexact $(1)
endif

setup: | $(filter .uv/%,$(UV))
	$(call SYNC,$(if $(CPU),--extra train --extra onnx --extra demo --extra parquet --extra ray --extra stores,--all-extras))

demo: | $(filter .uv/%,$(UV))
	$(call SYNC,--no-dev --extra train --extra onnx --extra demo)
	$(RUN)/pocketclip demo $(OUT) $(ARGS)

test: setup check
	$(RUN)/pytest -n auto --dist worksteal

check: setup
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
ifndef CPU # the types are those of the locked torch
	$(RUN)/ty check
endif
	$(RUN)/lint-imports

# litert-torch pins versions that conflict with the lock file: a Python of its own, for `pocketclip export --to litert`.
litert: | $(filter .uv/%,$(UV))
	$(UV) venv --quiet --allow-existing .litert
	$(UV) pip install --quiet --python .litert/bin/python 'torch==2.13.0' 'litert-torch>=0.10' onnx '.[train]'
	@echo "export POCKETCLIP_LITERT_PYTHON=$(CURDIR)/.litert/bin/python"

# The page of `pocketclip export --to web`, from web/ into the package. Users need no npm: what is built is committed.
web:
	cd web && npm ci --no-audit --no-fund && npm test && npm run build
	$(PYTHON) web/publish.py

lock: | $(filter .uv/%,$(UV))
	$(UV) lock

clean:
	rm -rf $(VENV) .uv .litert .pytest_cache .ruff_cache .hypothesis .import_linter_cache
