# What one does with this repository. Every target installs first what it needs and the machine lacks.
#
#   make demo     the whole thing on a throw-away PostgreSQL, in under three minutes
#   make test     every test, against real tools
#   make lint     what the compiler, the formatter and systemd have to say
#   make bench    what Backstop costs, beside its budgets
#   make deb      a Debian package in target/debian

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := test
.PHONY: setup demo test bench lint deb

setup:
	@scripts/setup

demo: setup
	@scripts/demo

test: setup
	@scripts/test

bench: setup
	@scripts/bench

lint: setup
	@scripts/lint

deb: setup
	@scripts/deb
