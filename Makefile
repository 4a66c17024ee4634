# SPDX-License-Identifier: Apache-2.0
# `make` lists the targets. Those of formats/commands.py run `nuq TARGET NAME=VALUE ...` with the
# variables that the command line or the environment sets; the targets of developers follow below.

VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
COMMANDS := $(shell sed -nE 's/^    "([a-z-]+)": Command.*/\1/p' formats/commands.py)
OPTIONS := $(shell sed -nE 's/^    ([a-z_]+): .* = option.*/\U\1/p' formats/options.py)
# What the command line sets besides goes on, too, so that a mistyped name is refused.
OWN := BOARD_FILES CXX N VENV PYTHON XILINX_HLS XILINX_VIVADO
SET := $(foreach word,$(MAKEOVERRIDES),$(if $(findstring =,$(word)),$(firstword $(subst =, ,$(word)))))
NAMES := $(OPTIONS) $(filter-out $(OPTIONS) $(OWN),$(SET))
WITH_VALUE = $(foreach name,$(NAMES),$(if $($(name)),$(name)))
quoted = '$(subst ','\'',$(1))'
GIVEN = $(foreach name,$(WITH_VALUE),$(name)=$(call quoted,$($(name))))

.PHONY: help install $(COMMANDS) fuzz test test-all lint format bench clean
.DELETE_ON_ERROR:

help: ## list the targets
	@$(firstword $(wildcard $(PYTHON)) python3) nuq.py --make
	@echo 'For developers:'
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | \
	  awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo 'Example: make csim NET=vgg16 BITS=5'

install: $(INSTALLED) ## create .venv with the pinned packages

$(INSTALLED): requirements.txt
	@command -v python3.11 >/dev/null || { echo "error: python3.11 must be on the PATH; install it (Debian: apt-get install python3.11 python3.11-venv)" >&2; exit 2; }
	python3.11 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(COMMANDS): | $(INSTALLED)
	@$(PYTHON) -m nuq --make $@ $(GIVEN)

fuzz: $(INSTALLED) ## N random networks, Python against C-simulation bit for bit (N=200 SEED=1)
	$(PYTHON) -m tests.fuzz --count '$(or $(N),200)' --seed '$(or $(SEED),1)'

lint: $(INSTALLED) ## ruff, mypy, import rules, clang-format, HLS subset
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/clang-format --dry-run --Werror hls_templates/*/*.hpp hls_templates/*/*.cpp
	$(PYTHON) -m nuq hls-check

format: $(INSTALLED) ## let ruff and clang-format rewrite the sources
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i hls_templates/*/*.hpp hls_templates/*/*.cpp

# Property tests draw the same examples each time here (Hypothesis profile "ci"), so that a run that
# gates a change fails for that change alone; test-all draws new ones.
# Tests of one file share a worker, and so what the file's fixtures compile.
test: lint ## lint and every test that takes seconds (about 20 minutes on 2 cores)
	$(PYTHON) -m pytest -n auto --dist loadfile -m 'not slow' --hypothesis-profile=ci

test-all: lint ## also the tests that take minutes and gigabytes, and new random examples
	$(PYTHON) -m pytest -n auto --dist loadfile

bench: $(INSTALLED) ## measure C-simulation, reference, code generator and k-means
	$(PYTHON) -m tests.bench

clean: ## remove build/
	rm -rf build
