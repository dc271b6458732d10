#!/usr/bin/env bash
# Runs the whole test suite. Needs nothing but Python >= 3.11; arguments go to pytest:
#
#   ./test.sh                         everything but the tests below
#   ./test.sh --cov=src tests/unit    as pytest would take it
#   RUN_COMPOSE_TESTS=1 ./test.sh     the tests that build and drive the containers as well
#   RUN_INSTALL_TESTS=1 ./test.sh     the tests that install from a package registry as well
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. scripts/environment.sh

make_venv requirements-dev.txt
exec "$VENV/bin/python" -m pytest "$@"
