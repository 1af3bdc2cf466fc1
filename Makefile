# `make` lists the commands. Needs GNU make, a POSIX shell and a Python 3.11 to 3.13 with venv; nothing else.
#
# Three virtual environments, each made when a command first needs it:
#   .venv         the program with ai-edge-litert, and the test tools
#   .venv-tflite  the program with tflite-runtime (numpy 1, Python 3.11 only), and pytest
#   .venv-export  .venv plus TensorFlow, for training and converting
# Each holds a file `.ready`, written last: without it, or after the checkout moved, it is made anew.

SHELL := /bin/sh
# Two words: with "-ec" GNU make 4.3 cuts a recipe at the first line break inside quotes.
.SHELLFLAGS := -e -c
.ONESHELL:
.NOTPARALLEL:
.SUFFIXES:
.DEFAULT_GOAL := help

PYTHON ?=
ARGS ?=
MODEL ?= face
# A 32-bit system has no ai-edge-litert.
RUNTIME ?= $(if $(filter 32,$(shell getconf LONG_BIT)),tflite,litert)
DEVICE_MODEL ?= /proc/device-tree/model

VENV := $(if $(filter tflite,$(RUNTIME)),.venv-tflite,.venv)
ifeq ($(filter litert tflite,$(RUNTIME)),)
$(error RUNTIME=$(RUNTIME) is unknown: use RUNTIME=litert or RUNTIME=tflite)
endif

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
# "user = true" in a pip configuration would make pip fail inside a virtual environment.
export PIP_USER := 0

# Not by its name inside a recipe: there make -n would run the line that it is in, with .ONESHELL the whole recipe.
again := $(MAKE) --no-print-directory

PYTHONS := 3.11 3.12 3.13
comma := ,
empty :=
space := $(empty) $(empty)

# Shell code that sets $$py to the first Python of a fitting version, or says in one line what to install.
# $(1): fitting versions; $(2): candidates
define find-python
py=
for candidate in $(2); do
    if "$$candidate" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] not in "$(1)".split())' 2>/dev/null; then
        py=$$candidate
        break
    fi
done
endef

# Shell code that makes the virtual environment $(1) when it is new, broken or moved, and empties its stamp.
# $(1): folder; $(2): fitting versions; $(3): candidates; $(4): what to expect
define make-venv
$(call find-python,$(2),$(3))
if [ -z "$$py" ]; then
    found=$$($(or $(PYTHON),python3) -V 2>/dev/null || echo "not there")
    echo "maskedge: $(1) needs Python $(subst $(space),$(comma) ,$(2)), but $(or $(PYTHON),python3) is $${found#Python }: install one (apt list 'python3.1?' shows what your system has) or name it: make PYTHON=/path/to/python$(lastword $(2))" >&2
    exit 1
fi
version=$$("$$py" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! "$$py" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "maskedge: Python $$version cannot make virtual environments yet: sudo apt install python$$version-venv" >&2
    exit 1
fi
echo "maskedge: setting up $(1) with Python $$version ($(4))"
rm -f $(1)/.ready
$(if $(call stale,$(1)),"$$py" -m venv --clear $(1))
endef

# Shell code around one pip call in the virtual environment $(1), with the arguments $(2).
define pip-install
$(1)/bin/python -m pip install -q $(2) || {
    echo "maskedge: pip could not install into $(1), see above: check the network and the free disk space, then repeat the command" >&2
    exit 1
}
endef

# Shell code that marks $(1) as complete.
define finish-venv
printf '%s\n' "$(CURDIR)" > $(1)/.ready
endef

# FORCE when $(1) is missing, half made, from another folder, without its Python, or not of the PYTHON asked for.
stale = $(if $(shell [ -x $(1)/bin/python ] && [ "$$(cat $(1)/.ready 2>/dev/null)" = "$(CURDIR)" ] \
    $(if $(and $(PYTHON),$(filter-out .venv-tflite,$(1))),&& [ "$$("$(PYTHON)" -V 2>&1)" = "$$($(1)/bin/python -V 2>&1)" ]) \
    && echo fits),,FORCE)

candidates := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
project := pyproject.toml edge/__init__.py

##@ The two commands to start with

.PHONY: run
run: $(VENV)/.ready ## the camera loop; options: make run ARGS="--source demo --seconds 10"
	@exec $(VENV)/bin/maskedge run $(ARGS)

.PHONY: test
test: ## every test: both runtimes and the export part; on a Pi the edge part alone
	@start=$$(date +%s)
	small=
	if [ -e "$(DEVICE_MODEL)" ]; then
	    small="this is a $$(tr -d '\000' < "$(DEVICE_MODEL)")"
	else
	    case $$(uname -m) in
	    aarch64|armv*) if [ "$$(awk '/^MemTotal/ {print int($$2 / 1048576)}' /proc/meminfo)" -lt 3 ]; then
	        small="this is an ARM machine with under 3 GB of memory"; fi ;;
	    esac
	fi
	if [ -n "$$small" ]; then
	    echo "maskedge: $$small: testing the edge part alone (the export part needs TensorFlow: make test-export)"
	    $(again) test-$(if $(filter tflite,$(RUNTIME)),tflite,edge)
	else
	    # Tests that watch the clock come first, alone; then each of the two others leaves a core idle.
	    scratch=$$(mktemp -d)
	    trap 'rm -rf "$$scratch"' EXIT
	    trap 'exit 130' INT TERM
	    touch "$$scratch/none"
	    none="NONE=$$scratch/none"
	    $(again) test-edge "$$none" ARGS="-m clock $(ARGS)"
	    echo "maskedge: testing the export part beside the rest; what that says comes at the end"
	    { $(again) test-export "$$none" && $(again) test-edge "$$none" ARGS="-m once $(ARGS)"; } > "$$scratch/log" 2>&1 &
	    status=0
	    for part in test-edge test-tflite; do
	        $(again) $$part "$$none" ARGS="-m 'not clock and not once' $(ARGS)" || status=$$?
	    done
	    echo "maskedge: waiting for the export part"
	    wait $$! || status=$$?
	    cat "$$scratch/log"
	    [ $$status = 0 ] || exit $$status
	    if [ "$$(wc -l < "$$scratch/none")" = 5 ]; then
	        echo "maskedge: no test fits these ARGS" >&2
	        exit 1
	    fi
	fi
	echo "maskedge: tests passed in $$(($$(date +%s) - start)) s"

##@ Set-up (the other commands call it by themselves)

.PHONY: setup
setup: $(VENV)/.ready ## .venv: the program and the test tools, no TensorFlow
	@echo "maskedge: $(VENV) is ready"

.PHONY: setup-export
setup-export: .venv-export/.ready ## .venv-export: the same with TensorFlow, for training and converting
	@echo "maskedge: .venv-export is ready"

.PHONY: window
window: .venv/.ready ## in .venv the OpenCV that can open windows in place of the headless one
	@.venv/bin/python -m pip uninstall -q -y opencv-python-headless
	sed -n 's/^opencv-python-headless==/opencv-python==/p' constraints/litert.txt > .venv/window.txt
	$(call pip-install,.venv,-r .venv/window.txt)
	echo "maskedge: make run now opens a window where there is a screen"

.venv/.ready: $(project) constraints/litert.txt constraints/dev.txt $(call stale,.venv)
	@$(call make-venv,.venv,$(PYTHONS),$(candidates),about a minute: 130 MB to download)
	$(call pip-install,.venv,-c constraints/litert.txt -c constraints/dev.txt -e '.[dev]')
	$(call finish-venv,.venv)

.venv-export/.ready: $(project) constraints/litert.txt constraints/dev.txt constraints/export.txt $(call stale,.venv-export)
	@$(call make-venv,.venv-export,$(PYTHONS),$(candidates),several minutes: 850 MB to download)
	$(call pip-install,.venv-export,-c constraints/litert.txt -c constraints/dev.txt -c constraints/export.txt -e '.[dev$(comma)export]')
	$(call finish-venv,.venv-export)

# Without dependencies, because those of the project would bring ai-edge-litert, which is preferred where both are there.
.venv-tflite/.ready: $(project) constraints/tflite.txt constraints/dev.txt $(call stale,.venv-tflite)
	@$(call make-venv,.venv-tflite,3.11,$(PYTHON) python3 python3.11,half a minute: 60 MB to download)
	$(call pip-install,.venv-tflite,-r constraints/tflite.txt -c constraints/dev.txt cryptography pytest)
	$(call pip-install,.venv-tflite,--no-deps -e .)
	$(call finish-venv,.venv-tflite)

.PHONY: FORCE
FORCE:

##@ Raspberry Pi OS, x86 Debian and Ubuntu

.PHONY: install-pi
install-pi: ## install for all users, with packages that fit the system; ARGS=--dry-run, --user
	@exec deploy/install-pi.sh $(ARGS)

.PHONY: uninstall-pi
uninstall-pi: ## remove that again
	@exec deploy/install-pi.sh --uninstall $(ARGS)

##@ Checks

# make test names a file for the parts in which no test was chosen; without one that is an error.
NONE :=
no-test = { [ -n "$(NONE)" ] && echo $@ >> "$(NONE)"; }

.PHONY: test-edge
test-edge: .venv/.ready ## tests that need no TensorFlow, with ai-edge-litert
	@echo "maskedge: testing the edge part with ai-edge-litert"
	.venv/bin/python -m pytest -q --ignore=tests/export $(ARGS) || { [ $$? = 5 ] && $(no-test); }

.PHONY: test-tflite
test-tflite: ## the same tests with tflite-runtime; skipped where there is no Python 3.11
	@$(call find-python,3.11,$(PYTHON) python3 python3.11)
	if [ -z "$$py" ]; then
	    echo "maskedge: SKIPPED the tests with tflite-runtime: it needs Python 3.11, which is not on this machine"
	    [ -z "$(NONE)" ] || $(no-test)
	    exit 0
	fi
	$(again) .venv-tflite/.ready
	echo "maskedge: testing the edge part with tflite-runtime"
	.venv-tflite/bin/python -m pytest -q --ignore=tests/export $(ARGS) || { [ $$? = 5 ] && $(no-test); }

.PHONY: test-export
test-export: .venv-export/.ready ## tests of training, converting and scoring, with TensorFlow
	@echo "maskedge: testing the export part with TensorFlow"
	.venv-export/bin/python -m pytest -q tests/export $(ARGS) || { [ $$? = 5 ] && $(no-test); }

.PHONY: test-pi
test-pi: .venv/.ready ## Raspberry Pi OS without a Pi: arm64, install, camera, service; or PARTS="arm64 ..."
	@$(call find-python,3.11,$(PYTHON) python3 python3.11)
	if [ -n "$$py" ]; then
	    $(again) .venv-tflite/.ready
	    export MASKEDGE_TFLITE_PYTHON=$(CURDIR)/.venv-tflite/bin/python
	fi
	exec tests/pi/run $(PARTS)

.PHONY: lint
lint: .venv/.ready ## style and format, by ruff
	@.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.PHONY: format
format: .venv/.ready ## let ruff mend style and format
	@.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

.PHONY: type
type: .venv/.ready ## types, by mypy
	@.venv/bin/mypy

##@ Models (MODEL=face or MODEL=attributes; options by ARGS="...")

.PHONY: train
train: .venv-export/.ready ## train a model; continues where it stopped
	@exec .venv-export/bin/python -m export train $(MODEL) $(ARGS)

.PHONY: convert
convert: .venv-export/.ready ## write the .tflite files, the manifest and the cards into converted_models/
	@exec .venv-export/bin/python -m export convert $(MODEL) $(ARGS)

.PHONY: prepare
prepare: .venv-export/.ready ## label or pack the training pictures, before the first make train
	@exec .venv-export/bin/python -m export prepare $(MODEL) $(ARGS)

.PHONY: evaluate
evaluate: .venv-export/.ready ## score the models on pictures kept out of training; without MODEL all of them
	@for model in $(if $(filter file,$(origin MODEL)),face attributes,$(MODEL)); do
	    .venv-export/bin/python -m export evaluate $$model $(ARGS)
	done

# litert-benchmark, which validate compares with, comes with ai-edge-litert.
benchmarks := latency loop peers $(if $(filter litert,$(RUNTIME)),validate) estimate
RESULTS ?= benchmarks/results

.PHONY: bench
bench: $(VENV)/.ready ## all benchmarks and their report; PARTS="latency loop", PEERS=DIR SCENES=DIR, RESULTS=DIR
	@code=0 results=
	for part in $(or $(PARTS),$(benchmarks)); do
	    case $$part in
	    latency) set -- ;;
	    loop) set -- loop --tasks mask,gender,unmask ;;
	    validate|estimate) set -- $$part ;;
	    peers) set -- peers $(if $(PEERS),--peers '$(PEERS)') $(if $(SCENES),--scenes '$(SCENES)') ;;
	    *) echo "maskedge: no benchmark $$part: PARTS takes latency, loop, peers, validate, estimate" >&2; exit 2 ;;
	    esac
	    echo "maskedge: bench $$part"
	    # What does not agree, or is slower, is in the report as well.
	    $(VENV)/bin/maskedge bench "$$@" $(ARGS) --json '$(RESULTS)'/$$part.json || code=$$?
	    [ $$code -le 1 ] || exit $$code
	    results="$$results $$part.json"
	done
	if [ $(VENV) = .venv ] && ! .venv/bin/python -c 'import matplotlib' 2>/dev/null; then
	    $(call pip-install,.venv,-c constraints/litert.txt -c constraints/dev.txt -c constraints/export.txt -e '.[bench]')
	fi
	cd '$(RESULTS)'
	'$(CURDIR)'/$(VENV)/bin/maskedge bench report $$results --out report
	exit $$code

.PHONY: demo-clip
demo-clip: .venv-export/.ready ## draw the built-in demo clip anew, with the record of what is in it
	@exec .venv-export/bin/python -m export.demo_clip $(ARGS)

##@ The rest

.PHONY: wheel
wheel: .venv/.ready ## dist/maskedge-VERSION-py3-none-any.whl, models inside
	@.venv/bin/python -m pip wheel -q --no-deps --wheel-dir dist .
	ls dist/*.whl

.PHONY: clean
clean: ## remove caches and built files
	@rm -rf build dist .pytest_cache .ruff_cache .mypy_cache *.egg-info
	find benchmarks edge export tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## also remove the virtual environments and what test-pi fetched
	@rm -rf .venv .venv-tflite .venv-export .pi-cache

.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":[^#]*## " }
	    /^##@ / { printf "\n%s\n", substr($$0, 5) }
	    /^[a-z-]+:.*## / { printf "  make %-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	echo
	echo 'PYTHON=python3.12 chooses the Python, RUNTIME=tflite the older, smaller runtime.'
