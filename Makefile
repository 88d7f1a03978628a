# Each target works alone on a fresh clone with Python 3.11 or newer, make and a package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo reproduce test stress chromium browser-test wheel-test lab student bench clean

help:
	@echo "make demo     make the demo data, run PNI on it, write the report to results/demo"
	@echo "make reproduce  every table and figure of the paper on the demo data -> results/paper (under an hour on two cores)"
	@echo "make test     format, lint, types, tests, notebooks at smoke size; the explorer in a browser where Chromium is"
	@echo "make stress   the tests of races and of killed commands, with many rounds: some minutes"
	@echo "make browser-test  installs Chromium where it is missing, then the explorer's tests in it"
	@echo "make wheel-test  build the wheel, install it alone into a clean environment, fit and score there: some minutes"
	@echo "make lab      open the notebooks in JupyterLab"
	@echo "make student  copy the notebooks without their solutions to student/"
	@echo "make bench    measure the time and memory of the main steps"
	@echo "make clean    remove the environment and the caches (runs/, results/ and data/ stay)"

demo: $(VENV)/installed
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pni demo --out results/demo  # small work: more threads wait more

reproduce: $(VENV)/installed
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pni reproduce

test: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(BIN)/mypy > $(VENV)/mypy.txt 2>&1 & types=$$!; \
	  PYTHONWARNDEFAULTENCODING=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder; \
	  tests=$$?; wait $$types; types=$$?; echo "mypy:"; cat $(VENV)/mypy.txt; exit $$((tests | types))

stress: $(VENV)/installed-dev
	PNILIB_STRESS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile tests/test_races.py tests/test_kill_resume.py \
	  tests/test_reproduction_schedule.py::test_units_that_share_their_stages_side_by_side

chromium:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	  {  echo "installing Chromium from the distribution's packages"; \
	  $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq chromium; }

browser-test: chromium $(VENV)/installed-dev
	$(BIN)/python -m pytest tests/test_explore_browser.py

wheel-test: $(VENV)/installed-dev
	rm -rf build $(VENV)/wheel && $(BIN)/python -m build --wheel --outdir $(VENV)/wheel .
	$(PYTHON) -m venv $(VENV)/wheel/venv && $(VENV)/wheel/venv/bin/pip install --quiet $(VENV)/wheel/*.whl
	cd $(VENV)/wheel && PATH=$$PWD/venv/bin:$$PATH && pni notebooks --copy notebooks && pni data demo --root demo && \
	  pni fit --dataset demo --root demo --category cable --profile smoke --out fitted && pni evaluate fitted && \
	  pni score fitted/cable demo/cable/test --out scored

lab: $(VENV)/installed
	$(BIN)/jupyter lab notebooks

student: $(VENV)/installed
	$(BIN)/python -c "from pnilib.apps.notebooks.runner import strip_solutions; print(*strip_solutions('notebooks', 'student'), sep='\n')"

bench: $(VENV)/installed
	@set -e; for script in benchmarks/bench_*.py; do echo "$$script"; $(BIN)/python "$$script"; done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info

# Stamps: installed again only when pyproject.toml changes.
$(VENV)/installed: pyproject.toml
	$(call environment,.[all])

$(VENV)/installed-dev: pyproject.toml
	$(call environment,.[dev])

define environment
@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not installed: name Python 3.11 or newer with PYTHON=..."; exit 1; }
@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("make: $(PYTHON) is Python %d.%d, 3.11 or newer is needed: name one with PYTHON=..." % sys.version_info[:2])'
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) has no venv module: install it (Debian: python3-venv)"; exit 1; }
@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
@echo "installing pnilib into $(VENV): some minutes and about 5 GB the first time"
@$(BIN)/python -m pip install --quiet --editable "$(1)"
@touch $@
endef
