# One virtual environment, made on first use; PYTHON says from which interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo homogenization-smoke test check bench bench-gpu clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

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

homogenization-smoke: $(INSTALLED) ## three tiny foundations, two tasks, and the report on what they share, from nothing
	$(BIN)/python experiments/2026-11-25-homogenization/run.py smoke

test: $(INSTALLED) ## run the tests
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: $(INSTALLED) ## lint, format, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

$(VENV)/.bench: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@touch $@

bench: $(VENV)/.bench ## measure speed side by side with Hugging Face, some minutes; leave the machine alone meanwhile
	$(BIN)/python -m foundation.bench

# Not run in one piece yet: experiments/2026-11-27-gpu/ has what was. Ten million words in data/corpora/, BLiMP in data/blimp/, GLUE in data/glue/ or the hub.
bench-gpu: $(VENV)/.bench ## on a GPU: its bench, exp=strict_small for 25 minutes, BLiMP and four tasks
	$(BIN)/python -m foundation.bench bench=gpu name=gpu round_seconds=3 trainer=gpu
	$(BIN)/python -m foundation.pretrain +exp=strict_small resume=auto
	$(BIN)/python -m foundation.evaluate foundation=strict_small evaluation=held_out trainer.device=cuda
	$(BIN)/python -m foundation.evaluate foundation=strict_small evaluation=blimp trainer.device=cuda
	for task in sst2 cola mrpc rte; do \
	  $(BIN)/python -m foundation.finetune task=$$task foundation=strict_small seeds=3 trainer=gpu || exit 1; \
	done

clean: ## remove .venv and caches; runs/ and data/ stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find foundation tests -name __pycache__ -type d -prune -exec rm -rf {} +
