# A guided tour of a running API (./start.ps1). Each step checks its result. The tour ends at the first failure.
#
#   ./demo.ps1 [--no-pause] [--base-url URL]
#
# BASE_URL is the URL of the API (default http://localhost:8000). The tour makes the external service fail, which
# needs admin rights: by ADMIN_API_KEY from the environment or .env, else by a direct call from this machine, else
# by a call from inside the app's container. The tour takes about a minute, mostly to wait for the breaker, and
# can be repeated.
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

# ------------------------------------------------------------------ requests and checks

$Answer = New-Item -ItemType Directory -Path ([IO.Path]::GetTempPath()) -Name ([IO.Path]::GetRandomFileName())

# Sends and prints a request. $Status, $Headers, $Text and $Json then have the answer.
function Invoke-Step([string] $Method, [string] $Path, [string] $Body = '', [string[]] $Headers = @()) {
    Write-Host "-> $Method $Path $Body" -ForegroundColor White
    Send-Request $Method $Path $Body $Headers
    Show-Answer
}

# The environment's proxies are ignored. The body is passed in a file, because Windows PowerShell 5 drops quotes in
# the arguments of native programs.
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

function Assert-Value([string] $Name, $Actual, $Expected) {
    if ("$Actual" -ne "$Expected") { Stop-Tour "$Name is '$Actual', expected $Expected" }
    Write-Host "  ok: $Name is $Actual" -ForegroundColor Green
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

# ------------------------------------------------------------------ requests of an admin

# Sends a request from here. If it is rejected, sends it from inside the container.
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
    $output = "$Method`n$Path`n$Body`n" | Invoke-Compose exec -T app python -c $program
    if ($LASTEXITCODE -ne 0) { Stop-Tour "The API rejected an admin call ($refusal). Set ADMIN_API_KEY to the admin key of the API." }
    $script:Status = "$output".Trim()
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

# If an earlier tour has used up the quota, waits and sends the request again.
function Invoke-Ingest([string] $Path, [string] $Body) {
    Invoke-Step POST "/api/metrics$Path" $Body
    if ($Status -eq '429') {
        Wait-Seconds (Get-Header 'Retry-After') 'The quota is used up and available again soon'
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

$originalRate = $null
try {
    Write-Step '1. Health' 'The API answers, and is connected to Redis.'
    Invoke-Step GET '/health'
    Assert-Value 'status' $Status 200
    Assert-Value 'redis_connected' $Json.redis_connected $true

    Write-Step '2. A clean start' 'The tour makes the external service work without faults, and closes its circuit breaker.'
    Send-Request GET '/api/admin/external-service/failure-rate'
    Assert-Value 'status' $Status 200
    $originalRate = $Json.failure_rate
    Set-FailureRate 0
    Invoke-Admin POST '/api/admin/circuit-breaker/close'
    Get-Breaker
    Assert-Value 'state' $Json.state 'CLOSED'

    Write-Step '3. Ingest' 'One point, then a batch of three points, which counts as one request to the rate limiter.'
    Invoke-Ingest '' (New-Point 10)
    Invoke-Ingest '/batch' "[$(New-Point 20),$(New-Point 30),$(New-Point 40)]"
    Assert-Value 'accepted' $Json.accepted 3

    Write-Step '4. Summary: computed, then cached' 'The first read computes the summary and calls the external service. The second read gets the cached summary.'
    Get-Summary $Type
    Assert-Value 'status' $Status 200
    Assert-Value 'X-Cache' (Get-Header 'X-Cache') 'MISS'
    Assert-Value 'count' $Json.count 4
    Assert-Value 'average_value' $Json.average_value 25
    Get-Summary $Type
    Assert-Value 'X-Cache' (Get-Header 'X-Cache') 'HIT'

    Write-Step '5. Rate limit' 'The tour sends points until the quota is used up. The answer is then 429, with Retry-After.'
    Invoke-Step POST '/api/metrics' (New-Point 50)
    $quota = [int][regex]::Match((Get-Header 'RateLimit-Policy'), 'q=(\d+)').Groups[1].Value
    if ($quota -gt 1000) { Stop-Tour "the quota of $quota is too large for the tour; set a lower RATE_LIMIT_REQUESTS" }
    for ($sent = 1; $sent -le $quota -and $Status -ne '429'; $sent++) {
        Send-Request POST '/api/metrics' (New-Point 50)
        Write-Host "  POST /api/metrics -> $Status, RateLimit: $(Get-Header 'RateLimit')"
    }
    Show-Answer
    Assert-Value 'status' $Status 429
    Assert-Value 'code' $Json.code 'RATE_LIMIT_EXCEEDED'
    if ([int](Get-Header 'Retry-After') -lt 1) { Stop-Tour 'Retry-After is less than 1' }

    Write-Step '6. Circuit breaker: CLOSED -> OPEN' 'Every call of the external service now fails. Clients get the last good summary, marked as stale.'
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

    Write-Step '7. Fallback' 'While the breaker is OPEN, the service is not called, and clients get the last good summary at once. For a type without an earlier summary, the answer is 503.'
    Get-Summary $Type @('Cache-Control: no-cache')
    Assert-Value 'X-Cache' (Get-Header 'X-Cache') 'STALE'
    Get-Summary "$Type.unknown"
    Assert-Value 'status' $Status 503
    Assert-Value 'code' $Json.code 'CIRCUIT_OPEN'

    Write-Step '8. Recovery: OPEN -> HALF_OPEN -> CLOSED' 'The external service works again. After the open time the breaker admits one probe, whose success closes the breaker.'
    Set-FailureRate 0
    Send-Request GET '/api/circuit-breaker/status'
    Wait-Seconds ([Math]::Floor($Json.retry_after) + 1) 'The breaker admits a probe soon'
    Get-Summary $Type @('Cache-Control: no-cache')
    Assert-Value 'status' $Status 200
    Assert-Value 'X-Cache' (Get-Header 'X-Cache') 'MISS'
    Assert-Value 'degraded' $Json.degraded $false
    Get-Breaker
    Assert-Value 'state' $Json.state 'CLOSED'
    $last = ($Json.transitions | Select-Object -Last 2 | ForEach-Object { "$($_.before) $($_.after)" }) -join ', '
    Assert-Value 'the last transitions' $last 'OPEN HALF_OPEN, HALF_OPEN CLOSED'

    Write-Host "`nAll steps succeeded." -ForegroundColor Green
} finally {
    if ($null -ne $originalRate) { Set-FailureRate $originalRate | Out-Null }
    Remove-Item -Recurse -Force $Answer
}
