# SPDX-License-Identifier: Apache-2.0
# `make` lists the targets. Every stage writes files under $(OUT) and runs again only when what it
# reads, or a setting it uses, has changed.

# What to build. Empty means: the network's own default.
NET ?= alexnet
# Where the numbers come from.
WEIGHTS ?=
DATA ?=
IMAGES ?= $(if $(filter digits,$(NET)),360,1)
# How the images of an ONNX file are prepared: (pixel * SCALE - MEAN) / STD after resizing to RESIZE.
MEAN ?=
STD ?=
SCALE ?=
RESIZE ?=
# accuracy: 1 runs the C-simulation, too.
CSIM ?=
# train, finetune: other images to test on, passes over DATA, learning rate, images a step, and
# DISTILL=1 to learn from the float network instead of labels.
TEST ?=
EPOCHS ?=
LR ?=
BATCH ?=
DISTILL ?=
# fuzz: so many networks, from this seed.
N ?= 200
SEED ?= 1
# Quantization.
SCHEME ?=
BITS ?=
RULE ?=
QM ?=
PLAN ?=
DELTA ?=
# Better accuracy from the same hardware, without labels: all, or some of equalise, sensitivity and
# distil, with commas; steps of distil.
REFINE ?=
DISTIL_STEPS ?=
# allocate: search, budget, quenn or sqnr; NB bits for budget (empty: the whole front); accuracy,
# agreement or sqnr; EXHAUSTIVE=1 all products; GB of activations to keep; a Dask cluster,
# tcp://host:port. METHOD=sqnr: dB of all activations and of all weights, what a bit costs, dB a bit.
METHOD ?= search
NB ?=
METRIC ?=
EXHAUSTIVE ?=
CACHE_GB ?=
SCHEDULER ?=
TARGET_DB ?=
WEIGHTS_DB ?=
RHO ?=
KAPPA ?=
# Stored weights: of all layers, and of the fully connected ones.
WEIGHT_SCHEME ?=
WEIGHT_BITS ?=
FC_WEIGHT_SCHEME ?=
FC_WEIGHT_BITS ?=
# study: some of its sections, with commas; 1 measures fewer points.
SECTIONS ?=
QUICK ?=
# Hardware.
PART ?= xc7z020
# Lanes, pixels and weight ports: the exploration chooses what is not set. MHz; explore:
# fraction of the part to use, images that share a run.
CLOCK ?=
BATCH ?=
LIMIT ?=
SIMD ?=
PE ?=
# Feature maps: auto (on chip where they fit), chip (all, or an error), ddr.
FM ?=
WEIGHT_PORTS ?=
PIXELS ?=
# C-simulation: fast, exact (ap_int), or threads (a thread a process, streams of limited depth).
CSIM_TYPES ?= fast
# Points of the conversion units' cost table: small, medium or full (hours).
SWEEP ?= small
# Board: REPEATS timed runs; CLNQ: widths to compare with, one a convolution.
BOARD ?=
# Vitis HLS: some of csim, csynth, cosim, export; default all but cosim, which is for small networks.
HLS_STEPS ?=
REPEATS ?=
CLNQ ?=
OUT ?= build/$(basename $(notdir $(NET)))

VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
QUANTIZED := $(OUT)/quantized/manifest.json
GENERATED := $(OUT)/report.json
PREP_SOURCES := $(shell find model_prep formats -name '*.py' -o -name '*.json' -o -name '*.npz' -o -name '*.pth')
CODEGEN_SOURCES := $(shell find codegen hls_templates formats -type f -not -name '*.pyc' -not -path '*/units/*' -not -path '*/rtl/*' -not -path '*/xilinx/*' -not -path '*/vivado/*' -not -path '*/hls_check/*')
# Settings are passed only where they are set, so that each has its default in one place.
SOURCE_ARGS := --net '$(NET)' --out '$(OUT)' \
  $(if $(WEIGHTS),--weights '$(WEIGHTS)') $(if $(DATA),--data '$(DATA)') \
  $(if $(MEAN),--mean '$(MEAN)') $(if $(STD),--std '$(STD)') \
  $(if $(SCALE),--scale '$(SCALE)') $(if $(RESIZE),--resize '$(RESIZE)') \
  $(if $(QM),--qm '$(QM)') $(if $(DELTA),--delta '$(DELTA)')
NETWORK_ARGS := $(SOURCE_ARGS) \
  $(if $(SCHEME),--scheme '$(SCHEME)') $(if $(BITS),--bits '$(BITS)') \
  $(if $(RULE),--rule '$(RULE)') $(if $(PLAN),--plan '$(PLAN)') \
  $(if $(WEIGHT_SCHEME),--weight-scheme '$(WEIGHT_SCHEME)') \
  $(if $(WEIGHT_BITS),--weight-bits '$(WEIGHT_BITS)') \
  $(if $(FC_WEIGHT_SCHEME),--fc-weight-scheme '$(FC_WEIGHT_SCHEME)') \
  $(if $(FC_WEIGHT_BITS),--fc-weight-bits '$(FC_WEIGHT_BITS)') \
  $(if $(REFINE),--refine '$(REFINE)') $(if $(DISTIL_STEPS),--distil-steps '$(DISTIL_STEPS)')
TRAIN_ARGS := $(if $(DATA),--data '$(DATA)') $(if $(TEST),--test '$(TEST)') \
  $(if $(EPOCHS),--epochs '$(EPOCHS)')
TUNE_ARGS := $(if $(TEST),--test '$(TEST)') $(if $(EPOCHS),--epochs '$(EPOCHS)') \
  $(if $(LR),--lr '$(LR)') $(if $(BATCH),--batch '$(BATCH)') $(if $(DISTILL),--distill) \
  $(if $(filter command environment,$(firstword $(origin SEED))),--seed '$(SEED)')
QUANTIZE_ARGS := $(NETWORK_ARGS) --images '$(IMAGES)'
# accuracy takes IMAGES only where it was given, else all images that calibration leaves.
ACCURACY_IMAGES := $(if $(filter command environment,$(firstword $(origin IMAGES))),--images '$(IMAGES)')
ALLOCATE_ARGS := --method '$(METHOD)' $(if $(NB),--nb '$(NB)') $(if $(METRIC),--metric '$(METRIC)') \
  $(if $(EXHAUSTIVE),--exhaustive) $(if $(CACHE_GB),--cache-gb '$(CACHE_GB)') \
  $(if $(SCHEDULER),--scheduler '$(SCHEDULER)') $(if $(TARGET_DB),--target-db '$(TARGET_DB)') \
  $(if $(WEIGHTS_DB),--weights-db '$(WEIGHTS_DB)') $(if $(RHO),--rho '$(RHO)') \
  $(if $(KAPPA),--kappa '$(KAPPA)')
GENERATE_ARGS := --build '$(OUT)' $(if $(PART),--part '$(PART)') $(if $(SIMD),--simd '$(SIMD)') \
  $(if $(PE),--pe '$(PE)') $(if $(PIXELS),--pixels '$(PIXELS)') $(if $(FM),--fm '$(FM)') \
  $(if $(WEIGHT_PORTS),--weight-ports '$(WEIGHT_PORTS)') $(if $(CLOCK),--clock '$(CLOCK)')

BOARD_ARGS := $(if $(BOARD),--board '$(BOARD)')
MEASURE_ARGS := $(if $(DATA),--data '$(DATA)') $(if $(REPEATS),--repeats '$(REPEATS)') \
  $(if $(CLNQ),--clnq '$(CLNQ)')

.PHONY: help install quantize codegen explore alternatives csim hls bitstream bundle emulate measure notebook accuracy allocate study fuzz units test test-all lint format train finetune bench clean FORCE
.DELETE_ON_ERROR:

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | \
	  awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo "Variables: NET WEIGHTS DATA SCHEME BITS RULE QM PLAN DELTA REFINE DISTIL_STEPS WEIGHT_SCHEME WEIGHT_BITS FC_WEIGHT_SCHEME FC_WEIGHT_BITS PART CLOCK LIMIT BATCH SIMD PE PIXELS FM WEIGHT_PORTS IMAGES OUT CSIM_TYPES BOARD HLS_STEPS MEAN STD SCALE RESIZE CSIM N SEED SWEEP METHOD NB METRIC EXHAUSTIVE CACHE_GB SCHEDULER TARGET_DB WEIGHTS_DB RHO KAPPA TEST EPOCHS LR DISTILL SECTIONS QUICK REPEATS CLNQ"
	@echo "Example:   make csim NET=vgg16 BITS=5"

install: $(INSTALLED) ## create .venv with the pinned packages

$(INSTALLED): requirements.txt
	@command -v python3.11 >/dev/null || { echo "error: python3.11 must be on the PATH; install it (Debian: apt-get install python3.11 python3.11-venv)" >&2; exit 2; }
	python3.11 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

# A settings file changes only when a setting does; the stages depend on it.
define write_settings
	@mkdir -p '$(OUT)' 2>/dev/null && test -w '$(OUT)' || { echo "error: the output folder must be writable, not '$(OUT)'; set OUT=another folder" >&2; exit 2; }
	@printf '%s\n' "$(1)" | cmp -s - '$@' || printf '%s\n' "$(1)" > '$@'
endef

$(OUT)/quantize.settings: FORCE
	$(call write_settings,$(QUANTIZE_ARGS))

$(OUT)/codegen.settings: FORCE
	$(call write_settings,$(GENERATE_ARGS))

$(QUANTIZED): $(OUT)/quantize.settings $(PREP_SOURCES) $(wildcard $(NET) $(WEIGHTS) $(PLAN)) | $(INSTALLED)
	$(PYTHON) -m model_prep quantize $(QUANTIZE_ARGS)
	@touch $@

quantize: $(QUANTIZED) ## measure the network and write build/NET/quantized

$(GENERATED): $(QUANTIZED) $(OUT)/codegen.settings $(CODEGEN_SOURCES) $(wildcard $(PART))
	$(PYTHON) -m codegen generate $(GENERATE_ARGS)
	@touch $@

codegen: $(GENERATED) ## render the accelerator, pack its weights, write the golden vectors

explore: $(QUANTIZED) ## all designs for PART: Pareto front, what bounds each layer, roofline (BATCH=images)
	@$(PYTHON) -m codegen explore $(GENERATE_ARGS) --images '$(or $(BATCH),$(IMAGES))' $(if $(LIMIT),--limit '$(LIMIT)')

alternatives: $(QUANTIZED) ## what two faster compute stages would bring (docs/faster.md)
	@$(PYTHON) -m codegen alternatives --build '$(OUT)' $(if $(CLOCK),--clock '$(CLOCK)')

csim: $(GENERATED) ## compile and run the C-simulation, compare every layer bit for bit
	@$(PYTHON) -m codegen csim --build '$(OUT)' --types '$(CSIM_TYPES)'

# With CSIM=1 `make csim` runs first on the same IMAGES.
accuracy: $(if $(CSIM),csim) | $(INSTALLED) ## float, integer and (CSIM=1) C-simulation accuracy on DATA
	$(PYTHON) -m model_prep accuracy $(NETWORK_ARGS) $(ACCURACY_IMAGES) $(if $(CSIM),--csim)

allocate: | $(INSTALLED) ## find a width per layer (METHOD=search, budget, quenn or sqnr); OUT/plan.toml for PLAN=
	$(PYTHON) -m model_prep allocate $(NETWORK_ARGS) $(ACCURACY_IMAGES) $(ALLOCATE_ARGS)

study: | $(INSTALLED) ## the papers' tables and figures on NET and DATA: OUT/study/report.html (SECTIONS=, QUICK=1)
	$(PYTHON) -m model_prep study $(SOURCE_ARGS) $(ACCURACY_IMAGES) \
	  $(if $(SECTIONS),--sections '$(SECTIONS)') $(if $(QUICK),--quick)

fuzz: $(INSTALLED) ## N random networks, Python against C-simulation bit for bit (SEED=)
	$(PYTHON) -m tests.fuzz --count '$(N)' --seed '$(SEED)'

# Missing programs are named before anything is built.
hls: | $(INSTALLED) ## Vitis HLS: synthesize the accelerator, reports in build/NET/hls_report (HLS_STEPS=)
	@$(PYTHON) -m codegen.emit.xilinx tools hls >/dev/null
	@$(MAKE) --no-print-directory codegen
	@$(PYTHON) -m codegen.emit.xilinx hls --build '$(OUT)' --steps '$(HLS_STEPS)'

bitstream: | $(INSTALLED) ## Vivado: build/NET/bitstream for BOARD=pynq-z1|pynq-z2|zc706|ultra96|zcu104|kv260
	@test -n '$(BOARD)' || { echo "error: BOARD must be set, as in make bitstream BOARD=pynq-z2" >&2; exit 2; }
	@$(PYTHON) -m codegen.emit.xilinx tools bitstream >/dev/null
	@$(MAKE) --no-print-directory codegen
	@$(PYTHON) -m codegen.emit.xilinx bitstream --build '$(OUT)' --board '$(BOARD)'

bundle: $(GENERATED) ## write build/NET/bundle.zip for a PYNQ board (BOARD=pynq-z2 checks that it fits)
	@$(PYTHON) -m board bundle --build '$(OUT)' $(BOARD_ARGS)

emulate: $(GENERATED) ## run the bundle on the emulated board, compare every logit
	@$(PYTHON) -m board emulate --build '$(OUT)'

measure: $(GENERATED) ## accuracy, latency (the model's), memory and DDR traffic on the emulated board
	@$(PYTHON) -m board measure --build '$(OUT)' $(MEASURE_ARGS)

notebook: $(GENERATED) ## run board/demo.ipynb on the emulated board and keep it with its outputs
	@$(PYTHON) -m board notebook --build '$(OUT)'

units: $(QUANTIZED) ## conversion units as Verilog: simulate, prove, synthesize (Yosys)
	@$(PYTHON) -m codegen.units --build '$(OUT)' --sweep '$(SWEEP)'

train: $(INSTALLED) ## train a network that has a recipe here (NET=digits, cifar10) and store its weights
	$(PYTHON) -m model_prep train --net '$(NET)' $(TRAIN_ARGS)

finetune: $(INSTALLED) ## train the quantized network on DATA; build/NET/finetuned has WEIGHTS and PLAN
	$(PYTHON) -m model_prep finetune $(NETWORK_ARGS) $(TUNE_ARGS)

lint: $(INSTALLED) ## ruff, mypy, import rules, clang-format, HLS subset
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/clang-format --dry-run --Werror hls_templates/*/*.hpp hls_templates/*/*.cpp
	$(PYTHON) -m codegen.hls_check

format: $(INSTALLED) ## let ruff and clang-format rewrite the sources
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i hls_templates/*/*.hpp hls_templates/*/*.cpp

# Property tests draw the same examples each time here (Hypothesis profile "ci"), so that a run that
# gates a change fails for that change alone; test-all draws new ones.
test: lint ## lint and every test that takes seconds (about 6 minutes on 2 cores)
	$(PYTHON) -m pytest -n auto -m 'not slow' --hypothesis-profile=ci

test-all: lint ## also the tests that take minutes and gigabytes, and new random examples
	$(PYTHON) -m pytest -n auto

bench: $(INSTALLED) ## measure C-simulation, reference, code generator and k-means
	$(PYTHON) -m tests.bench

clean: ## remove build/
	rm -rf build
