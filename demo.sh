#!/usr/bin/env bash
# A guided tour against a running API (./start.sh). Every step is asserted; the first that fails ends the tour.
#
#   ./demo.sh [--no-pause] [--base-url URL]
#
# BASE_URL (http://localhost:8000) says where the API is. The tour makes the external service fail, which takes
# an admin: ADMIN_API_KEY from the environment or .env, else a direct call from this machine, else one from
# inside the app's container. Takes about a minute, most of it waiting for the breaker; can be run again.
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

# ------------------------------------------------------------------ asking and asserting

ANSWER=$(mktemp -d)
BOLD='' DIM='' GREEN='' RED='' PLAIN=''
if [ -t 1 ]; then BOLD=$'\e[1m' DIM=$'\e[2m' GREEN=$'\e[32m' RED=$'\e[31m' PLAIN=$'\e[0m'; fi

# request METHOD PATH [curl options]: sends it, shows it, and leaves the answer in STATUS and $ANSWER.
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

# field NAME: the first member of that name in the answer's JSON, without its quotes.
field() {
  { grep -oE "\"$1\": *(\"[^\"]*\"|[^],}]*)" "$ANSWER/body" || true; } | head -n 1 |
    sed -e 's/^"[^"]*": *//' -e 's/^"\(.*\)"$/\1/'
}

header() {
  { grep -i "^$1:" "$ANSWER/headers" || true; } | head -n 1 | sed 's/^[^:]*: *//' | tr -d '\r'
}

# expect WHAT ACTUAL WANTED: WANTED may be several values, separated by |.
expect() {
  case "|$3|" in
    *"|$2|"*) printf '%s  ✓ %s is %s%s\n' "$GREEN" "$1" "$2" "$PLAIN" ;;
    *) failed "$1 is '$2', wanted $3" ;;
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

# ------------------------------------------------------------------ what an admin does

# admin METHOD PATH [BODY]: from here, or where only the container's own loopback may, from inside it.
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
    failed "The API refused an admin call ($refusal). Set ADMIN_API_KEY to the key that the API has."
  printf '(called from inside the container)' >"$ANSWER/body"
}

# ------------------------------------------------------------------ leaving things as they were

RATE_FOUND=
leave() {
  local result=$?
  trap - EXIT
  if [ -n "$RATE_FOUND" ]; then
    admin PUT /api/admin/external-service/failure-rate "{\"failure_rate\":$RATE_FOUND}" >/dev/null || result=1
  fi
  rm -rf "$ANSWER"
  if [ "$result" = 0 ]; then
    printf '\n%sEvery step passed.%s\n' "$GREEN" "$PLAIN"
  else
    printf '\n%sA step failed, and the tour ended.%s\n' "$RED" "$PLAIN" >&2
  fi
  exit "$result"
}
trap leave EXIT
trap 'exit 130' INT TERM

# ------------------------------------------------------------------ the tour

TYPE=demo.$(date +%s).$$
now() { date -u +%Y-%m-%dT%H:%M:%SZ; }
point() { printf '{"timestamp":"%s","value":%s,"type":"%s"}' "$(now)" "$1" "$TYPE"; }
post() { request POST "/api/metrics$1" -H 'Content-Type: application/json' -d "$2"; }

# ingest PATH BODY: waits where an earlier tour has used up the quota.
ingest() {
  post "$1" "$2"
  if [ "$STATUS" = 429 ]; then
    wait_seconds "$(header Retry-After)" "the quota is used up, room again in"
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

step "1. Health" "The API answers, and Redis answers it."
request GET /health
expect status "$STATUS" 200
expect redis_connected "$(field redis_connected)" true

step "2. A clean start" "The external service shall not fail for now, and its circuit breaker is closed."
send GET /api/admin/external-service/failure-rate
expect status "$STATUS" 200
RATE_FOUND=$(field failure_rate)
set_failure_rate 0
admin POST /api/admin/circuit-breaker/close
breaker
expect state "$(field state)" CLOSED

step "3. Ingest" "One point, then three at once: a batch counts as one request to the limiter."
ingest "" "$(point 10)"
ingest /batch "[$(point 20),$(point 30),$(point 40)]"
expect accepted "$(field accepted)" 3

step "4. Summary: computed, then cached" "The first read computes and asks the external service; the second costs neither."
summary "$TYPE"
expect status "$STATUS" 200
expect X-Cache "$(header X-Cache)" MISS
expect count "$(field count)" 4
expect average_value "$(field average_value)" "25.0|25"
summary "$TYPE"
expect X-Cache "$(header X-Cache)" HIT

step "5. Rate limit" "Ingesting until the quota is spent: then 429, and Retry-After says when to come back."
post "" "$(point 50)"
QUOTA=$(header RateLimit-Policy | sed -n 's/.*q=\([0-9]*\).*/\1/p')
[ "${QUOTA:-0}" -le 1000 ] || failed "the quota is $QUOTA: too much for a tour to spend; set RATE_LIMIT_REQUESTS lower"
for ((sent = 1; sent <= QUOTA && STATUS != 429; sent++)); do
  send POST /api/metrics -H 'Content-Type: application/json' -d "$(point 50)"
  printf '  POST /api/metrics → %s, RateLimit: %s\n' "$STATUS" "$(header RateLimit)"
done
show_answer
expect status "$STATUS" 429
expect code "$(field code)" RATE_LIMIT_EXCEEDED
[ "$(header Retry-After)" -ge 1 ] || failed "Retry-After is '$(header Retry-After)', wanted at least 1"

step "6. Circuit breaker: CLOSED → OPEN" "The external service now fails every call. Readers get the last good summary, marked as stale."
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

step "7. Fallback" "OPEN: nobody waits for a service that is down. A type never summed up has nothing to fall back on."
summary "$TYPE" -H 'Cache-Control: no-cache'
expect X-Cache "$(header X-Cache)" STALE
summary "$TYPE.unknown"
expect status "$STATUS" 503
expect code "$(field code)" CIRCUIT_OPEN

step "8. Recovery: OPEN → HALF_OPEN → CLOSED" "The external service is well again. When the time is up one call probes it, and its success closes the breaker."
set_failure_rate 0
send GET /api/circuit-breaker/status
RETRY_AFTER=$(field retry_after)
wait_seconds "$(( ${RETRY_AFTER%%.*} + 1 ))" "a probe is let through in"
summary "$TYPE" -H 'Cache-Control: no-cache'
expect status "$STATUS" 200
expect X-Cache "$(header X-Cache)" MISS
expect degraded "$(field degraded)" false
breaker
expect state "$(field state)" CLOSED
case $(tr -d ' ' <"$ANSWER/body") in
  *'"before":"OPEN","after":"HALF_OPEN"'*'"before":"HALF_OPEN","after":"CLOSED"'*) ;;
  *) failed "its transitions do not end OPEN → HALF_OPEN → CLOSED" ;;
esac
printf '%s  ✓ it went OPEN → HALF_OPEN → CLOSED%s\n' "$GREEN" "$PLAIN"
