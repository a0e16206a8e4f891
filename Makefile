# Two commands on a fresh machine: `make demo` and `make test`. Each sets up .venv first, and is safe to repeat.

PYTHON ?= python3
TORCH ?= torch==2.13.0
# The release that loads beside that torch; only the tests of that backend want it, and FFmpeg of the system.
TORCHCODEC ?= torchcodec==0.13.0
BIN := .venv/bin
PYTHONS ?= 3.12 3.13

.PHONY: demo test long pythons lint format tables clean

demo: .venv/ready
	$(BIN)/kinema demo --out demo

# Two workers of one thread each: as fast as this set gets on two cores, and the same numbers everywhere.
test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not long and not system"

long: .venv/ready
	$(BIN)/python -m pip install --quiet "$(TORCHCODEC)"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "long or system" -rs

# The other Pythons that are installed, each in a .venv-VERSION of its own.
pythons:
	.ci/pythons $(PYTHONS)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The tables of README.md and docs/, from results/.
tables: .venv/ready
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python docs/make_tree.py

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "kinema needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable ".[dev,render]"
	touch $@

clean:
	rm -rf .venv demo runs .pytest_cache .mypy_cache .ruff_cache build *.egg-info
