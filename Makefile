# Every target below uses one environment, .venv, which is rebuilt when pyproject.toml or constraints.txt change.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# Every file of tests runs in one of at most four processes, so that its fixtures are made once. WORKERS=0: in this one.
WORKERS ?= logical
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# make run MODEL=smollm2 SIZE=quick: another model than the bundled one, and how much of it is measured.
CHOSEN = $(if $(MODEL),--model "$(MODEL)")

.PHONY: run report test lab check format bench faults twice docs clean install help

help:
	@echo "make run     execute the notebooks, skipping finished ones (MODEL=smollm2: a real model; SIZE=quick)"
	@echo "make report  compare the model's numbers with the published ones (MODEL=...)"
	@echo "make test    the whole test suite"
	@echo "make lab     open the notebooks in JupyterLab"
	@echo "make check   format check, lint, types, layers, fast tests"
	@echo "make format  format the code"
	@echo "make bench   measure the speed and memory figures"
	@echo "make faults  provoke crashes, damaged files and full disks many times; prints a table"
	@echo "make twice   run all notebooks twice and compare every table byte for byte"
	@echo "make docs    build the documentation as a site in build/site"
	@echo "make clean   remove the environment and everything generated"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[notebooks,lab,sae,export,data,regression,search,ray,docs,dev]"
	@touch $@

run: $(INSTALLED)
	$(BIN)/python -m refusal_utils run $(CHOSEN) $(if $(SIZE),--size "$(SIZE)")

report: $(INSTALLED)
	$(BIN)/python -m refusal_utils report $(CHOSEN)

test: $(INSTALLED)
	$(PYTEST)

lab: $(INSTALLED)
	$(BIN)/jupyter lab notebooks

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy & $(PYTEST) -m "not slow" && wait $$!

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python -m tests.bench

faults: $(INSTALLED)
	$(BIN)/python -m tests.faults
	FUZZ=500 $(PYTEST) tests/test_fuzz.py

twice: $(INSTALLED)
	$(BIN)/python -m tests.twice

docs: $(INSTALLED)
	$(BIN)/python -m docs.build_site

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
	find . \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +
	find figures \( -name "*.html" -o -name "*.ipynb" -o -name "*.safetensors" -o -name plotly.min.js \) -type f \
		! -path figures/index.html ! -path figures/explorer.html -delete
