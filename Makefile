# One virtual environment, made on first use; PYTHON says from which interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test check clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

$(INSTALLED): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV), some minutes the first time"
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

setup: $(INSTALLED) ## install into .venv

demo: $(INSTALLED) ## pretrain a small encoder, fine-tune it with three seeds, compare with no pretraining
	$(BIN)/python -m foundation.pretrain +exp=small resume=auto
	$(BIN)/python -m foundation.finetune task=rotten_tomatoes seeds=3 compare=scratch
	@echo "Run folders, each with its settings, metrics, curves and results:"
	@ls -d runs/*/

test: $(INSTALLED) ## run the tests
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: $(INSTALLED) ## lint, format, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean: ## remove .venv and caches; runs/ and data/ stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find foundation tests -name __pycache__ -type d -prune -exec rm -rf {} +
