#!/usr/bin/env bash
# A guided tour of a running API (./start.sh). Each step checks its result. The tour ends at the first failure.
#
#   ./demo.sh [--no-pause] [--base-url URL]
#
# BASE_URL is the URL of the API (default http://localhost:8000). The tour makes the external service fail, which
# needs admin rights: by ADMIN_API_KEY from the environment or .env, else by a direct call from this machine, else
# by a call from inside the app's container. The tour takes about a minute, mostly to wait for the breaker, and
# can be repeated.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. scripts/environment.sh

PAUSE=yes
[ -t 0 ] || PAUSE=no
while [ $# -gt 0 ]; do
  case $1 in
    --no-pause) PAUSE=no ;;
    --base-url) BASE_URL=${2:?--base-url needs a URL} && shift ;;
    --base-url=*) BASE_URL=${1#*=} ;;
    *) echo "usage: ./demo.sh [--no-pause] [--base-url URL]" >&2 && exit 2 ;;
  esac
  shift
done
BASE_URL=${BASE_URL:-http://localhost:$(setting APP_PORT 8000)}
BASE_URL=${BASE_URL%/}
ADMIN_API_KEY=$(setting ADMIN_API_KEY "")

command -v curl >/dev/null || { echo "The tour needs curl, which is not installed." >&2 && exit 1; }

# ------------------------------------------------------------------ requests and checks

ANSWER=$(mktemp -d)
BOLD='' DIM='' GREEN='' RED='' PLAIN=''
if [ -t 1 ]; then BOLD=$'\e[1m' DIM=$'\e[2m' GREEN=$'\e[32m' RED=$'\e[31m' PLAIN=$'\e[0m'; fi

# request METHOD PATH [curl options]: sends and prints a request. STATUS and $ANSWER then have the answer.
request() {
  local method=$1 path=$2
  shift 2
  printf '%s→ %s %s%s\n' "$BOLD" "$method" "$path" "$PLAIN"
  send "$method" "$path" "$@"
  show_answer
}

# It calls BASE_URL itself, whatever proxy the environment names.
send() {
  local method=$1 path=$2
  shift 2
  STATUS=$(curl -sS --noproxy '*' --max-time 60 -X "$method" "$BASE_URL$path" -D "$ANSWER/headers" -o "$ANSWER/body" \
    -w '%{http_code}' "$@") || failed "$BASE_URL does not answer. Is the API running? ./start.sh"
}

show_answer() {
  printf '%s← %s%s\n' "$BOLD" "$STATUS" "$PLAIN"
  { grep -iE '^(x-cache|age|retry-after|ratelimit):' "$ANSWER/headers" || true; } | tr -d '\r' |
    sed "s/^/  $DIM/; s/\$/$PLAIN/"
  sed 's/^/  /' "$ANSWER/body" | cut -c 1-600
  echo
}

# field NAME: prints the first member of that name in the answer's JSON, without quotes.
field() {
  { grep -oE "\"$1\": *(\"[^\"]*\"|[^],}]*)" "$ANSWER/body" || true; } | head -n 1 |
    sed -e 's/^"[^"]*": *//' -e 's/^"\(.*\)"$/\1/'
}

header() {
  { grep -i "^$1:" "$ANSWER/headers" || true; } | head -n 1 | sed 's/^[^:]*: *//' | tr -d '\r'
}

# expect NAME ACTUAL EXPECTED: EXPECTED may be several values, separated by |.
expect() {
  case "|$3|" in
    *"|$2|"*) printf '%s  ✓ %s is %s%s\n' "$GREEN" "$1" "$2" "$PLAIN" ;;
    *) failed "$1 is '$2', expected $3" ;;
  esac
}

failed() {
  printf '%s  ✗ %s%s\n' "$RED" "$1" "$PLAIN" >&2
  exit 1
}

step() {
  printf '\n%s== %s%s\n%s\n' "$BOLD" "$1" "$PLAIN" "$2"
  if [ "$PAUSE" = yes ]; then read -r -s -p "   [Enter] " && echo; fi
  echo
}

wait_seconds() {
  local left
  for ((left = $1; left > 0; left--)); do
    if [ -t 1 ]; then printf '\r  %s: %s s  ' "$2" "$left"; elif [ "$left" = "$1" ]; then echo "  $2: $left s"; fi
    sleep 1
  done
  if [ -t 1 ]; then printf '\r%60s\r' ''; fi
}

# ------------------------------------------------------------------ requests of an admin

# admin METHOD PATH [BODY]: sends a request from here. If it is rejected, sends it from inside the container.
admin() {
  local key=()
  [ -z "$ADMIN_API_KEY" ] || key=(-H "X-API-Key: $ADMIN_API_KEY")
  printf '%s→ %s %s %s%s\n' "$BOLD" "$1" "$2" "${3-}" "$PLAIN"
  send "$1" "$2" -H 'Content-Type: application/json' ${key[@]+"${key[@]}"} -d "${3-}"
  case $STATUS in 401 | 403) send_from_container "$@" ;; esac
  show_answer
  expect "status" "$STATUS" 200
}

send_from_container() {
  local refusal
  refusal=$(field message)
  STATUS=$(compose exec -T app python -c '
import os, sys, urllib.error, urllib.request
method, path, body = sys.argv[1:]
headers = {"Content-Type": "application/json", "X-API-Key": os.environ.get("ADMIN_API_KEY", "")}
request = urllib.request.Request("http://127.0.0.1:8000" + path, body.encode(), headers, method=method)
try:
    without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    print(without_proxy.open(request).status)
except urllib.error.HTTPError as error:
    print(error.code)' "$1" "$2" "${3-}" 2>/dev/null | tr -d '\r') ||
    failed "The API rejected an admin call ($refusal). Set ADMIN_API_KEY to the admin key of the API."
  printf '(called from inside the container)' >"$ANSWER/body"
}

# ------------------------------------------------------------------ clean-up

ORIGINAL_RATE=
clean_up() {
  local result=$?
  trap - EXIT
  if [ -n "$ORIGINAL_RATE" ]; then
    admin PUT /api/admin/external-service/failure-rate "{\"failure_rate\":$ORIGINAL_RATE}" >/dev/null || result=1
  fi
  rm -rf "$ANSWER"
  if [ "$result" = 0 ]; then
    printf '\n%sAll steps succeeded.%s\n' "$GREEN" "$PLAIN"
  else
    printf '\n%sA step failed, and the tour ended.%s\n' "$RED" "$PLAIN" >&2
  fi
  exit "$result"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# ------------------------------------------------------------------ the tour

TYPE=demo.$(date +%s).$$
now() { date -u +%Y-%m-%dT%H:%M:%SZ; }
point() { printf '{"timestamp":"%s","value":%s,"type":"%s"}' "$(now)" "$1" "$TYPE"; }
post() { request POST "/api/metrics$1" -H 'Content-Type: application/json' -d "$2"; }

# ingest PATH BODY: if an earlier tour has used up the quota, waits and sends the request again.
ingest() {
  post "$1" "$2"
  if [ "$STATUS" = 429 ]; then
    wait_seconds "$(header Retry-After)" "the quota is used up and available again in"
    post "$1" "$2"
  fi
  expect status "$STATUS" 201
}

# summary TYPE [curl options]
summary() {
  local type=$1
  shift
  request GET "/api/metrics/summary?type=$type&period=all" "$@"
}

breaker() {
  request GET /api/circuit-breaker/status
  expect status "$STATUS" 200
}

set_failure_rate() { admin PUT /api/admin/external-service/failure-rate "{\"failure_rate\":$1}"; }

step "1. Health" "The API answers, and is connected to Redis."
request GET /health
expect status "$STATUS" 200
expect redis_connected "$(field redis_connected)" true

step "2. A clean start" "The tour makes the external service work without faults, and closes its circuit breaker."
send GET /api/admin/external-service/failure-rate
expect status "$STATUS" 200
ORIGINAL_RATE=$(field failure_rate)
set_failure_rate 0
admin POST /api/admin/circuit-breaker/close
breaker
expect state "$(field state)" CLOSED

step "3. Ingest" "One point, then a batch of three points, which counts as one request to the rate limiter."
ingest "" "$(point 10)"
ingest /batch "[$(point 20),$(point 30),$(point 40)]"
expect accepted "$(field accepted)" 3

step "4. Summary: computed, then cached" "The first read computes the summary and calls the external service. The second read gets the cached summary."
summary "$TYPE"
expect status "$STATUS" 200
expect X-Cache "$(header X-Cache)" MISS
expect count "$(field count)" 4
expect average_value "$(field average_value)" "25.0|25"
summary "$TYPE"
expect X-Cache "$(header X-Cache)" HIT

step "5. Rate limit" "The tour sends points until the quota is used up. The answer is then 429, with Retry-After."
post "" "$(point 50)"
QUOTA=$(header RateLimit-Policy | sed -n 's/.*q=\([0-9]*\).*/\1/p')
[ "${QUOTA:-0}" -le 1000 ] || failed "the quota of $QUOTA is too large for the tour; set a lower RATE_LIMIT_REQUESTS"
for ((sent = 1; sent <= QUOTA && STATUS != 429; sent++)); do
  send POST /api/metrics -H 'Content-Type: application/json' -d "$(point 50)"
  printf '  POST /api/metrics → %s, RateLimit: %s\n' "$STATUS" "$(header RateLimit)"
done
show_answer
expect status "$STATUS" 429
expect code "$(field code)" RATE_LIMIT_EXCEEDED
[ "$(header Retry-After)" -ge 1 ] || failed "Retry-After is '$(header Retry-After)', expected at least 1"

step "6. Circuit breaker: CLOSED → OPEN" "Every call of the external service now fails. Clients get the last good summary, marked as stale."
set_failure_rate 1.0
for ((reads = 1; reads <= 50; reads++)); do
  summary "$TYPE" -H 'Cache-Control: no-cache'
  expect status "$STATUS" 200
  expect X-Cache "$(header X-Cache)" STALE
  expect degraded "$(field degraded)" true
  send GET /api/circuit-breaker/status
  [ "$(field state)" = CLOSED ] || break
  printf '  the breaker has counted %s failures\n\n' "$(field failure_count)"
done
breaker
expect state "$(field state)" OPEN

step "7. Fallback" "While the breaker is OPEN, the service is not called, and clients get the last good summary at once. For a type without an earlier summary, the answer is 503."
summary "$TYPE" -H 'Cache-Control: no-cache'
expect X-Cache "$(header X-Cache)" STALE
summary "$TYPE.unknown"
expect status "$STATUS" 503
expect code "$(field code)" CIRCUIT_OPEN

step "8. Recovery: OPEN → HALF_OPEN → CLOSED" "The external service works again. After the open time the breaker admits one probe, whose success closes the breaker."
set_failure_rate 0
send GET /api/circuit-breaker/status
RETRY_AFTER=$(field retry_after)
wait_seconds "$(( ${RETRY_AFTER%%.*} + 1 ))" "the breaker admits a probe in"
summary "$TYPE" -H 'Cache-Control: no-cache'
expect status "$STATUS" 200
expect X-Cache "$(header X-Cache)" MISS
expect degraded "$(field degraded)" false
breaker
expect state "$(field state)" CLOSED
case $(tr -d ' ' <"$ANSWER/body") in
  *'"before":"OPEN","after":"HALF_OPEN"'*'"before":"HALF_OPEN","after":"CLOSED"'*) ;;
  *) failed "the last transitions are not OPEN → HALF_OPEN → CLOSED" ;;
esac
printf '%s  ✓ the last transitions are OPEN → HALF_OPEN → CLOSED%s\n' "$GREEN" "$PLAIN"
