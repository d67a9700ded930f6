# The front door.  `make demo` and `make test` need only Python 3.11+, git and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := chromium dbus dovecot-imapd firewalld fish zsh groff-base iproute2 iptables libsasl2-modules libsasl2-modules-db netbase \
	nftables nginx nsd openssh-client openssh-server openssl postfix prometheus prometheus-node-exporter \
	python3-spf rbldnsd rsync rsyslog sasl2-bin \
	systemd systemd-journal-remote ufw unbound util-linux

export PYTHON

.PHONY: help demo test torture agree check bench judge docs lock deb package-test clean

help:
	@echo "make demo    watch a bad client being counted, verified, banned and dropped, in a private network namespace"
	@echo "make test    run all tests (as root against real Postfix, sshd, rbldnsd and the kernel)"
	@echo "make torture kill, rotate, flush, fill disks, put clocks: 500 rounds beside a model (TORTURE_SECONDS, as root)"
	@echo "make agree   fail2ban's own library and ours on 1,000,000 generated lines (minutes)"
	@echo "make check   ruff, mypy --strict, import-linter, links in the documentation"
	@echo "make bench   measure beside nft(8), in a private network namespace (as root; some minutes)"
	@echo "make judge   nftban, fail2ban, CrowdSec and baselines on simulated traffic; renews docs/judgement.md (ten minutes)"
	@echo "make docs    print docs/configuration.md and rules/nftban.nft from the code"
	@echo "make deb     build the Debian package into dist/, for this machine's Debian and architecture"
	@echo "make package-test  install, run, reboot and purge it in a Debian of its own (as root; two minutes)"
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
	@contrib/make/tests.sh $(BIN)/python
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --skip-covered --skip-empty

torture: $(VENV)/.dev
	@contrib/make/apt-install.sh iproute2 nftables util-linux || [ $$? -eq 77 ]
	$(BIN)/python -m torture --seconds $${TORTURE_SECONDS:-1800}

agree: $(VENV)/.dev
	NFTBAN_AGREEMENT_LINES=1000000 $(BIN)/python -m pytest tests/corpus/test_agreement.py

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python contrib/make/links.py README.md docs

bench: $(VENV)/.dev
	@contrib/make/apt-install.sh fail2ban iproute2 nftables rbldnsd sshguard unbound || [ $$? -eq 77 ]
	@$(BIN)/python -c 'from pathlib import Path; from traffic.packages import unpacked; \
		unpacked("crowdsec", Path("build/judge"))'
	@$(BIN)/python -m bench

judge: $(VENV)/.dev
	@$(BIN)/python -m traffic judge --docs docs

docs: $(VENV)/.dev
	$(BIN)/python contrib/make/configuration.py > docs/configuration.md
	$(BIN)/nftban ruleset > rules/nftban.nft

deb: $(VENV)/.runtime
	@PYTHONPATH=contrib $(BIN)/python -m debian dist

package-test: $(VENV)/.dev
	@contrib/make/apt-install.sh debootstrap systemd-container
	$(BIN)/python -m pytest -m package tests/package

lock:
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url \
		--no-emit-find-links --extra build -o requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url \
		--no-emit-find-links --extra build --extra dev -o requirements-dev.lock pyproject.toml

clean:
	rm -rf $(VENV) .coverage .coverage.* htmlcov build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
