# Two commands on a fresh machine: `make lab` opens the course, `make test` proves that it works.
# `make lab TORCH=cpu` takes PyTorch without CUDA. Without make, or on Windows, the README has the plain lines.

VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/ready$(TORCH:%=-%)
export VENV PYTHON TORCH

.PHONY: lab test course smoke full bench site clean

lab: $(READY)-lab                 ## set up, and open JupyterLab on the first notebook
	@$(BIN)/kdlab lab

test: $(READY)-test               ## set up, and run ruff, the type checker, the unit tests, every notebook small, and the browser tests
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/ty check --python $(VENV)
	@$(BIN)/python -m pytest -n 2 --dist loadgroup

course: $(READY)-test             ## every notebook at its own values: what it says is seen, and is not another run's
	@$(BIN)/python -m pytest -n 2 -m course

smoke: $(READY)-test              ## every notebook at the size of seconds
	@$(BIN)/kdlab run --profile smoke

full: $(READY)-lab                ## every notebook at full size: long without a GPU
	@$(BIN)/kdlab run --profile full

bench: $(READY)-test              ## the speeds the README quotes, measured here
	@$(BIN)/python benchmarks/run.py

site: $(READY)-test               ## run every notebook and make the site in build/site: opened from a file, or served
	@$(BIN)/kdlab run --no-html
	@$(BIN)/kdlab site

clean:                            ## remove what was built; the environment and trained nets stay
	rm -rf build

$(READY)-lab: pyproject.toml setup.py scripts/setup.sh
	@sh scripts/setup.sh '.[text,speech,deploy]'
	@touch $@

$(READY)-test: pyproject.toml setup.py scripts/setup.sh
	@sh scripts/setup.sh '.[test]'
	@touch $@ $(READY)-lab
