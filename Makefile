# Two commands on a fresh machine: `make demo` and `make test`. Each sets up .venv first and can be repeated.

PYTHON ?= python3
TORCH ?= torch==2.13.0
# The release that goes with that torch; only the tests of that backend need it, and the system's FFmpeg.
TORCHCODEC ?= torchcodec==0.13.0
BIN := .venv/bin
PYTHONS ?= 3.12 3.13

.PHONY: demo test long pythons lowest lint format tables picture clean

demo: .venv/ready
	$(BIN)/kinema demo --out demo

# Two workers of one thread each: fastest on two cores, with the same numbers everywhere.
test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not long and not system"

long: .venv/ready
	$(BIN)/python -m pip install --quiet "$(TORCHCODEC)"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "long or system" -rs

# The other installed Pythons, each in its own .venv-VERSION.
pythons:
	.ci/pythons $(PYTHONS)

# The lowest versions that pyproject.toml allows, in .venv-lowest.
lowest:
	PYTHON=$(PYTHON) .ci/lowest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy benchmarks --follow-imports silent --disable-error-code union-attr \
	  --disable-error-code operator --disable-error-code call-overload --disable-error-code arg-type --disable-error-code index \
	  --disable-error-code no-untyped-call --disable-error-code import-not-found

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Tables of README.md and docs/ from results/, costs of the models, docs/api.md, and the tree of docs/architecture.md.
tables: .venv/ready
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python docs/make_tree.py
	$(BIN)/python docs/make_models.py
	$(BIN)/python docs/make_api.py

# The moving picture of README.md, from the model of `make demo`.
picture: .venv/ready
	$(BIN)/python docs/make_picture.py demo/run

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "kinema needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)" --config-settings editable_mode=compat --editable ".[dev,render]"
	touch $@

clean:
	rm -rf .venv demo runs .pytest_cache .mypy_cache .ruff_cache build *.egg-info
