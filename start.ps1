# Starts the API with its dependencies:
#
#   ./start.ps1            starts containers if a Docker engine answers, else like --local
#   ./start.ps1 --local    starts local processes: .venv, provider, API, embedded Redis
#   ./start.ps1 stop       stops the processes and containers of this script; data is kept
#
# APP_PORT, PROVIDER_PORT and, for the Redis in a container, REDIS_PORT are the ports. ADMIN_API_KEY is the key
# for the admin endpoints. All of them come from the environment or .env. If there is no key, the script creates
# one and writes it to .env. The folder run/ has the ids and the logs of the local processes.
$ErrorActionPreference = 'Stop'
Set-Location $PSScriptRoot
. ./scripts/environment.ps1

$Run = 'run'
$LocalLimitSeconds = 60
$ContainerLimitSeconds = 120
$LogLines = 15

# ------------------------------------------------------------------ common functions

function Test-Port([int] $Port) {
    $client = New-Object System.Net.Sockets.TcpClient
    try {
        $client.Connect('127.0.0.1', $Port)
        return $true
    } catch {
        return $false
    } finally {
        $client.Dispose()
    }
}

function Assert-FreePort([int] $Port, [string] $Name) {
    if (Test-Port $Port) {
        throw "Another program uses port $Port. Stop that program, or set the variable $Name to another port."
    }
}

# Creates an admin key if no key is set. The last line with ADMIN_API_KEY in .env counts.
function Set-AdminKey {
    if (-not (Get-Setting 'ADMIN_API_KEY' '')) {
        $bytes = New-Object byte[] 24
        [Security.Cryptography.RandomNumberGenerator]::Create().GetBytes($bytes)
        $key = -join ($bytes | ForEach-Object { $_.ToString('x2') })
        $before = if (Test-Path .env) { [IO.File]::ReadAllText("$PSScriptRoot/.env") } else { '' }
        $separator = if ($before -and -not $before.EndsWith("`n")) { "`n" } else { '' }
        [IO.File]::AppendAllText("$PSScriptRoot/.env", "${separator}ADMIN_API_KEY=$key`n")
        Protect-File "$PSScriptRoot/.env"
        Write-Host 'Created an admin key and wrote it to .env'
    }
    $env:ADMIN_API_KEY = Get-Setting 'ADMIN_API_KEY' ''
}

# Returns the lines of .env; an empty line if there is no .env.
function Get-EnvFile {
    if (Test-Path .env) { Get-Content -Encoding UTF8 .env } else { '' }
}

# Removes the access of all users except the owner.
function Protect-File([string] $Path) {
    $user = [Security.Principal.WindowsIdentity]::GetCurrent().Name
    & icacls.exe $Path /inheritance:r /grant:r "${user}:F" | Out-Null
}

function Test-Healthy([int] $Port) {
    try {
        $answer = Invoke-WebRequest -UseBasicParsing -TimeoutSec 3 -Uri "http://127.0.0.1:$Port/health"
        return $answer.StatusCode -eq 200
    } catch {
        return $false
    }
}

function Write-Addresses {
    $api = "http://localhost:$AppPort"
    $now = (Get-Date).ToUniversalTime().ToString('yyyy-MM-ddTHH:mm:ssZ')
    $key = if ($EnvironmentKey) { 'the value of ADMIN_API_KEY' } else { Get-Setting 'ADMIN_API_KEY' 'none' }
    Write-Host @"

  Dashboard  $api/dashboard
  API        $api
  Docs       $api/docs and $api/redoc
  Provider   $script:Provider
  Redis      $script:Redis
  Admin key  $key

Try:
  Invoke-RestMethod -Method Post $api/api/metrics -ContentType application/json -Body '{"timestamp":"$now","value":42.5,"type":"cpu"}'
  Invoke-RestMethod '$api/api/metrics/summary?type=cpu&period=hourly'
  Invoke-RestMethod $api/api/circuit-breaker/status

./demo.ps1 runs a guided tour. ./start.ps1 stop stops all processes or containers.
"@
}

# ------------------------------------------------------------------ local processes

# Runs the command, with its output in run/NAME.log. run/NAME.pid has the process id and the start time, which
# distinguishes the process from a later one with the same id.
function Start-Part([string] $Name, [string[]] $Arguments) {
    $process = Start-Process -FilePath $VenvPython -ArgumentList $Arguments -WindowStyle Hidden -PassThru `
        -RedirectStandardOutput "$Run/$Name.log" -RedirectStandardError "$Run/$Name.err.log"
    "$($process.Id) $($process.StartTime.Ticks)" | Set-Content "$Run/$Name.pid"
}

# Returns the process; nothing if the process has ended.
function Get-Part([string] $Name) {
    if (-not (Test-Path "$Run/$Name.pid")) { return $null }
    $id, $started = (Get-Content "$Run/$Name.pid") -split ' '
    $process = Get-Process -Id $id -ErrorAction SilentlyContinue
    if ($process -and "$($process.StartTime.Ticks)" -eq $started) { return $process }
    return $null
}

# Waits until the process is healthy. If it does not become healthy, prints the end of its log and fails.
function Wait-Part([string] $Name, [int] $Port) {
    $deadline = (Get-Date).AddSeconds($LocalLimitSeconds)
    while (-not (Test-Healthy $Port)) {
        $reason = $null
        if (-not (Get-Part $Name)) { $reason = 'ended' }
        if ((Get-Date) -gt $deadline) { $reason = "is not healthy after $LocalLimitSeconds s" }
        if ($reason) {
            Get-Content "$Run/$Name.log", "$Run/$Name.err.log" -Tail $LogLines | Write-Host
            throw "The $Name $reason. Above is the end of $Run/$Name.log."
        }
        Start-Sleep -Milliseconds 200
    }
}

function Stop-Part([string] $Name) {
    $process = Get-Part $Name
    if ($process) {
        & taskkill.exe /PID $process.Id /T /F | Out-Null  # with its workers; Windows has no graceful stop
        $process.WaitForExit()
    }
    Remove-Item -Force -ErrorAction SilentlyContinue "$Run/$Name.pid"
}

function Start-Local {
    $script:Redis = if (Test-RedisSetting) { 'according to REDIS_URL or REDIS_HOST' } else { 'in the process of the API; data is not kept' }
    $script:Provider = Get-Setting 'EXTERNAL_SERVICE_URL' $Provider
    if ((Get-Part 'api') -and (Test-Healthy $AppPort)) {
        Write-Host 'Already running.'
        Write-Addresses
        return
    }
    Stop-Local
    Assert-FreePort $AppPort 'APP_PORT'
    Install-Venv 'requirements.txt'
    $before = @{
        ADMIN_API_KEY = $env:ADMIN_API_KEY; REDIS_URL = $env:REDIS_URL; EXTERNAL_SERVICE_URL = $env:EXTERNAL_SERVICE_URL
    }
    Set-AdminKey
    $running = $false
    try {
        if (-not (Get-Setting 'EXTERNAL_SERVICE_URL' '')) {
            Assert-FreePort $ProviderPort 'PROVIDER_PORT'
            $rate = Get-Setting 'EXTERNAL_SERVICE_FAILURE_RATE' '0.1'
            Write-Host 'Starting the provider'
            Start-Part 'provider' @('-m', 'src.provider', '--port', $ProviderPort, '--fail-chance', $rate)
            Wait-Part 'provider' $ProviderPort
            $env:EXTERNAL_SERVICE_URL = "http://127.0.0.1:$ProviderPort"
        }
        if (-not (Test-RedisSetting)) { $env:REDIS_URL = 'embedded://' }
        Write-Host 'Starting the API'
        Start-Part 'api' @('-m', 'src')
        Wait-Part 'api' $AppPort
        $running = $true
    } finally {
        $env:ADMIN_API_KEY = $before.ADMIN_API_KEY
        $env:REDIS_URL = $before.REDIS_URL
        $env:EXTERNAL_SERVICE_URL = $before.EXTERNAL_SERVICE_URL
        if (-not $running) { Stop-Local }
    }
    Write-Host "Running; logs in $Run/."
    Get-EnvFile | & $VenvPython -m src.config.unknown_settings | Write-Host
    Write-Addresses
}

# Returns whether a setting names a Redis. REDIS_HOST=localhost in .env does not count, because it is the value
# of a copied .env.example.
function Test-RedisSetting {
    return (Get-Setting 'REDIS_URL' '') -or $env:REDIS_HOST -or (Get-Setting 'REDIS_HOST' 'localhost') -ne 'localhost'
}

function Stop-Local {
    Stop-Part 'api'
    Stop-Part 'provider'
}

# ------------------------------------------------------------------ containers

function Get-UnhealthyService {
    foreach ($service in 'redis', 'provider', 'app') {
        $id = Invoke-Compose ps -q $service
        $health = if ($id) { & docker inspect --format '{{.State.Health.Status}}' $id }
        if ($health -ne 'healthy') { $service }
    }
}

# Sets the published port of Redis: the port of the running container, else REDIS_PORT, else the next free port.
function Set-RedisPort {
    $ErrorActionPreference = 'Continue'  # compose writes to stderr if no container runs
    $preferred = [int](Get-Setting 'REDIS_PORT' '6379')
    $published = Invoke-Compose port redis 6379 2>$null
    if ("$published" -match ':([1-9]\d*)$') {
        $port = [int]$Matches[1]
    } else {
        $port = $preferred
        while (Test-Port $port) { $port++ }
        if ($port -ne $preferred) {
            Write-Host "Another program uses port ${preferred}: Redis is published on port $port instead."
        }
    }
    $env:REDIS_PORT = $port
    $script:Redis = "localhost:$port"
}

function Start-Containers {
    $before = @{ ADMIN_API_KEY = $env:ADMIN_API_KEY; REDIS_PORT = $env:REDIS_PORT }
    try {
        Start-Services
    } finally {
        $env:ADMIN_API_KEY = $before.ADMIN_API_KEY
        $env:REDIS_PORT = $before.REDIS_PORT
    }
}

function Start-Services {
    Set-RedisPort
    if (-not (Get-UnhealthyService)) {
        Write-Host 'Already running.'
        Write-Addresses
        return
    }
    if (-not (Invoke-Compose ps -q)) {
        Assert-FreePort $AppPort 'APP_PORT'
        Assert-FreePort $ProviderPort 'PROVIDER_PORT'
    }
    Set-AdminKey
    New-Item -ItemType File -Force "$Run/containers" | Out-Null
    Invoke-Compose up -d --build
    $deadline = (Get-Date).AddSeconds($(if ($LASTEXITCODE -eq 0) { $ContainerLimitSeconds } else { 0 }))
    while ((Get-UnhealthyService) -and (Get-Date) -lt $deadline) { Start-Sleep 1 }
    foreach ($service in Get-UnhealthyService) {
        Invoke-Compose logs --tail $LogLines $service
        Stop-Containers
        throw "The service $service is not healthy. Above is the end of its log."
    }
    Write-Host 'Running in containers; logs: docker-compose logs.'
    # Prints the unknown names in .env. Compose passes only listed names to the container.
    Get-EnvFile | Invoke-Compose exec -T app python -m src.config.unknown_settings | Write-Host
    Write-Addresses
}

function Stop-Containers {
    Invoke-Compose down
    Remove-Item -Force "$Run/containers"
}

# ------------------------------------------------------------------ main program

function Stop-All {
    if (-not (Test-Path "$Run/api.pid", "$Run/provider.pid", "$Run/containers" | Where-Object { $_ })) {
        Write-Host 'Nothing to stop.'
        return
    }
    Stop-Local
    if (Test-Path "$Run/containers") { Stop-Containers }
    Write-Host 'Stopped; data is kept.'
}

$AppPort = Get-Setting 'APP_PORT' '8000'
$ProviderPort = Get-Setting 'PROVIDER_PORT' '9000'
$Provider = "http://localhost:$ProviderPort, the simulated external service"
$EnvironmentKey = $env:ADMIN_API_KEY  # not shown, since it may be a secret
New-Item -ItemType Directory -Force $Run | Out-Null
switch ("$args") {
    '' { if ((Get-Part 'api') -or -not (Test-Containers)) { Start-Local } else { Start-Containers } }
    '--local' { Start-Local }
    'stop' { Stop-All }
    default { throw 'usage: ./start.ps1 [--local | stop]' }
}
