# Two commands from a fresh clone with Python 3.11 and pip:  make demo  and  make test.
# Everything is installed into .venv; nothing needs root.  Steps are skipped when what they read has
# the same content as last time (stamp files named by checksum), so repeated calls are quick.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip install -q --disable-pip-version-check --no-input
JOBS   ?= 2
.DEFAULT_GOAL := help

# checksum of files below the given paths; caches and compiled files left out
sum = $(shell find $(1) -type f ! -name '*.pyc' ! -name '*.so' ! -path '*/__pycache__/*' 2>/dev/null | LC_ALL=C sort | \
        xargs cksum | cksum | tr -d ' ')

# wheel of the project in $(1) into $(2); `pip wheel` would build it twice, once for its metadata
wheel = rm -rf $(2) && (cd $(1) && $(abspath $(PY)) -m hatchling build -t wheel -d $(abspath $(2)))

DEPS_STAMP    = $(VENV)/.deps-$(call sum,constraints.txt pyproject.toml)
RUNTIME_STAMP = $(VENV)/.runtime-$(call sum,native runtimes/python edgekit/agent edgekit/wire.py edgekit/wire_codec.py edgekit/link.py edgekit/errors.py)
EDGEKIT_STAMP = $(VENV)/.edgekit-$(call sum,edgekit native boards runtimes/bare runtimes/arduino bench/qemu pyproject.toml README.md)

help:
	@sed -n 's/^## //p' Makefile

## make venv       .venv with the pinned dependencies and both wheels
venv:
	@test -f "$(DEPS_STAMP)" || $(MAKE) --no-print-directory deps
	@test -f "$(RUNTIME_STAMP)" || { echo "building edgekit-runtime"; \
	  $(call wheel,runtimes/python,build/runtime) && $(PIP) --no-deps --force-reinstall build/runtime/*.whl && \
	  rm -f $(VENV)/.runtime-* && touch "$(RUNTIME_STAMP)"; }
	@test -f "$(EDGEKIT_STAMP)" || { echo "building edgekit"; \
	  $(call wheel,.,build/edgekit) && $(PIP) --no-deps --force-reinstall build/edgekit/*.whl && \
	  rm -f $(VENV)/.edgekit-* && touch "$(EDGEKIT_STAMP)"; }

# torch first and alone: its CPU build then settles what the others may ask for
deps:
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt $$(grep '^torch==' constraints.txt)
	$(PIP) -c constraints.txt hatchling editables $$($(PY) -c "import tomllib; \
	  p = tomllib.load(open('pyproject.toml', 'rb'))['project']; x = p['optional-dependencies']; \
	  d = [*p['dependencies'], *sum(x.values(), [])]; \
	  print(*(r for r in d if not r.startswith('edgekit')))")
	rm -f $(VENV)/.deps-* && touch "$(DEPS_STAMP)"

## make dev        editable installs instead of wheels, for working on the code
dev:
	@test -f "$(DEPS_STAMP)" || $(MAKE) --no-print-directory deps
	$(PIP) --no-build-isolation --no-deps -e ./runtimes/python -e .
	rm -f $(VENV)/.runtime-* $(VENV)/.edgekit-*

## make demo       train a small CNN, build INT8, run it on host, arm64 and Cortex-M; table and report
demo: venv
	$(PY) examples/demo.py

## make test       ruff, mypy and every test that is not slow
test: lint
	$(VENV)/bin/pytest -n $(JOBS) -m "not slow" </dev/null

lint: venv
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

## make check-all  the slow tests too: accuracy on data sets, peers, long campaigns
check-all: lint
	$(VENV)/bin/pytest -n $(JOBS) </dev/null

## make evidence   every figure asked for, into bench/evidence.json
evidence: venv
	$(PY) bench/evidence.py

## make bench      EdgeKit beside six runtimes, and on emulated Arm cores, into bench/RESULTS.md (10 minutes)
bench: venv
	$(PIP) --no-deps efficientnet-lite-pytorch==0.1.0
	$(PY) bench/run.py
	$(PY) bench/arm.py
	$(PY) bench/report.py

## make fuzz       1,400,000 mutated packages under ASan and UBSan, a million as arrays of C projects, and every byte of their structure
fuzz: venv
	$(PY) bench/fuzz.py --every --jobs $(JOBS)
	$(PY) bench/fuzz.py --ops --jobs $(JOBS)
	$(PY) bench/fuzz.py --array --mutants 1000000 --every --jobs $(JOBS)

## make analyze    clang's static analyzer over everything below native/, GCC's over all but the
##                 SIMD kernels, whose vectors it misreads: any finding is a failure
CLANG ?= $(firstword $(foreach c,clang clang-19,$(if $(shell command -v $(c)),$(c))) clang)
ANALYZE = $(CLANG) --analyze -Xclang -analyzer-output=text -std=c11 -Werror \
          $(addprefix -Inative/,include src gen port agent) -o /dev/null
analyze:
	@printf '%s\n' native/*/*.c native/kernels/*/*.c | xargs -P $(JOBS) -I {} \
	  sh -c 'said=$$($(ANALYZE) {} 2>&1); test -z "$$said" || { echo "$$said"; exit 1; }'
	@printf '%s\n' native/*/*.c | xargs -P $(JOBS) -I {} gcc -fanalyzer -std=c11 -O1 -Werror \
	  $(addprefix -Inative/,include src gen port agent) -c {} -o /dev/null

## make wheels     both wheels, and edgekit-runtime for the Linux, macOS and Windows targets, into dist/
WHEEL_TARGETS ?= x86_64-linux-gnu.2.17 x86_64-linux-musl aarch64-linux-gnu.2.17 aarch64-linux-musl \
                 arm-linux-gnueabihf.2.17 arm-linux-musleabihf aarch64-macos x86_64-windows-gnu
wheels: venv
	rm -rf dist && mkdir dist && cp build/edgekit/*.whl dist/
	for t in $(WHEEL_TARGETS); do echo $$t; \
	  export EDGEKIT_TARGET=$$t; $(call wheel,runtimes/python,build/cross) && cp build/cross/*.whl dist/ || exit 1; done

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

.PHONY: help venv deps dev demo test lint check-all evidence bench fuzz analyze wheels clean
