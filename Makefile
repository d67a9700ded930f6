# The front door.  `make demo` and `make test` need only Python 3.11+, git and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := dbus firewalld groff-base iproute2 iptables libsasl2-modules libsasl2-modules-db netbase nftables openssh-client \
	openssh-server openssl postfix rbldnsd rsyslog sasl2-bin ufw unbound util-linux

export PYTHON

.PHONY: help demo test check bench docs lock clean

help:
	@echo "make demo    watch a bad client being counted, verified, banned and dropped, in a private network namespace"
	@echo "make test    run all tests (as root against real Postfix, sshd, rbldnsd and the kernel)"
	@echo "make check   ruff, mypy --strict, import-linter, links in the documentation"
	@echo "make bench   measure beside nft(8), in a private network namespace (as root; some minutes)"
	@echo "make docs    print docs/configuration.md and rules/nftban.nft from the code"
	@echo "make lock    renew the locked dependencies"

$(VENV)/.runtime: requirements.lock pyproject.toml
	@contrib/make/environment.sh $(VENV) requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml
	@contrib/make/environment.sh $(VENV) requirements-dev.lock
	@touch $@ $(VENV)/.runtime

demo: $(VENV)/.runtime
	@$(BIN)/python -m demo

test: $(VENV)/.dev
	@contrib/make/apt-install.sh $(PACKAGES) || { [ $$? -eq 77 ] && echo "the tests that need them are skipped"; }
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --skip-covered --skip-empty

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python contrib/make/links.py README.md docs

bench: $(VENV)/.dev
	@$(BIN)/python -m bench

docs: $(VENV)/.dev
	$(BIN)/python contrib/make/configuration.py > docs/configuration.md
	$(BIN)/nftban ruleset > rules/nftban.nft

lock:
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url \
		--no-emit-find-links --extra build -o requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url \
		--no-emit-find-links --extra build --extra dev -o requirements-dev.lock pyproject.toml

clean:
	rm -rf $(VENV) .coverage .coverage.* htmlcov build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
