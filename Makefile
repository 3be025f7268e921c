# InstructPix2Pix for ComfyUI. On a bare machine with Python 3.10 or newer: make demo, make test.
#   PYTHON=python3.12   which Python makes the environment
#   WORKERS=4           how many processes run the tests (default 2)
#   COMFYUI_PATH=...    a ComfyUI checkout for the host and browser tests (default ~/comfy/ComfyUI)

PYTHON ?= python3
COMFYUI_PATH ?= $(HOME)/comfy/ComfyUI
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
# Python compiles the modules that are imported; pip would compile all of them, which takes minutes.
PIP_OPTIONS := --quiet --disable-pip-version-check --no-compile
HAS_COMFY := $(wildcard $(COMFYUI_PATH)/main.py)
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
TIERS := unit or parity or e2e $(if $(HAS_COMFY),or host $(if $(CHROMIUM),or browser))
export COMFYUI_PATH

.PHONY: setup demo test test-gpu soak bench lint train-embedded tiers

setup: $(VENV)/.pack-installed $(if $(HAS_COMFY),$(VENV)/.host-installed)

$(VENV)/.pack-installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed; choose one with make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV); the first time this takes some minutes."; $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install $(PIP_OPTIONS) -c constraints.txt -e '.[train,text,cluster,dev]'
	@mkdir -p $(VENV)/typing && ln -sfn ../.. $(VENV)/typing/ip2p
	@touch $@

$(VENV)/.host-installed: $(VENV)/.pack-installed $(COMFYUI_PATH)/requirements.txt
	$(BIN)/python -m pip install $(PIP_OPTIONS) -c constraints.txt -r $(COMFYUI_PATH)/requirements.txt
	@touch $@

demo: $(VENV)/.pack-installed
	$(BIN)/python -m ip2p.trainer demo

lint: $(VENV)/.pack-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pydoclint --quiet ip2p_core trainer
	$(BIN)/codespell

tiers:
ifeq ($(HAS_COMFY),)
	@echo "**** NO COMFYUI at $(COMFYUI_PATH): THE HOST AND BROWSER TESTS DO NOT RUN. Set COMFYUI_PATH to a checkout. ****"
else ifeq ($(CHROMIUM),)
	@echo "**** NO CHROMIUM: THE BROWSER TESTS DO NOT RUN. Install chromium. ****"
else
	@echo "Host and browser tests: $(COMFYUI_PATH), $(CHROMIUM)"
endif

test: setup lint tiers
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --no-showlocals --durations=10 -m "($(TIERS)) and not soak and not gpu"
	@$(MAKE) --no-print-directory tiers

soak: setup lint tiers
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --no-showlocals --durations=20 -m "($(TIERS)) and not gpu"

test-gpu: $(VENV)/.pack-installed
	$(BIN)/python -m pytest -q -n 0 -m gpu tests/gpu

bench: setup
	$(BIN)/python -m ip2p.benchmarks
	$(BIN)/python -m ip2p.benchmarks.pairs
	$(BIN)/python -m ip2p.benchmarks.pair_store
	$(BIN)/python -m ip2p.benchmarks.triplets
	$(BIN)/python -m ip2p.benchmarks.train
	$(BIN)/python -m ip2p.benchmarks.train_presets
	$(BIN)/python -m ip2p.benchmarks.auto_guidance
	$(BIN)/python -m ip2p.benchmarks.relevance

train-embedded: $(VENV)/.pack-installed
	$(BIN)/python -m ip2p.trainer train-embedded
