# Runs the whole test suite. Needs nothing but Python >= 3.11; arguments go to pytest:
#
#   ./test.ps1                         everything but the tests below
#   ./test.ps1 --cov=src tests/unit    as pytest would take it
#
# With the environment variable RUN_COMPOSE_TESTS=1 the tests that build and drive the containers run as well, with
# RUN_INSTALL_TESTS=1 those that install from a package registry.
$ErrorActionPreference = 'Stop'
Set-Location $PSScriptRoot
. ./scripts/environment.ps1

Install-Venv 'requirements-dev.txt'
& $VenvPython -m pytest @args
exit $LASTEXITCODE
