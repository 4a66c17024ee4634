# SPDX-License-Identifier: Apache-2.0
# `make` lists the targets. Those of formats/commands.py run `nuq TARGET NAME=VALUE ...` with the
# variables that the command line or the environment sets; the targets of developers follow below.

VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
PYTHONS := python3.11 python3.12
COMMANDS := $(shell sed -nE 's/^    "([a-z-]+)": Command.*/\1/p' formats/commands.py)
TARGETS := $(shell sed -nE 's/^([a-z-]+):.*## .*/\1/p' Makefile)
OPTIONS := $(shell sed -nE 's/^    ([a-z_]+): .* = option.*/\U\1/p' formats/options.py)
# Variables of the targets below and of the tools. Others that the command line sets are passed on,
# too, so that a mistyped name is refused; what the environment sets nuq reads itself.
OWN := ALL BOARD_FILES CXX N SEED VENV PYTHON XILINX_HLS XILINX_VIVADO
SET := $(foreach word,$(MAKEOVERRIDES),$(if $(findstring =,$(word)),$(firstword $(subst =, ,$(subst :=,=,$(word))))))
UNKNOWN := $(filter-out $(OPTIONS) $(OWN),$(foreach name,$(SET),$(if $(findstring command,$(origin $(name))),$(name))))
NAMES := $(foreach name,$(OPTIONS),$(if $(findstring command,$(origin $(name))),$(name))) $(UNKNOWN)
STRAY := $(filter-out $(COMMANDS) $(TARGETS) $(INSTALLED) known goals,$(MAKECMDGOALS))
quoted = '$(subst ','\'',$(1))'
GIVEN = $(foreach name,$(NAMES),$(name)=$(call quoted,$($(name))))
EVERYTHING := $(if $(findstring command,$(origin ALL)),$(ALL))
ANY_PYTHON = $(firstword $(wildcard $(PYTHON)) python3)

.PHONY: help install known goals $(COMMANDS) fuzz test test-all lint format docs bench clean
.DELETE_ON_ERROR:

help: known ## the commands and variables that people need first; ALL=1: all of them
	@$(ANY_PYTHON) -m nuq --make help $(EVERYTHING:%=ALL=%)
	@if [ '$(EVERYTHING)' = 1 ]; then echo 'For developers:'; \
	  sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | \
	  awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'; fi

install: known $(INSTALLED) ## create .venv with the pinned packages

$(INSTALLED): requirements.txt
	@for python in $(PYTHONS); do \
	  if $$python -c '' 2>/dev/null; then exec $$python -m venv $(VENV); fi; \
	done; \
	echo "error: $(firstword $(PYTHONS)) or $(lastword $(PYTHONS)) must be on the PATH; install one (Debian: apt-get install python3.11 python3.11-venv)" >&2; exit 2
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(COMMANDS): | goals $(INSTALLED)
	@$(PYTHON) -m nuq --make$(if $(word 2,$(MAKECMDGOALS)), --several) $@ $(GIVEN)

# A target that there is not; the nearest is named, before another of the same line is made.
.DEFAULT:
	@$(ANY_PYTHON) -m nuq --make --targets $@ $(TARGETS)

goals:
	@$(if $(STRAY),$(ANY_PYTHON) -m nuq --make --targets $(firstword $(STRAY)) $(TARGETS))

# Refuses unknown variables where no command of nuq does.
known: goals
	@$(if $(UNKNOWN),$(ANY_PYTHON) -m nuq --make --names $(UNKNOWN))

fuzz: known $(INSTALLED) ## N random networks, Python against C-simulation bit for bit (N=200 SEED=1)
	$(PYTHON) -m tests.fuzz --count '$(or $(N),200)' --seed '$(or $(SEED),1)'

lint: known $(INSTALLED) ## ruff, mypy, import rules, clang-format, HLS subset
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/clang-format --dry-run --Werror hls_templates/*/*.hpp hls_templates/*/*.cpp
	$(PYTHON) -m nuq hls-check

format: known $(INSTALLED) ## let ruff and clang-format rewrite the sources
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i hls_templates/*/*.hpp hls_templates/*/*.cpp

# Property tests draw the same examples each time here (Hypothesis profile "ci"), so that a run that
# gates a change fails for that change alone; test-all draws new ones.
# Tests of one file share a worker, and so what the file's fixtures compile.
test: lint ## lint and every test that takes seconds
	$(PYTHON) -m pytest -n auto --dist loadfile -m 'not slow' --hypothesis-profile=ci

test-all: lint ## also the tests that take minutes and gigabytes, and new random examples
	$(PYTHON) -m pytest -n auto --dist loadfile

docs: known $(INSTALLED) ## the site of docs/ in build/docs/site, every link checked (needs mkdocs)
	$(PYTHON) -m tests.site

bench: known $(INSTALLED) ## measure C-simulation, reference, code generator and k-means
	$(PYTHON) -m tests.bench

clean: known ## remove what is in build/ but bitstreams, which take hours
	@! [ -e build ] || find build/ -depth ! -path '*/bitstream/*' ! -name bitstream \
	  '(' ! -type d -o -empty ')' -delete
	@! [ -e build ] || find build/ -name bitstream -type d -exec echo kept: {} ';'
