# `make demo` and `make test` do all their own set-up; `make install` does only that. See README.md.
# Variables: VENV (folder of the environment), PYTHON (interpreter), WORKERS (test processes), TESTS, OUTPUT (demo),
# KILLS (folder of test-kills).

.PHONY: help install demo test test-slow test-configs test-export test-kills doctor clean

WORKERS ?= 2
TESTS ?= tests
OUTPUT ?= output/demo
EXPORT_VENV ?= build/without-torch
KILLS ?= output/kills
# The CPU code runs fastest with one thread a process: two threads collapse when anything else runs.
export OMP_NUM_THREADS ?= 1
export VENV PYTHON CONSTRAINTS

python = "$$(tools/install.sh --which)"

help:
	@echo "make install       set up the environment (.venv, or the activated one if it has detectron2)"
	@echo "make demo          train and evaluate a small detector on generated images, on the CPU, in minutes"
	@echo "make test          run the tests"
	@echo "make test-slow     run the tests that take too long for every change: four processes, the GPU check on the CPU"
	@echo "make test-configs  take a training and an inference step with every config of the repository"
	@echo "make test-export   run exported ONNX files in an environment without torch"
	@echo "make test-kills    kill runs of all quick configs at random places, resume, compare with unbroken runs"
	@echo "make doctor        what is installed, what is wrong with it, and the fix"
	@echo "make clean         delete .venv, the demo's output and caches"

install:
	@tools/install.sh

demo: install
	@$(python) tools/demo.py --output $(OUTPUT)

test: install
	@echo "Running the tests with $(WORKERS) processes"
	@$(python) -m pytest -q -n $(WORKERS) --dist loadfile $(TESTS)

test-slow: install
	@$(python) -m pytest -q -m slow $(TESTS)

# Every config of the repository, not only one of each model: takes some 10 minutes.
test-configs: install
	@ALL_CONFIGS=1 $(python) -m pytest -q -n $(WORKERS) --dist loadfile tests/config

# The script of docs/EXPORT.md, in an environment that has only what it needs; one file of every kind of detector.
test-export: install
	@echo "Installing the extra [export], and an environment without torch in $(EXPORT_VENV)"
	@$(python) -m pip install --quiet -c $(or $(CONSTRAINTS),requirements/constraints.txt) onnx onnxruntime
	@$(python) -m venv $(EXPORT_VENV)
	@$(EXPORT_VENV)/bin/python -m pip install --quiet -c $(or $(CONSTRAINTS),requirements/constraints.txt) \
		numpy pillow onnxruntime
	@EXPORT_PYTHON=$(EXPORT_VENV)/bin/python $(python) -m pytest -q -s tests/inference/test_export_alone.py

# Kills runs at random places and compares what comes of them with unbroken ones: takes some 15 minutes of a CPU.
test-kills: install
	@$(python) tools/kill_campaign.py --output $(KILLS)

doctor:
	@python="$$(tools/install.sh --which)"; [ -x "$$python" ] || python=python3; "$$python" -m d2_balanced.doctor

clean:
	@echo "Deleting .venv, output/demo and caches"
	@rm -rf .venv .install-stamp output/demo .pytest_cache .hypothesis build d2_balanced.egg-info
	@find . -name __pycache__ -type d -not -path "./.venv/*" -prune -exec rm -rf {} +
