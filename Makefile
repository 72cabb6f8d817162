# Every verb a developer or operator needs. `make help` prints the lines with two hashes.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes
UV := $(shell command -v uv 2>/dev/null)
# the first Python that Filmroom runs on
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: help run viewer install dev test test-viewer lint format torture fuzz siege bench docs lock clean

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r n t; do printf '  make %-10s %s\n' "$$n" "$$t"; done

run: $(VENV)/run.stamp ## install what is missing and run the node on servers of its own; Ctrl-C stops it
	@$(BIN)/python -m dicomweb.viewerpackage || true
	@exec $(BIN)/filmroom serve

viewer: $(VENV)/run.stamp ## fetch the viewer (OHIF) through npm and check it; the web port shows it from then on
	@$(BIN)/python -m dicomweb.viewerpackage

install: $(VENV)/run.stamp ## install Filmroom into .venv, without running it

dev: $(VENV)/dev.stamp ## install what tests and checks need as well

test: $(VENV)/dev.stamp ## run all tests but the campaigns (PYTEST="-k word" narrows)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile $(PYTEST)

test-viewer: $(VENV)/dev.stamp ## look at real studies in the viewer with a browser; pictures are kept in build/viewer
	$(BIN)/python -m pytest tests/viewer -m "slow or not slow" --timeout 600 $(PYTEST)

torture: $(VENV)/dev.stamp ## run the campaigns: kill -9, lost servers, full disks
	$(BIN)/python -m pytest -m slow --timeout 3600 --ignore tests/viewer $(PYTEST)

lint: $(VENV)/dev.stamp ## check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp ## put all code into the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: $(VENV)/dev.stamp ## throw damaged bytes at every parser (SECONDS=60); what is found is kept as a test
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60)

siege: $(VENV)/dev.stamp ## attack the DICOM door by every row of its table, an honest sender beside
	$(BIN)/python -m pytest -m slow -s --timeout 900 tests/dimse/test_siege.py

bench: $(VENV)/dev.stamp ## measure, against Orthanc and DCMTK where they are installed
	$(BIN)/python -m tests.bench

docs: $(VENV)/run.stamp ## print config/filmroom.toml and docs/settings.md from the settings' schema
	FILMROOM_CONFIG=/dev/null $(BIN)/filmroom config toml > build.docs && mv build.docs config/filmroom.toml
	FILMROOM_CONFIG=/dev/null $(BIN)/filmroom config markdown > build.docs && mv build.docs docs/settings.md

lock: $(VENV)/run.stamp ## resolve the dependencies again and pin them with hashes
	@uv="$(UV)"; test -n "$$uv" || { $(PIP) -r requirements-uv.lock && uv=$(BIN)/uv; }; \
	lock() { $$uv pip compile -q --universal --generate-hashes --python-version 3.11 --upgrade --no-annotate \
	  --custom-compile-command "make lock" "$$@"; }; \
	lock --extra embedded pyproject.toml -o requirements.lock && \
	lock --extra embedded --extra dev pyproject.toml -o requirements-dev.lock && \
	echo uv | lock - -o requirements-uv.lock

clean: ## remove what can be made again; never var, where studies are
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Filmroom needs Python 3.11, 3.12 or 3.13; install one, or say: make PYTHON=/path/to/it"; exit 1; }
	@$(or $(UV),false) venv -q --python $(PYTHON) $(VENV) 2>/dev/null || $(PYTHON) -m venv $(VENV) || \
	  { echo "Python's venv is missing; on Debian and Ubuntu: apt install python3-venv"; rm -rf $(VENV); exit 1; }

# A set is installed again when its lock file changes, and at no other time. uv does it in a tenth of the time that pip
# takes, so it is fetched where it is missing; where it does not work, pip does.
define INSTALL
@echo "Installing into $(VENV) (the first time takes a minute)"
@uv="$(UV)"; test -n "$$uv" || { $(PIP) -r requirements-uv.lock && uv=$(BIN)/uv; } || true; \
{ test -n "$$uv" && $$uv pip install -q --python $(BIN)/python --require-hashes -r $(1) && \
	$$uv pip install -q --python $(BIN)/python --no-deps -e .; } || \
{ $(BIN)/python -m ensurepip >/dev/null && $(PIP) -r $(1) && \
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .; }
@touch $@ $(VENV)/run.stamp
endef

$(VENV)/run.stamp: requirements.lock | $(VENV)/bin/python
	$(call INSTALL,requirements.lock)

$(VENV)/dev.stamp: requirements-dev.lock | $(VENV)/bin/python
	$(call INSTALL,requirements-dev.lock)
