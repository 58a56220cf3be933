# One word per chore. Each depends on `install`, which makes .venv and fills it from the lock.
PY     := .venv/bin/python
STAMP  := .venv/.installed
SHELL  := /bin/bash
SEEDS  ?= 2000

export NO_MKDOCS_2_WARNING := 1

.PHONY: help install demo test check fmt sim web docs bench lock clean

help: ## what each word does
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

install: $(STAMP) ## make .venv and install all that is needed, from the lock

$(STAMP): requirements.lock pyproject.toml tools/install.sh
	@bash tools/install.sh

demo: install ## start everything, with real agents that misbehave; shows what is caught
	@.venv/bin/checkrein demo $(DEMO)

test: install ## all tests
	@$(PY) -m pytest -q $(ARGS)

check: install ## style, types, import rules, spelling, docs build
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache
	@.venv/bin/codespell
	@.venv/bin/mkdocs build --strict --quiet --site-dir site

fmt: install ## put the code in its one form
	@.venv/bin/ruff check --fix-only --quiet .
	@.venv/bin/ruff format .

sim: install ## whole-system runs under virtual time with faults; SEEDS=N
	@$(PY) -m tests.sim --seeds $(SEEDS)

web: install ## the page (built in a later version; nothing to do yet)
	@echo "no web page in this version"

docs: install ## serve the documentation
	@.venv/bin/mkdocs serve

bench: install ## measure against peers and limits in the same run; ONLY=name
	@$(PY) -m benches $(ONLY)

lock: ## compile requirements.lock anew
	@bash tools/lock.sh

clean: ## remove .venv and what was built
	rm -rf .venv site dist .mypy_cache .ruff_cache .pytest_cache
