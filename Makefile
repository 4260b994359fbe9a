# Two commands matter: `make demo` and `make test`. Each sets up all it needs in .venv first.
# Needs Python >= 3.11 and make, nothing else.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

# The first interpreter that is new enough; `make PYTHON=... test` names one.
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then echo $$p; break; fi; done)

.PHONY: demo test campaigns others check lint types imports fmt bench flame oracle torture pins schema clean

demo: $(VENV)/demo ## a real job against a real HTTP server, killed once, with the proof
	$(BIN)/python jobs/demo.py

test: $(VENV)/dev ## the fast tests, on all cores
	$(BIN)/python -m pytest -q -n auto --dist worksteal

campaigns: $(VENV)/dev ## whole nights that are killed and broken on the way (two minutes)
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m "campaign and not long"

others: $(VENV)/dev ## clients, servers and models of others (the first time gigabytes, and minutes)
	$(BIN)/python -m tests.others.environments
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m others --timeout 300

check: lint types imports ## what reviewers should not have to look at

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

imports: $(VENV)/dev
	$(BIN)/lint-imports

fmt: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

torture: $(VENV)/dev ## the long kill campaign, and a hundred bills (about ten minutes)
	$(BIN)/python -m pytest -q -n auto -m long --timeout 300
	$(BIN)/python -m tests.e2e.torture

bench: $(VENV)/dev ## speed beside others, memory, scale: ratios of one run (about forty minutes)
	$(BIN)/python -m tests.bench --keep

flame: $(VENV)/dev ## where the time of a run goes, as a picture
	$(BIN)/python -m tests.bench.flame

oracle: $(VENV)/dev ## a thousand nights under hidden limits, for each kind of limit
	$(BIN)/python -m tests.sim.compiled

schema: $(VENV)/dev ## the JSON Schema that comes with the package
	$(BIN)/python -m batchrank.operate.init

pins: $(VENV)/dev
	$(PIP) install uv
	$(BIN)/python pins/compile.py
	$(BIN)/python -m tests.bench.peers.envs

# --- environments ---------------------------------------------------------------------------------

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "batchrank needs Python 3.11 or newer; none was found" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo: pins/demo.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r pins/demo.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev: pins/dev.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r pins/dev.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/demo

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache jobs/out jobs/.batchrank
