# Functions for the other scripts: settings, the Python environment, containers. Other scripts dot-source this file.

$Venv = if ($env:VENV) { $env:VENV } else { '.venv' }
$VenvPython = Join-Path $Venv 'Scripts/python.exe'

# Returns the value from the environment, else from .env, else the default. An empty value counts as unset.
function Get-Setting([string] $Name, [string] $Default) {
    $value = [Environment]::GetEnvironmentVariable($Name)
    if (-not $value -and (Test-Path .env)) {
        $lines = Select-String -Path .env -Pattern "^\uFEFF?\s*(?:export\s+)?$Name\s*=\s*(.*?)(?:\s+#.*)?$"
        if ($lines) { $value = @($lines)[-1].Matches[0].Groups[1].Value.Trim().Trim("'", '"') }
    }
    if ($value) { return $value } else { return $Default }
}

# Returns whether a program succeeds, and drops its output.
function Test-Quietly([scriptblock] $Program) {
    $ErrorActionPreference = 'Continue'  # Windows PowerShell 5 treats any output on stderr as an error
    & $Program 2>&1 | Out-Null
    return $LASTEXITCODE -eq 0
}

function Test-NewEnough([string] $Name) {
    if (-not (Get-Command $Name -ErrorAction SilentlyContinue)) { return $false }
    return Test-Quietly { & $Name -c 'import sys; sys.exit(sys.version_info < (3, 11))' }
}

# Returns the first command that runs Python >= 3.11. Each command is run, because Windows has a python.exe that
# only opens its store.
function Find-Python {
    $candidates = @($env:PYTHON, 'python3.14', 'python3.13', 'python3.12', 'python3.11', 'python3', 'python') | Where-Object { $_ }
    foreach ($name in $candidates) {
        if (Test-NewEnough $name) { return $name }
    }
    throw 'No Python >= 3.11 on PATH (tried python3.14 to python3.11, python3, python).'
}

# Installs exactly the pinned requirements into the environment, unless an earlier run did.
function Install-Venv([string] $Requirements) {
    $stamp = Join-Path $Venv "installed-$Requirements"
    if (-not (Test-NewEnough $VenvPython) -or -not (Test-Quietly { & $VenvPython -m pip --version })) {
        $python = Find-Python
        Write-Host "Making $Venv with $(& $python --version)"
        & $python -m venv --clear $Venv
        if ($LASTEXITCODE -ne 0) { throw "$python cannot make a virtual environment." }
    }
    $pins = (Get-Content -Raw requirements-installer.txt) + (Get-Content -Raw $Requirements)
    if (-not (Test-Path $stamp) -or (Get-Content -Raw $stamp) -ne $pins) {
        Remove-Item (Join-Path $Venv 'installed-*')
        & $VenvPython scripts/install.py $Requirements
        if ($LASTEXITCODE -ne 0) { throw "$Requirements could not be installed." }
        Set-Content -NoNewline $stamp $pins
    }
}

function Test-Containers {
    if (-not (Get-Command docker -ErrorAction SilentlyContinue)) { return $false }
    return Test-Quietly { docker info }
}

function Invoke-Compose {
    if (Test-Quietly { docker compose version }) { $input | & docker compose @args } else { $input | & docker-compose @args }
}
