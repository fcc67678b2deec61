# make repro · test · style · lock · bench · bench-evaluate; the set-up is done where it is missing.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTHON ?= $(shell command -v python3.11 || command -v python3)

.PHONY: repro test style lock bench bench-evaluate llama.cpp setup

repro: setup
	dvc repro

test: setup
	python -m pytest

style: .venv/ready
	ruff check . && ruff format --check . && mypy

bench: setup bench-evaluate
	python -m bench.prepare
	python -m bench.tokenize
	python -m bench.memory
	python -m bench.train
	python -m bench.train_8b
	python -m bench.export_8b

bench-evaluate: setup
	python -m bench.evaluate

setup: .venv/ready llama.cpp
	@git config user.name >/dev/null && git config user.email >/dev/null \
		|| echo '`dvc exp run` needs a name of Git: `git config --global user.name "…"`, and user.email likewise'

# LLAMA_BUILD=OFF: the binding loads the libraries that llama.cpp/build.py makes, so nothing is compiled twice.
.venv/ready: requirements.lock
	$(PYTHON) -m venv .venv
	CMAKE_ARGS=-DLLAMA_BUILD=OFF python -m pip install --quiet -r requirements.lock
	touch $@

# After an edit of requirements.txt or requirements-dev.txt: resolves them in a fresh environment and keeps its pins.
lock:
	$(PYTHON) -m venv --clear .venv/lock
	CMAKE_ARGS=-DLLAMA_BUILD=OFF .venv/lock/bin/python -m pip install --quiet -r requirements-dev.txt
	.venv/lock/bin/python -m pip freeze --all --exclude pip | sed -E '/^(nvidia|cuda|triton)/d; s/\+.*//' > .venv/pins
	sed '/^[^#]/d' requirements.lock | cat - .venv/pins > .venv/requirements.lock
	mv .venv/requirements.lock requirements.lock
	rm -r .venv/lock .venv/pins

llama.cpp: .venv/ready
	python llama.cpp/build.py
