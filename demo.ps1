# A guided tour against a running API (./start.ps1). Every step is asserted; the first that fails ends the tour.
#
#   ./demo.ps1 [--no-pause] [--base-url URL]
#
# BASE_URL (http://localhost:8000) says where the API is. The tour makes the external service fail, which takes
# an admin: ADMIN_API_KEY from the environment or .env, else a direct call from this machine, else one from
# inside the app's container. Takes about a minute, most of it waiting for the breaker; can be run again.
$ErrorActionPreference = 'Stop'
Set-Location $PSScriptRoot
. ./scripts/environment.ps1

$Pause = -not [Console]::IsInputRedirected
$BaseUrl = $env:BASE_URL
for ($i = 0; $i -lt $args.Count; $i++) {
    switch ($args[$i]) {
        '--no-pause' { $Pause = $false }
        '--base-url' { $i++; $BaseUrl = $args[$i] }
        default { throw 'usage: ./demo.ps1 [--no-pause] [--base-url URL]' }
    }
}
if (-not $BaseUrl) { $BaseUrl = "http://localhost:$(Get-Setting 'APP_PORT' '8000')" }
$BaseUrl = $BaseUrl.TrimEnd('/')
$AdminKey = Get-Setting 'ADMIN_API_KEY' ''
if (-not (Get-Command curl.exe -ErrorAction SilentlyContinue)) { throw 'The tour needs curl.exe, which is not installed.' }

# ------------------------------------------------------------------ asking and asserting

$Answer = New-Item -ItemType Directory -Path ([IO.Path]::GetTempPath()) -Name ([IO.Path]::GetRandomFileName())

# Sends it, shows it, and leaves the answer in $Status, $Headers, $Text and $Json.
function Invoke-Step([string] $Method, [string] $Path, [string] $Body = '', [string[]] $Headers = @()) {
    Write-Host "-> $Method $Path $Body" -ForegroundColor White
    Send-Request $Method $Path $Body $Headers
    Show-Answer
}

# It calls $BaseUrl itself, whatever proxy the environment names. The body goes by way of a file: Windows PowerShell 5 drops the quotes of a native program's arguments.
function Send-Request([string] $Method, [string] $Path, [string] $Body = '', [string[]] $Headers = @()) {
    [IO.File]::WriteAllText("$Answer/request", $Body)
    $options = @('-sS', '--noproxy', '*', '--max-time', '60', '-X', $Method, "$BaseUrl$Path", '-D', "$Answer/headers",
        '-o', "$Answer/body", '-w', '%{http_code}')
    foreach ($line in $Headers) { $options += @('-H', $line) }
    if ($Body) { $options += @('-H', 'Content-Type: application/json', '--data-binary', "@$Answer/request") }
    $script:Status = & curl.exe @options
    if ($LASTEXITCODE -ne 0) { Stop-Tour "$BaseUrl does not answer. Is the API running? ./start.ps1" }
    $script:Text = [IO.File]::ReadAllText("$Answer/body")
    $script:Json = $Text | ConvertFrom-Json
    $script:Headers = Get-Content "$Answer/headers"
}

function Show-Answer {
    Write-Host "<- $Status" -ForegroundColor White
    $Headers | Select-String '^(x-cache|age|retry-after|ratelimit):' | ForEach-Object { Write-Host "  $_" }
    Write-Host "  $($Text.Substring(0, [Math]::Min(600, $Text.Length)))`n"
}

function Get-Header([string] $Name) {
    $line = $Headers | Select-String "^${Name}:\s*(.*?)\s*$" | Select-Object -First 1
    if ($line) { return $line.Matches[0].Groups[1].Value }
}

function Assert-Value([string] $What, $Actual, $Wanted) {
    if ("$Actual" -ne "$Wanted") { Stop-Tour "$What is '$Actual', wanted $Wanted" }
    Write-Host "  ok: $What is $Actual" -ForegroundColor Green
}

function Stop-Tour([string] $Reason) {
    throw "failed: $Reason"
}

function Write-Step([string] $Title, [string] $Meaning) {
    Write-Host "`n== $Title`n$Meaning" -ForegroundColor White
    if ($Pause) { Read-Host '   [Enter]' | Out-Null }
}

function Wait-Seconds([int] $Seconds, [string] $What) {
    for ($left = $Seconds; $left -gt 0; $left--) {
        Write-Progress -Activity $What -Status "$left s"
        Start-Sleep 1
    }
    Write-Progress -Activity $What -Completed
}

# ------------------------------------------------------------------ what an admin does

# From here, or where only the container's own loopback may, from inside it.
function Invoke-Admin([string] $Method, [string] $Path, [string] $Body = '') {
    Write-Host "-> $Method $Path $Body" -ForegroundColor White
    $key = if ($AdminKey) { @("X-API-Key: $AdminKey") } else { @() }
    Send-Request $Method $Path $Body $key
    if ($Status -in '401', '403') { Send-FromContainer $Method $Path $Body }
    Show-Answer
    Assert-Value 'status' $Status 200
}

function Send-FromContainer([string] $Method, [string] $Path, [string] $Body) {
    $refusal = $Json.message
    $program = @'
import os, sys, urllib.error, urllib.request
method, path, body = sys.stdin.read().splitlines()[:3]
headers = {'Content-Type': 'application/json', 'X-API-Key': os.environ.get('ADMIN_API_KEY', '')}
request = urllib.request.Request('http://127.0.0.1:8000' + path, body.encode(), headers, method=method)
try:
    without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    print(without_proxy.open(request).status)
except urllib.error.HTTPError as error:
    print(error.code)
'@
    $said = "$Method`n$Path`n$Body`n" | Invoke-Compose exec -T app python -c $program
    if ($LASTEXITCODE -ne 0) { Stop-Tour "The API refused an admin call ($refusal). Set ADMIN_API_KEY to the key that the API has." }
    $script:Status = "$said".Trim()
    $script:Text = '(called from inside the container)'
}

function Set-FailureRate([double] $Rate) {
    $text = $Rate.ToString([Globalization.CultureInfo]::InvariantCulture)
    Invoke-Admin PUT '/api/admin/external-service/failure-rate' "{`"failure_rate`":$text}"
}

# ------------------------------------------------------------------ the tour

$Type = "demo.$([DateTimeOffset]::UtcNow.ToUnixTimeSeconds()).$PID"

function New-Point([int] $Value) {
    $now = (Get-Date).ToUniversalTime().ToString('yyyy-MM-ddTHH:mm:ssZ')
    return "{`"timestamp`":`"$now`",`"value`":$Value,`"type`":`"$Type`"}"
}

# Waits where an earlier tour has used up the quota.
function Invoke-Ingest([string] $Path, [string] $Body) {
    Invoke-Step POST "/api/metrics$Path" $Body
    if ($Status -eq '429') {
        Wait-Seconds (Get-Header 'Retry-After') 'The quota is used up; room again soon'
        Invoke-Step POST "/api/metrics$Path" $Body
    }
    Assert-Value 'status' $Status 201
}

function Get-Summary([string] $Of, [string[]] $With = @()) {
    Invoke-Step GET "/api/metrics/summary?type=$Of&period=all" '' $With
}

function Get-Breaker {
    Invoke-Step GET '/api/circuit-breaker/status'
    Assert-Value 'status' $Status 200
}

$rateFound = $null
try {
    Write-Step '1. Health' 'The API answers, and Redis answers it.'
    Invoke-Step GET '/health'
    Assert-Value 'status' $Status 200
    Assert-Value 'redis_connected' $Json.redis_connected $true

    Write-Step '2. A clean start' 'The external service shall not fail for now, and its circuit breaker is closed.'
    Send-Request GET '/api/admin/external-service/failure-rate'
    Assert-Value 'status' $Status 200
    $rateFound = $Json.failure_rate
    Set-FailureRate 0
    Invoke-Admin POST '/api/admin/circuit-breaker/close'
    Get-Breaker
    Assert-Value 'state' $Json.state 'CLOSED'

    Write-Step '3. Ingest' 'One point, then three at once: a batch counts as one request to the limiter.'
    Invoke-Ingest '' (New-Point 10)
    Invoke-Ingest '/batch' "[$(New-Point 20),$(New-Point 30),$(New-Point 40)]"
    Assert-Value 'accepted' $Json.accepted 3

    Write-Step '4. Summary: computed, then cached' 'The first read computes and asks the external service; the second costs neither.'
    Get-Summary $Type
    Assert-Value 'status' $Status 200
    Assert-Value 'X-Cache' (Get-Header 'X-Cache') 'MISS'
    Assert-Value 'count' $Json.count 4
    Assert-Value 'average_value' $Json.average_value 25
    Get-Summary $Type
    Assert-Value 'X-Cache' (Get-Header 'X-Cache') 'HIT'

    Write-Step '5. Rate limit' 'Ingesting until the quota is spent: then 429, and Retry-After says when to come back.'
    Invoke-Step POST '/api/metrics' (New-Point 50)
    $quota = [int][regex]::Match((Get-Header 'RateLimit-Policy'), 'q=(\d+)').Groups[1].Value
    if ($quota -gt 1000) { Stop-Tour "the quota is ${quota}: too much for a tour to spend; set RATE_LIMIT_REQUESTS lower" }
    for ($sent = 1; $sent -le $quota -and $Status -ne '429'; $sent++) {
        Send-Request POST '/api/metrics' (New-Point 50)
        Write-Host "  POST /api/metrics -> $Status, RateLimit: $(Get-Header 'RateLimit')"
    }
    Show-Answer
    Assert-Value 'status' $Status 429
    Assert-Value 'code' $Json.code 'RATE_LIMIT_EXCEEDED'
    if ([int](Get-Header 'Retry-After') -lt 1) { Stop-Tour 'Retry-After is less than 1' }

    Write-Step '6. Circuit breaker: CLOSED -> OPEN' 'The external service now fails every call. Readers get the last good summary, marked as stale.'
    Set-FailureRate 1
    for ($reads = 1; $reads -le 50; $reads++) {
        Get-Summary $Type @('Cache-Control: no-cache')
        Assert-Value 'status' $Status 200
        Assert-Value 'X-Cache' (Get-Header 'X-Cache') 'STALE'
        Assert-Value 'degraded' $Json.degraded $true
        Send-Request GET '/api/circuit-breaker/status'
        if ($Json.state -ne 'CLOSED') { break }
        Write-Host "  the breaker has counted $($Json.failure_count) failures`n"
    }
    Get-Breaker
    Assert-Value 'state' $Json.state 'OPEN'

    Write-Step '7. Fallback' 'OPEN: nobody waits for a service that is down. A type never summed up has nothing to fall back on.'
    Get-Summary $Type @('Cache-Control: no-cache')
    Assert-Value 'X-Cache' (Get-Header 'X-Cache') 'STALE'
    Get-Summary "$Type.unknown"
    Assert-Value 'status' $Status 503
    Assert-Value 'code' $Json.code 'CIRCUIT_OPEN'

    Write-Step '8. Recovery: OPEN -> HALF_OPEN -> CLOSED' 'The external service is well again. When the time is up one call probes it, and its success closes the breaker.'
    Set-FailureRate 0
    Send-Request GET '/api/circuit-breaker/status'
    Wait-Seconds ([Math]::Floor($Json.retry_after) + 1) 'A probe is let through soon'
    Get-Summary $Type @('Cache-Control: no-cache')
    Assert-Value 'status' $Status 200
    Assert-Value 'X-Cache' (Get-Header 'X-Cache') 'MISS'
    Assert-Value 'degraded' $Json.degraded $false
    Get-Breaker
    Assert-Value 'state' $Json.state 'CLOSED'
    $way = ($Json.transitions | Select-Object -Last 2 | ForEach-Object { "$($_.before) $($_.after)" }) -join ', '
    Assert-Value 'its way' $way 'OPEN HALF_OPEN, HALF_OPEN CLOSED'

    Write-Host "`nEvery step passed." -ForegroundColor Green
} finally {
    if ($null -ne $rateFound) { Set-FailureRate $rateFound | Out-Null }
    Remove-Item -Recurse -Force $Answer
}
