# Every target makes its own virtual environment first; a fresh machine needs Python (3.11 or newer) and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEV    := $(VENV)/.dev
BENCH  := $(VENV)/.bench

.PHONY: demo test kills powercut check bench backlog reconnect format clean simulate simulate-planted
.DEFAULT_GOAL := demo

demo: $(DEV)            ## a whole estate on this machine, with partners that misbehave
	@$(BIN)/distctl demo

test: $(DEV)            ## the suite, under 15 minutes on two cores
	@$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

kills: $(DEV)           ## the SIGKILL loop at full length: make kills KILLS=500
	@DISTCTL_KILLS=$(or $(KILLS),500) $(BIN)/pytest tests/acceptance/test_kill_loop.py tests/acceptance/test_estatewide.py $(ARGS)

powercut: $(DEV)        ## what a power cut leaves of a run, in many places: make powercut IMAGES=2000
	@$(BIN)/python -m tests.powercut --images $(or $(IMAGES),2000) $(ARGS)

simulate: $(DEV)        ## a hub and its sites in one process, on virtual time, through random trouble: make simulate SEEDS=2000
	@PYTHONHASHSEED=0 $(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),200) $(ARGS)

simulate-planted: $(DEV) ## that the simulation can fail: it finds every bug that is planted in it
	@PYTHONHASHSEED=0 $(BIN)/python -m tests.simulation --bugs $(BUGS)

check: $(DEV)           ## format, lint, types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(DEV)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(BENCH)         ## ratios, side by side in one run
	@$(BIN)/python -m bench $(ARGS)

backlog: $(BENCH)       ## a site that was away catches up, at full length: make backlog EVENTS=1000000
	@$(BIN)/python -m bench.catching_up $(or $(EVENTS),1000000) $(ARGS)

reconnect: $(BENCH)       ## all agents of an estate come back to their hub at once: make reconnect AGENTS=200
	@$(BIN)/python -m bench.reconnecting $(or $(AGENTS),200) $(ARGS)

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV)

$(DEV): pyproject.toml | $(BIN)/python
	@echo "installing distctl into $(VENV) (once)" >&2
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(BENCH): pyproject.toml $(DEV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
