#!/bin/sh
# What `make conformance` calls.
cd "$(dirname "$0")/../.." && exec .venv/bin/python -m tests.conformance.run "$@"
