# Everything a checkout can do, in one environment: .venv. Needs make and Python 3.11 or newer, nothing else.
# Written for GNU make 3.81 too, which is what macOS has.

PYTHON ?=
ARGS =
GPU_PYTHON ?=
GPU_MODEL ?=
LOCK_FLAGS =

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup run test exllamav2-check gpu-check lint types check fmt bench soak soak-gateway fuzz chaos faults faults-check agents sdks mutants nix-check lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

setup: .venv/.dev ## Put the locked runtime and development packages into .venv
	@:

run: .venv/.run ## Start a fleet on this machine: `cortex up` (options: ARGS="...")
	@exec .venv/bin/cortex up $(ARGS)

test: setup ## Run the test suite (options: ARGS="...")
	.venv/bin/pytest $(ARGS)

exllamav2-check: build/exllamav2/.ready ## Run the suite of the real exllamav2, on the CPU (options: ARGS="...")
	PYTHONPATH="$(STAND_IN)" build/exllamav2/bin/python -m pytest tests/exllamav2 $(ARGS)

gpu-check: setup ## Check on this machine's NVIDIA GPU what a CPU cannot (options: GPU_PYTHON=... GPU_MODEL=FOLDER)
	@exec .venv/bin/python -m tests.gpu $(if $(GPU_PYTHON),--python "$(GPU_PYTHON)") $(if $(GPU_MODEL),--model "$(GPU_MODEL)")

lint: setup ## Check style, formatting and the import contract
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/lint-imports --no-logo

types: setup ## Check the types
	.venv/bin/mypy

check: lint types test ## Do what must pass before a commit

fmt: setup ## Format the code and mend what can be mended
	.venv/bin/ruff check --fix-only
	.venv/bin/ruff format

bench: setup ## Measure (options: ARGS="...")
	.venv/bin/python -m tests.bench $(ARGS)

soak-gateway: setup ## Let the gateway have a bad day for 30 minutes: does it grow? (options: ARGS="--minutes 1")
	.venv/bin/python -m tests.bench.peers.soak $(ARGS)

soak: setup ## Drive a node's scheduling through a million random events (options: ARGS="...")
	.venv/bin/python -m tests.soak $(ARGS)

fuzz: setup ## Spoil bodies, streams, requests and answers, for ten minutes each (options: ARGS="--secs 60")
	.venv/bin/python -m tests.fuzz.dialects $(ARGS)
	.venv/bin/python -m tests.fuzz.front $(ARGS)
	.venv/bin/python -m tests.fuzz.uplink $(ARGS)

chaos: setup ## Let everything fail that can, and say what clients get (minutes; options: ARGS="--only clock")
	.venv/bin/python -m tests.chaos $(ARGS)

faults: setup ## Break engines, GPUs and the driver under a node (needs a C compiler; options: ARGS="--only frozen")
	.venv/bin/python -m tests.faults $(ARGS)

faults-check: setup ## See that models come back from the quicker of those faults as the page says
	.venv/bin/pytest tests/faults $(ARGS)

agents: setup ## Have Claude Code and Codex do a task, also when a node fails (Linux, npm; minutes; options: ARGS="...")
	.venv/bin/python -m tests.agents $(ARGS)

sdks: setup ## Run the official SDKs' own test suites against cortex (fetches them; minutes)
	.venv/bin/python -m tests.conformance.sdk_suites $(ARGS)

mutants: setup ## Plant bugs in placement and eviction and count those that tests notice (minutes)
	.venv/bin/python -m tests.mutation $(ARGS)

nix-check: setup ## Check the flake, the NixOS modules and their units (Linux, root; options: ARGS="--nixpkgs DIR")
	@exec checks/nix-check $(ARGS)

lock: setup ## Write both lock files anew (newest versions: LOCK_FLAGS=--upgrade)
	$(LOCK) --group bootstrap --extra gateway --extra neuron --extra llamacpp \
	  --output-file requirements.lock pyproject.toml
	$(LOCK) --group bootstrap --extra gateway --extra neuron --extra llamacpp --extra dev \
	  --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

clean: ## Remove .venv, caches and built packages
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find libs apps tests -name __pycache__ -type d -prune -exec rm -rf {} +

# One lock for every platform and Python, a hash for every artifact, and no address of any index in it: settings of
# the machine that happens to write it must not leak in.
LOCK = env -u UV_INDEX -u UV_DEFAULT_INDEX -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS \
  .venv/bin/uv --no-config pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(LOCK_FLAGS)

# --- the environment -------------------------------------------------------------------------------------------------
# Each step leaves a stamp once it is whole, so an interrupted one is done again and a finished one costs nothing.

# An environment cannot be moved, and dies with the Python it was made from: then it is made again.
ifneq ($(shell [ -x .venv/bin/python ] && cat .venv/.home 2>/dev/null),$(CURDIR))
.PHONY: .venv/.home
endif

# pip comes first: an old one may not understand the rest.
.venv/.home:
	@$(SAY); for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && found="$$python" && break; \
	done; \
	[ -n "$${found-}" ] || say "Python 3.11 or newer is needed: install it (Debian, Ubuntu: apt install python3" \
	  "python3-venv; Fedora: dnf install python3; macOS: brew install python), or name one: make PYTHON=/path/to/python3"; \
	"$$found" -c 'import ensurepip, venv' 2>/dev/null || say "$$found cannot make virtual environments:" \
	  "install what it lacks (Debian, Ubuntu: apt install python3-venv), then run make again."; \
	echo "making .venv with $$("$$found" --version)"; \
	hear "$$found" -m venv --clear .venv; \
	sed -n '/^pip==/,/[^\\]$$/p' requirements.lock >.venv/pip.lock; \
	install -r .venv/pip.lock; \
	echo "$(CURDIR)" >$@

# The project itself is installed editable, by its own locked build backend: an isolated build would fetch an unlocked
# one, and a bare .pth file would leave no commands and no version behind.
.venv/.run: requirements.lock pyproject.toml .venv/.home
	@$(SAY); install -r requirements.lock; \
	hear .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .; \
	touch $@

.venv/.dev: requirements-dev.lock .venv/.run
	@$(SAY); install -r requirements-dev.lock; touch $@

# The suite of the real exllamav2 has what .venv has, exllamav2 with torch for the CPU, and a stand-in for its compiled
# extension, which Python finds by this path.
STAND_IN = $(CURDIR)/tests/exllamav2/stand_in:$(CURDIR)/build/exllamav2/stand_in

build/exllamav2/.ready: tests/exllamav2/requirements.lock tests/exllamav2/stand_in/extension.c .venv/.dev
	@$(SAY); python=build/exllamav2/bin/python; \
	hear .venv/bin/python -m venv --clear build/exllamav2; \
	inside() { "$$1" -c "import sysconfig; print(sysconfig.get_$$2('$$3'))"; }; \
	echo "import site; site.addsitedir('$$(inside .venv/bin/python path purelib)')" \
	  >"$$(inside $$python path purelib)/project.pth"; \
	hear $$python -m pip install --quiet --require-hashes --only-binary :all: --no-deps \
	  -r tests/exllamav2/requirements.lock; \
	mkdir -p build/exllamav2/stand_in; \
	hear $(CC) -O1 -shared -fPIC -I"$$(inside $$python path include)" tests/exllamav2/stand_in/extension.c \
	  -o "build/exllamav2/stand_in/exllamav2_ext$$(inside $$python config_var EXT_SUFFIX)"; \
	touch $@

# Shell functions. `say` ends the recipe with one sentence; `hear` runs a command and turns its failure into what to do
# about it; `install` takes wheels with known hashes only, so nothing is compiled and nothing unlocked gets in.
define SAY
set -eu; \
say() { echo >&2; echo "make: $$*" >&2; exit 1; }; \
install() { \
  [ -t 1 ] || set -- --quiet "$$@"; \
  hear .venv/bin/python -m pip install --require-hashes --only-binary :all: --no-deps "$$@"; \
}; \
hear() { \
  { heard=$$("$$@" 2>&1 >&3 3>&-) || failed=$$?; } 3>&1; \
  [ -n "$${failed-}" ] || return 0; \
  printf '%s\n' "$$heard" | grep -v ^WARNING | tail -n 8 >&2; \
  [ "$$(df -Pk . | awk 'NR == 2 { print $$4 }')" -gt 20480 ] || heard="No space left"; \
  case "$$heard" in \
    *"No space left"* | *"quota exceeded"*) \
      say "the disk is full: free 1 GB for $(CURDIR)/.venv and the temporary folder, then run make again.";; \
    *"connection broken"* | *ConnectionError* | *Timeout* | *"timed out"* | *SSLError*) \
      say "the package index cannot be reached: check the network (or HTTPS_PROXY, or pip's index-url), then run make again.";; \
    *"No matching distribution"* | *"not a supported wheel"*) \
      say "there is no ready-made package for $$(.venv/bin/python -c 'import platform as p; \
        print(p.python_implementation(), p.python_version(), "on", p.system(), p.machine())'): use CPython 3.11 to 3.14 on" \
        "Linux (glibc; x86-64 or arm64) or macOS 13 or newer, and name it: make PYTHON=/path/to/python3";; \
    *"DO NOT MATCH THE HASHES"*) \
      say "a package is not the one that was locked: pip cache purge, or ask who runs your package mirror.";; \
    *) say "installing failed: mend what is said above, then run make again (make clean starts afresh).";; \
  esac; \
}
endef
