# make run    serve the public index on 127.0.0.1:3143 from the default data directory
# make test   lint, types and tests, on $(PYTHON) and on the newest Python of this machine; make suite: the tests alone, on $(PYTHON)
# make docs   build the documentation as a site, into build/site
# make bench  measure beside nginx and other proxies, which are put into build/bench-environments first
# make drills   fire and clear each alert with a real Prometheus, and restore lost data directories, in about five minutes
# make fuzz   have atheris look for an upload whose form is read in two ways, for a minute (FUZZ_SECONDS=600: for ten)
# make test-clients   install through the proxy with pip, uv, poetry and all others known, which are put into .venv-clients first
#
# PYTHON=python3.12 make test   uses another Python (3.11 or later); VENV=dir puts the virtual environment elsewhere.
# NEWEST_PYTHON=python3.14 make test   names the newest Python instead of looking for it; an empty name means none.
# ARGS="--config FILE" make run adds options.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
FUZZ_SECONDS ?= 60
BIN = $(VENV)/bin
METADATA = setup.cfg pyproject.toml
# The newest Python of PATH or pyenv, if $(PYTHON) is older; looked for when it is needed.
NEWEST_PYTHON ?= $(shell .ci/newest-python $(PYTHON))
# A file system in memory with room for the temporary directories of the tests; empty: there is none.
IN_MEMORY = $(shell df --output=avail,target -k /dev/shm 2>/dev/null | awk '$$1 > 4000000 && $$2 == "/dev/shm" { print $$2 }')
# What differs between Pythons is found by one case as well as by many: of each parametrized test this many run on the newest one
# (empty: all).  It leaves out modules that mostly wait for other programs.  All tests:
# make suite-on-newest CASES_ON_NEWEST= NOT_ON_NEWEST=
CASES_ON_NEWEST = 2
NOT_ON_NEWEST = backup bench clients_install clients_troubles conf dashboard_browser docs door fail_open full_disk haproxy hosted_crashes \
    hosted_drop hosted_editing kill machine packaging serve upgrade upload_tools uploads_served warm workshop
# What installs into an environment: pip, or the uv that is named.
UV =
INSTALL = $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(BIN)/python -m pip install --quiet --disable-pip-version-check)
# What the tests need besides packages of Python.
SYSTEM = system-packages

# axe-core, which looks for what keeps people from using the dashboard: a script from the registry of npm.
AXE ?= build/axe/node_modules/axe-core/axe.min.js
AXE_VERSION = 4.14.1
export AXE

.PHONY: run test suite suite-on-newest newest-environment test-clients drills fuzz lint types docs bench debian-packages system-packages clean

run: $(VENV)/installed
	exec $(BIN)/pypiproxy serve $(ARGS)

# What is installed comes over the network, which leaves time for something else; so does the check of types, which takes one
# of two processors for a minute, in which the tests have begun.
test:
	@$(MAKE) --jobs 2 --no-print-directory $(VENV)/installed-test debian-packages
	@$(MAKE) --jobs 2 --no-print-directory lint system-packages newest-environment
	@$(MAKE) --jobs 2 --no-print-directory types suite
	@$(MAKE) --no-print-directory suite-on-newest

# Bytecode is kept whatever the environment says: else each of the processes compiles everything.  Temporary directories are in
# memory where 4 GB of it are free: the tests make durable some ten thousand small files, and the disk would be waited for.
suite: $(VENV)/installed-test $(SYSTEM)
	PYTHONDONTWRITEBYTECODE= PYTEST_DEBUG_TEMPROOT="$${PYTEST_DEBUG_TEMPROOT-$(IN_MEMORY)}" $(BIN)/python -m pytest --numprocesses 3 --dist loadscope --no-loadscope-reorder $(ARGS)

# Nothing is built for it: what needs python-ldap or atheris is skipped, unless all tests are to run.
suite-on-newest: newest-environment
	@newest='$(NEWEST_PYTHON)'; if [ -n "$$newest" ]; then \
	    version=$$("$$newest" -c 'import sys; print("%d.%d" % sys.version_info[:2])') && \
	    echo "on Python $$version: $(or $(CASES_ON_NEWEST:%=% cases of each test),all tests)$(if $(NOT_ON_NEWEST), but for $(NOT_ON_NEWEST))" && \
	    $(MAKE) --no-print-directory suite PYTHON="$$newest" VENV=".venv-$$version" SYSTEM="$(if $(NOT_ON_NEWEST),,$(SYSTEM))" \
	        ARGS="$(CASES_ON_NEWEST:%=--cases=%) $(NOT_ON_NEWEST:%=--ignore=tests/test_%.py) $(ARGS)"; \
	else echo "no Python newer than $(PYTHON) is here: the tests ran on $(PYTHON) only"; fi

# By uv, which takes a tenth of the time; where it finds no packages, as it does not read pip's configuration, by pip.
newest-environment: $(VENV)/installed-test
	@newest='$(NEWEST_PYTHON)'; if [ -n "$$newest" ]; then \
	    environment=.venv-$$("$$newest" -c 'import sys; print("%d.%d" % sys.version_info[:2])') && \
	    { $(MAKE) --no-print-directory PYTHON="$$newest" VENV="$$environment" UV=$(BIN)/uv "$$environment/installed-test" || \
	    $(MAKE) --no-print-directory PYTHON="$$newest" VENV="$$environment" "$$environment/installed-test"; }; fi

test-clients: $(VENV)/installed-test
	$(BIN)/python -m pytest --durations=10 tests/clients $(ARGS)

# Most of the time is spent waiting, so several run at once.
drills: $(VENV)/installed-test system-packages
	$(BIN)/python -m pytest --numprocesses 3 --dist load tests/drills $(ARGS)

# The suite has a short run of the same (tests/test_multipart_form.py).
fuzz: $(VENV)/installed-test system-packages
	mkdir -p build
	$(BIN)/python -m tests.support.fuzz_forms -max_total_time=$(FUZZ_SECONDS) -max_len=8000 -artifact_prefix=build/ $(ARGS)

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-test
	$(BIN)/mypy

# A dead link, an unknown anchor or a page that README.md does not list fails it.
docs: $(VENV)/installed-docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -c docs . build/site $(ARGS)
	@echo "build/site/index.html"

bench: $(VENV)/installed-test system-packages
	$(BIN)/python bench/run.py $(ARGS)

# Real servers and clients, a load generator, and a directory to log in at, that some tests and the bench use.
debian-packages:
	@.ci/debian-packages

# These, and what comes from other registries or is built with them.  What is not here is named, and what needs it is skipped.
system-packages: debian-packages $(VENV)/installed-test
	@test -e $(AXE) || { command -v npm >/dev/null && \
	    npm install --silent --no-fund --no-audit --ignore-scripts --prefix build/axe axe-core@$(AXE_VERSION); \
	} || echo "axe-core is not at $(AXE) and could not be installed (npm): nothing looks for what keeps people from using the dashboard"
	@$(BIN)/python -c "import ldap" 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[ldap]' || \
	    echo "python-ldap could not be built: what needs it is skipped"
	@$(BIN)/python -c "import atheris" 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary atheris --editable '.[fuzz]' || \
	    echo "there is no atheris for this Python: what needs it is skipped"

$(VENV)/installed: $(METADATA) | $(BIN)/python
	@echo "Installing pypiproxy and what it needs into $(VENV), which takes about a minute:"
	@$(BIN)/python -m pip install --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-test: $(METADATA) | $(BIN)/python
	$(INSTALL) --editable '.[test]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-docs: $(METADATA) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@ $(VENV)/installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$(PYTHON) is missing or older than 3.11; name another: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot create virtual environments (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "Creating the virtual environment $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) .venv-clients .venv-3.* build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
