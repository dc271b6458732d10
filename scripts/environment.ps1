# What the scripts share: settings, the Python environment, containers. To be dot-sourced.

$Venv = if ($env:VENV) { $env:VENV } else { '.venv' }
$VenvPython = Join-Path $Venv 'Scripts/python.exe'

# The environment's value, or that of .env, or else the default. Empty counts as unset.
function Get-Setting([string] $Name, [string] $Default) {
    $value = [Environment]::GetEnvironmentVariable($Name)
    if (-not $value -and (Test-Path .env)) {
        $lines = Select-String -Path .env -Pattern "^\uFEFF?\s*(?:export\s+)?$Name\s*=\s*(.*?)(?:\s+#.*)?$"
        if ($lines) { $value = @($lines)[-1].Matches[0].Groups[1].Value.Trim().Trim("'", '"') }
    }
    if ($value) { return $value } else { return $Default }
}

# Whether a program succeeds, whatever it says.
function Test-Quietly([scriptblock] $Program) {
    $ErrorActionPreference = 'Continue'  # Windows PowerShell 5 takes any word on stderr for an error
    & $Program 2>&1 | Out-Null
    return $LASTEXITCODE -eq 0
}

function Test-NewEnough([string] $Name) {
    if (-not (Get-Command $Name -ErrorAction SilentlyContinue)) { return $false }
    return Test-Quietly { & $Name -c 'import sys; sys.exit(sys.version_info < (3, 11))' }
}

# The first Python >= 3.11. Each is tried, not only looked for: Windows has a python.exe that opens its shop.
function Find-Python {
    $candidates = @($env:PYTHON, 'python3.14', 'python3.13', 'python3.12', 'python3.11', 'python3', 'python') | Where-Object { $_ }
    foreach ($name in $candidates) {
        if (Test-NewEnough $name) { return $name }
    }
    throw 'No Python >= 3.11 on PATH (tried python3.14 to python3.11, python3, python).'
}

# The environment with exactly the pinned requirements in it, and nothing to do if an earlier run did the same.
function Install-Venv([string] $Requirements) {
    $stamp = Join-Path $Venv "installed-$Requirements"
    if (-not (Test-NewEnough $VenvPython) -or -not (Test-Quietly { & $VenvPython -m pip --version })) {
        $python = Find-Python
        Write-Host "Making $Venv with $(& $python --version)"
        & $python -m venv --clear $Venv
        if ($LASTEXITCODE -ne 0) { throw "$python cannot make a virtual environment." }
    }
    $wanted = (Get-Content -Raw requirements-installer.txt) + (Get-Content -Raw $Requirements)
    if (-not (Test-Path $stamp) -or (Get-Content -Raw $stamp) -ne $wanted) {
        Remove-Item (Join-Path $Venv 'installed-*')
        & $VenvPython scripts/install.py $Requirements
        if ($LASTEXITCODE -ne 0) { throw "$Requirements could not be installed." }
        Set-Content -NoNewline $stamp $wanted
    }
}

function Test-Containers {
    if (-not (Get-Command docker -ErrorAction SilentlyContinue)) { return $false }
    return Test-Quietly { docker info }
}

function Invoke-Compose {
    if (Test-Quietly { docker compose version }) { $input | & docker compose @args } else { $input | & docker-compose @args }
}
