# Two commands on a fresh machine: `make lab` opens the course, `make test` proves that it works.
# Without make, or on Windows, the README has the plain lines.

VENV ?= .venv
BIN = $(VENV)/bin
export VENV PYTHON

.PHONY: lab test course smoke full bench html clean

lab: $(VENV)/ready-lab            ## set up, and open JupyterLab on the first notebook
	@$(BIN)/kdlab lab

test: $(VENV)/ready-test          ## set up, and run ruff, the unit tests, every notebook small, and the browser tests
	@$(BIN)/ruff check
	@$(BIN)/python -m pytest -n 2 --dist loadgroup

course: $(VENV)/ready-test        ## every notebook at its own values: what it says is seen, and is not another run's
	@$(BIN)/python -m pytest -m course

smoke: $(VENV)/ready-test         ## every notebook at the size of seconds
	@$(BIN)/kdlab run --profile smoke

full: $(VENV)/ready-lab           ## every notebook at full size: long without a GPU
	@$(BIN)/kdlab run --profile full

bench: $(VENV)/ready-test         ## the speeds the README quotes, measured here
	@$(BIN)/python benchmarks/run.py

html: $(VENV)/ready-lab           ## every notebook, executed, as a page in build/html that needs no kernel
	@$(BIN)/kdlab run
	@$(BIN)/kdlab report

clean:                            ## remove what was built; the environment and trained nets stay
	rm -rf build

$(VENV)/ready-lab: pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh '.[text,deploy]'
	@touch $@

$(VENV)/ready-test: pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh '.[test]'
	@touch $@ $(VENV)/ready-lab
