# Ramify: make demo | test | test-all | bench | peers | gpu | gpu-carry | check | sanitize | wheel | clean
#
# Each of them makes a virtual environment if there is none, installs what it needs into it, once, and runs. Nothing else is
# needed than Python 3.11 to 3.13 and make. VENV=folder takes another environment, PYTHON=command another Python,
# TORCH=requirement another torch than the tested one ('torch==2.13.0', which also matches its CPU and CUDA builds).

VENV   ?= .venv
PYTHON ?=
TORCH  ?= $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)
ARGS   ?=
PEERS  ?= build/peers

# From a checkout `import runtime` would load a second copy of ramify.runtime; with this, the current folder is not on sys.path.
export PYTHONSAFEPATH := 1

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test test-all bench peers gpu gpu-carry kernels check sanitize wheel clean
.DELETE_ON_ERROR:

help:
	@sed -n '1s/^# //p' Makefile

# ------------------------------------------------------------------------------------------------------------- what to run

demo: $(VENV)/.stamp-serve kernels
	@$(VENV)/bin/ramify demo $(ARGS)

# Two workers with one torch thread each: as many as the machine that the ten minutes are promised for has cores.
test: $(VENV)/.stamp-test kernels
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n 2 --dist loadfile $(ARGS)

# Everything: also the slow tests, and random examples in place of the fixed ones.
test-all: $(VENV)/.stamp-test kernels
	@$(RUN) -m pytest -q -m "" --hypothesis-profile=random --timeout 1800 $(ARGS)

# All of them against the peers that `make peers` has made: more than an hour on two quiet cores.
bench: $(VENV)/.stamp-test kernels
	@$(VENV)/bin/ramify bench $(or $(ARGS),--all --out build/bench)

# vLLM and llama.cpp, each in an environment of its own below PEERS: 4 GB, and ten minutes of compiling.
peers: $(VENV)/.stamp-test
	@$(RUN) -m ramify.runtime.bench.peers "$(PEERS)" $(ARGS)

# Tests and scenarios of a GPU, as far as ten minutes go; with tiny models where there is none. ARGS: phases and flags of run.py.
gpu: $(VENV)/.stamp-test
	@$(RUN) runtime/bench/gpu/run.py --no-wheels $(ARGS)

# What a machine with a GPU and without a way to a package registry needs of this one, which then runs runtime/bench/gpu/run.py.
gpu-carry: $(VENV)/.stamp-test
	@$(RUN) -m ramify.runtime.bench.gpu.carry $(or $(ARGS),build/gpu-carry)

# An engine would do it at its first start; here it is seen, and no test waits for it.
kernels: $(VENV)/.stamp-serve
	@$(RUN) -c 'from ramify.kernels.native import load; from ramify.runtime.config import kernel_cache; \
	  load(kernel_cache(), lambda: print("Compiling the CPU kernels, once."))'

check: $(VENV)/.stamp-dev
	@mkdir -p .typing && ln -sfn .. .typing/ramify && ln -sf ../pyproject.toml .typing/pyproject.toml
	@$(RUN) -m ruff check --quiet . && echo "ruff: no errors"
	@$(RUN) -m pyright -p .typing --pythonpath $(RUN)

# The C++ kernels in a build that finds reads and writes out of bounds and undefined behaviour: attention on random shapes by a driver
# of its own, which is fast, and all of them under their tests; their threads in a build that finds races.
SANITIZED = $(CXX) -std=c++17 -O1 -g -pthread -fno-strict-aliasing -ffp-contract=off -fsanitize=address,undefined \
  -fno-sanitize-recover=all
RUNTIMES = $(shell $(CXX) -print-file-name=libasan.so) $(shell $(CXX) -print-file-name=libubsan.so)

sanitize: $(VENV)/.stamp-test
	@mkdir -p build
	$(CXX) -std=c++17 -O1 -g -pthread -fsanitize=thread kernels/cpp/parallel.cpp tests/kernels/cpp/parallel_driver.cpp \
	  -o build/parallel_driver
	build/parallel_driver
	for level in 0 1 2 3; do \
	  $(SANITIZED) -DRAMIFY_LEVEL=$$level -c kernels/cpp/attention_level.cpp -o build/attention_level$$level.o || exit 1; \
	done
	$(SANITIZED) kernels/cpp/attention.cpp kernels/cpp/parallel.cpp build/attention_level?.o \
	  tests/kernels/cpp/attention_driver.cpp -o build/attention_driver
	ASAN_OPTIONS=detect_leaks=0 build/attention_driver
	ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0 LD_PRELOAD="$(RUNTIMES)" OMP_NUM_THREADS=2 \
	  $(RUN) -m pytest -q -s --sanitize tests/kernels --ignore-glob='*triton*' $(ARGS)

# With the kernels compiled for this system, so that who installs it needs no compiler; without them where there is none here.
wheel: $(VENV)/.stamp-serve
	@rm -rf build/lib* build/bdist*
	@$(RUN) -m ramify.kernels.native || true
	@$(RUN) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/ramify-*.whl

clean:
	rm -rf $(VENV) .typing build dist kernels/prebuilt *.egg-info .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ----------------------------------------------------------------------------------------------------------- environments

# The first Python from 3.11 to 3.13 that can make a virtual environment.
$(VENV)/.stamp-venv:
	@if [ ! -x $(RUN) ]; then \
	  for python in $(or $(PYTHON),python3.12 python3.11 python3.13 python3 python); do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	      echo "Making $(VENV) with $$python ($$("$$python" -c 'import platform; print(platform.python_version())'))."; \
	      "$$python" -m venv $(VENV) && exit 0; \
	    fi; \
	  done; \
	  echo "Ramify needs Python 3.11, 3.12 or 3.13 with venv and ensurepip, and found none;" \
	       "$(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) --version 2>&1 || true)." >&2; \
	  echo "Install one (Debian and Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	fi
	@touch $@

# torch first and alone, so that a local wheel or an index from your pip configuration decides which build comes.
$(VENV)/.stamp-torch: $(VENV)/.stamp-venv constraints.txt
	@echo "Installing $(TORCH) (the largest part: 200 MB and more; minutes on a slow line)."
	@$(PIP) "$(TORCH)"
	@touch $@

$(VENV)/.stamp-serve: $(VENV)/.stamp-torch pyproject.toml
	@echo "Installing ramify[serve]."
	@$(PIP) "$(TORCH)" -e ".[serve]"
	@touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-serve
	@echo "Installing ramify[serve,test]."
	@$(PIP) "$(TORCH)" -e ".[serve,test]"
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-test
	@echo "Installing ramify[dev]: ruff and pyright."
	@$(PIP) "$(TORCH)" -e ".[serve,test,dev]"
	@touch $@
