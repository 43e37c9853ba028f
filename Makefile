# All commands use .venv, which is built on first use. They need Python, make and a compiler.
# Another interpreter: make test PYTHON=python3.13      Tests by name: make test ARGS="-k cell"
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints.txt
ARGS ?=
# The tests use a checkout of pytorch-forecasting instead of the installed release with
#     make test PTF_SOURCE=/path/to/pytorch-forecasting
export PTF_SOURCE
# At most two test processes, with one torch thread each.
JOBS ?= 2

.DEFAULT_GOAL := help
.NOTPARALLEL: # pip cannot run twice at the same time
.PHONY: help venv demo test test-all sanitize compatibility notebooks lint check docs docs-version plots benchmark clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# One stamp per extra: `make demo` installs only what it needs, and nothing is installed twice.
$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

# An installation compiles the kernel, which is used only as long as its sources are the same.
CPP := pytorch_forecasting_mlstm/layers/_recurrent/_mlstm/ops/cpp
KERNEL := hatch_build.py $(CPP)/compiler.py $(CPP)/packaged.py $(wildcard $(CPP)/*.cpp $(CPP)/*.h)

$(VENV)/.stamp-%: pyproject.toml $(CONSTRAINTS) $(KERNEL) | $(BIN)/pip
	PYTORCH_FORECASTING_MLSTM_KERNEL= $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[$*]'
	@touch $@

venv: $(VENV)/.stamp-dev ## create .venv with everything for development

demo: $(VENV)/.stamp-demo ## forecast real electricity demand: errors against a naive forecast, and a plot
	$(BIN)/python -m pytorch_forecasting_mlstm $(ARGS)

test: $(VENV)/.stamp-test ## run the tests and docstring examples
	OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-all: $(VENV)/.stamp-test ## also all losses and datasets, and more random configurations
	OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not notebooks" $(ARGS)

# CXXFLAGS="-mavx2 -mfma" tests other instructions. Each sanitizer takes minutes to compile.
sanitize: ## run the C++ kernel under ASan, UBSan and TSan (minutes)
	set -e; build=$$(mktemp -d); trap 'rm -rf $$build' EXIT; \
	for sanitizer in address undefined thread; do \
		$(CXX) -std=c++17 -O1 -fopenmp-simd -pthread -Wall -Wextra -Wno-psabi -Werror $(CXXFLAGS) \
			-fsanitize=$$sanitizer -fno-sanitize-recover=all -I$(CPP) tests/ops/cpp/sanitize.cpp \
			-o $$build/kernel; \
		echo "$$sanitizer"; $$build/kernel; \
	done

compatibility: $(VENV)/.stamp-test ## regenerate docs/compatibility.md (minutes)
	PYTHONPATH=tests OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python tests/helpers/write_compatibility_matrix.py

notebooks: $(VENV)/.stamp-test ## run the notebooks; ARGS=--write-notebooks keeps their outputs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m notebooks tests/docs/test_notebooks.py $(ARGS)

lint: $(VENV)/.stamp-dev ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check: $(VENV)/.stamp-dev ## check types
	$(BIN)/mypy

docs: $(VENV)/.stamp-docs ## build the site in site/ and check its links and anchors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "Built site/. Open site/index.html, or serve it: $(BIN)/python -m http.server -d site"
	@echo "Preview while you write: $(BIN)/mkdocs serve"

# The selector of versions needs the network, so only sites of this kind have one. REPOSITORY_URL adds
# links to the repository. `.venv/bin/mike serve` shows the result.
docs-version: $(VENV)/.stamp-docs ## add the site of this version to the local branch gh-pages
	VERSION_PROVIDER=mike NO_MKDOCS_2_WARNING=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/mike deploy --update-aliases \
		"$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' pytorch_forecasting_mlstm/__init__.py)" latest
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/mike set-default latest

# Without DATA, the loader is measured on a synthetic table of the same shape as ETTh1, and no
# forecast errors are measured.
benchmark: $(VENV)/.stamp-test ## a small version of the benchmarks, minutes; DATA=ETTh1.csv for forecast errors
	$(BIN)/python benchmarks/upstream_defects.py
	$(BIN)/python benchmarks/mlstm_speed.py --quick --only layer,chunkwise,cell,memory
	$(BIN)/python benchmarks/loader_speed.py --only loader memory $(if $(DATA),--data "$(DATA)")
	$(BIN)/python benchmarks/recall.py --pairs 2 8 --seconds 20
	$(if $(DATA),$(BIN)/python benchmarks/long_horizon.py --data "$(DATA)" --models ours no-memory lstm)

plots: $(VENV)/.stamp-test ## draw the plots of docs/benchmarks.md and the diagram of the imports
	$(BIN)/python benchmarks/plots.py
	MPLBACKEND=Agg $(BIN)/python docs/draw_imports.py

clean: ## remove .venv and everything generated
	rm -rf $(VENV) $(CPP)/libraries build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		lightning_logs checkpoints site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
