# make run    serve the public index on 127.0.0.1:3143 from the default data directory
# make test   lint, types and tests
# make bench  measure beside nginx and other proxies, which are put into build/bench-environments first
# make test-clients   install through the proxy with pip, uv, poetry and all others known, which are put into .venv-clients first
#
# PYTHON=python3.12 make test   uses another Python (3.11 or later); VENV=dir puts the virtual environment elsewhere.
# ARGS="--config FILE" make run adds options.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN = $(VENV)/bin
METADATA = setup.cfg pyproject.toml

.PHONY: run test test-clients lint types bench system-packages clean

run: $(VENV)/installed
	exec $(BIN)/twistd --nodaemon --pidfile= pypiproxy $(ARGS)

test: lint types system-packages
	$(BIN)/python -m pytest --numprocesses 3 --dist loadscope $(ARGS)

test-clients: $(VENV)/installed-test
	$(BIN)/python -m pytest --durations=10 tests/clients $(ARGS)

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-test
	$(BIN)/mypy

bench: $(VENV)/installed-test system-packages
	$(BIN)/python bench/run.py $(ARGS)

# A real server and a load generator that some tests and the bench compare with.  Without them those are skipped, each with its reason.
system-packages:
	@{ command -v nginx >/dev/null || test -x /usr/sbin/nginx; } && command -v wrk >/dev/null || { \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx wrk; \
	    else false; fi; \
	} || echo "nginx or wrk is not here and could not be installed (Debian: apt install nginx wrk): what needs it is skipped"

$(VENV)/installed: $(METADATA) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-test: $(METADATA) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$(PYTHON) is missing or older than 3.11; name another: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot create virtual environments (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) .venv-clients build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
