# `make` alone lists the targets. Everything is installed into .venv; nothing else on the machine is touched but the
# user's cache folder, which holds the starter pack (LRC_CACHE moves it).

.DEFAULT_GOAL := help
.PHONY: help app demo class test clusters quick docs check format starter samples timings campaign install install-dev venv

VENV := .venv
PY := $(VENV)/bin/python
# What is installed depends on these files and on where the project lies: another content, another stamp.
KEY := $(shell { cat requirements.txt constraints.txt pyproject.toml; pwd; } | cksum | cut -d ' ' -f 1)
DEV_KEY := $(KEY)-$(shell cksum < requirements-dev.txt | cut -d ' ' -f 1)
PYTHONS := $(PYTHON) python3.11 python3 python3.12 python3.13
# Compiled files are kept, or every process that a test starts would compile the library anew.
TESTS := PYTHONDONTWRITEBYTECODE= HF_HUB_OFFLINE=1 $(PY) -m pytest --durations=10
SERVE = $(PORT) $(if $(HOST),--host $(HOST)) $(if $(TOKEN),--token)
NEW_ENOUGH := 'import sys, venv; sys.exit(sys.version_info < (3, 11))'

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

app: install ## Install, fetch the starter pack and start the app (PORT=8600; HOST=0.0.0.0 for others; TOKEN=1)
	@$(PY) -m lrc_core.cli starter || { code=$$?; [ $$code != 130 ] || exit $$code; \
	  echo "The starter pack is incomplete; the app starts without it. \`make app\` fetches the rest later." >&2; }
	@$(PY) -m pages.ui.serve $(SERVE)

demo: install ## The same app read-only on the shipped runs: starts in seconds, needs no model (PORT=8600; HOST=0.0.0.0)
	@LRC_READ_ONLY=1 $(PY) -m pages.ui.serve $(SERVE)

class: install ## The lesson for a room: on the local network, read-only, nothing shared; prints a QR code (PORT=8600)
	@$(PY) -m pages.ui.serve $(SERVE) --class

# For two cores: two processes share the browser tests (tests/schedule.py), which wait for most of their time, and two
# have what needs no browser, which waits for processes that it starts. In the order of the folders, the slow ones come
# first.
test: check starter ## Install, check format, lint and types, and run all tests (ARGS="-k budget" for some)
	@$(TESTS) -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

clusters: install-dev ## The tests that start a Slurm and a Ray cluster on this machine (as root; Debian's slurm-wlm and munge)
	LRC_TEST_CLUSTERS=1 $(TESTS) tests/cluster $(ARGS)

quick: install-dev ## The tests of every day, in under three minutes: no browser, no training, no processes
	$(TESTS) -m "not browser and not trained and not process and not pack" -n 2 --dist loadfile $(ARGS)

check: install-dev ## Check format, lint and types
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/biome lint --error-on-warnings

format: install-dev ## Format all code
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

starter: install ## Fetch what is missing of the starter pack: a small model, texts and zero-shot items
	@$(PY) -m lrc_core.cli starter

install: $(VENV)/.installed-$(KEY) ## Make .venv with the pinned requirements and the command lrc

install-dev: $(VENV)/.installed-dev-$(DEV_KEY) ## The same with what the checks and tests need

$(VENV)/.installed-$(KEY):
	@$(PY) -c 'import pip' > /dev/null 2>&1 && $(PY) -c $(NEW_ENOUGH) || { \
	  for python in $(PYTHONS); do \
	    if "$$python" -c $(NEW_ENOUGH) > /dev/null 2>&1; then \
	      echo "Making $(VENV) with $$("$$python" --version)"; \
	      exec $(MAKE) --no-print-directory venv PYTHON="$$python"; \
	    fi; \
	  done; \
	  echo "No Python 3.11 or later was found (tried $(PYTHONS))." >&2; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	}
	$(PY) -m pip install --disable-pip-version-check -r requirements.txt
	$(PY) -m pip install --disable-pip-version-check --quiet --no-deps -e .
	@rm -f $(VENV)/.installed-*
	@touch $@

$(VENV)/.installed-dev-$(DEV_KEY): $(VENV)/.installed-$(KEY)
	$(PY) -m pip install --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# Debian's Python has no ensurepip unless python3-venv is installed; its pip can then put one into the environment.
venv:
	@$(PYTHON) -c 'import ensurepip' > /dev/null 2>&1 && $(PYTHON) -m venv --clear $(VENV) || { \
	  $(PYTHON) -m venv --clear --without-pip $(VENV); \
	  $(PYTHON) -m pip --python $(PY) install --quiet pip; \
	}

docs: ## Build the documentation as a site in site/, in an environment of its own
	@test -x .venv-docs/bin/sphinx-build || { python3 -m venv .venv-docs && \
	  .venv-docs/bin/pip install --disable-pip-version-check --quiet -r requirements-docs.txt; }
	.venv-docs/bin/sphinx-build -W --keep-going -q docs site

timings: install-dev ## Measure in a real browser how fast slider, page switches and clicks are (writes timings.json)
	$(PY) -m tests.browser.timings $(ARGS)

campaign: install-dev ## Kill workers, damage files, feed readers with nonsense, at length (ARGS="--size full --seed 1 kills")
	@$(PY) -m tests.campaign $(ARGS)

samples: install starter ## Run what is missing of the sample runs and rewrite assets/samples (hours on two cores)
	$(PY) -m tests.samples

.PHONY: screenshots
screenshots: install-dev ## Write a picture of every page in both themes to screenshots/, and those that the README shows
	@HF_HUB_OFFLINE=1 $(PY) -m tests.browser.screenshots $(ARGS)
