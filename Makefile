PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test test-all lint docs

# OPT (GS) on scikit-learn's digits: no data to fetch, under three minutes on two cores
quickstart: .venv/installed
	cd opt_gs && ../$(BIN)/python train.py --dataset=digits --widths=32,32,32,32 --iterations=200 --warmup_iterations=40 --log_every=20 --eval_every=50

test: .venv/installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile

# the slow tests too; each file in a separate process: XLA's programs stay in memory, and a process
# holds only so many
test-all: test
	grep -l mark.slow tests/test_*.py | xargs -n 1 -P $$(getconf _NPROCESSORS_ONLN) $(BIN)/python -m pytest -q -m slow

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy common $(patsubst %/train.py,%,$(wildcard */train.py))

# the pages and a reference of opt_keras as one site; a broken link or reference is an error
docs: .venv/installed-dev
	rm -rf .site && mkdir -p .site/source/data
	ln -s ../common .site/opt_keras
	cd .site/source && ln -s $(addprefix ../../,$(wildcard *.md) LICENSE docs examples) . && ln -s ../../../data/README.md data
	$(BIN)/mkdocs build --strict --config-file docs/site/mkdocs.yml
	@echo "open .site/html/index.html"

.venv/installed: requirements.txt
	@$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))" || \
	  { echo "Python 3.11 to 3.13 is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt
	touch $@
