#!/usr/bin/env bash
# Runs the test suite. It needs only Python >= 3.11. Arguments are passed to pytest:
#
#   ./test.sh                         runs all tests except those below
#   ./test.sh --cov=src tests/unit    passes arguments to pytest
#   RUN_COMPOSE_TESTS=1 ./test.sh     also runs the tests with containers
#   RUN_INSTALL_TESTS=1 ./test.sh     also runs the tests that install from a package registry
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. scripts/environment.sh

make_venv requirements-dev.txt
exec "$VENV/bin/python" -m pytest "$@"
