#!/usr/bin/env bash
# Starts the API with its dependencies:
#
#   ./start.sh            starts containers if a Docker engine answers, else like --local
#   ./start.sh --local    starts local processes: .venv, provider, API, embedded Redis
#   ./start.sh stop       stops the processes and containers of this script; data is kept
#
# APP_PORT, PROVIDER_PORT and, for the Redis in a container, REDIS_PORT are the ports. ADMIN_API_KEY is the key
# for the admin endpoints. All of them come from the environment or .env. If there is no key, the script creates
# one and writes it to .env. The folder run/ has the ids and the logs of the local processes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. scripts/environment.sh

RUN=run
LOCAL_LIMIT_SECONDS=60
STOP_LIMIT_SECONDS=40  # 10 s for requests, a few seconds for telemetry, 10 s for an embedded Redis
CONTAINER_LIMIT_SECONDS=120
LOG_LINES=15

main() {
  APP_PORT=$(setting APP_PORT 8000)
  PROVIDER_PORT=$(setting PROVIDER_PORT 9000)
  # A key from the environment is not shown, since it may be a secret.
  ADMIN_KEY=${ADMIN_API_KEY:+the value of ADMIN_API_KEY}
  PROVIDER="http://localhost:$PROVIDER_PORT, the simulated external service"
  export APP_PORT PROVIDER_PORT
  mkdir -p "$RUN"
  case ${1-} in
    "") if pid_of api >/dev/null || ! containers_can_run; then start_local; else start_containers; fi ;;
    --local) start_local ;;
    stop) stop_all ;;
    *) fail "usage: ./start.sh [--local | stop]" ;;
  esac
}

# ------------------------------------------------------------------ local processes

start_local() {
  REDIS="embedded, with its data in data/"
  if has_redis_setting; then REDIS="according to REDIS_URL or REDIS_HOST"; fi
  PROVIDER=$(setting EXTERNAL_SERVICE_URL "$PROVIDER")
  if pid_of api >/dev/null && healthy "$APP_PORT"; then
    say "Already running."
    print_addresses
    return
  fi
  stop_local
  require_free_port "$APP_PORT" APP_PORT
  make_venv requirements.txt
  ensure_admin_key
  trap 'stop_local' EXIT
  if [ -z "$(setting EXTERNAL_SERVICE_URL "")" ]; then
    require_free_port "$PROVIDER_PORT" PROVIDER_PORT
    say "Starting the provider"
    launch provider "$VENV/bin/python" -m src.provider --port "$PROVIDER_PORT" \
      --fail-chance "$(setting EXTERNAL_SERVICE_FAILURE_RATE 0.1)"
    wait_until_healthy provider "$PROVIDER_PORT"
    export EXTERNAL_SERVICE_URL=http://127.0.0.1:$PROVIDER_PORT
  fi
  has_redis_setting || export REDIS_URL=embedded://
  say "Starting the API"
  launch api "$VENV/bin/python" -m src
  wait_until_healthy api "$APP_PORT"
  trap - EXIT
  say "Running; logs in $RUN/."
  show_unknown_settings "$VENV/bin/python"
  print_addresses
}

stop_local() {
  stop_process api
  stop_process provider
  # If the API was killed, its guard process stops the embedded Redis. This command waits for that.
  if [ -e data/server.lock ] && [ -x "$VENV/bin/python" ]; then
    "$VENV/bin/python" -c '
import asyncio
from pathlib import Path
from src.storage.redis.embedded.embedded_redis import EmbeddedRedis
asyncio.run(EmbeddedRedis(Path("data")).stop())' || true
  fi
}

# has_redis_setting: succeeds if a setting names a Redis. REDIS_HOST=localhost in .env does not count, because it
# is the value of a copied .env.example.
has_redis_setting() {
  [ -n "$(setting REDIS_URL "")" ] || [ -n "${REDIS_HOST-}" ] || [ "$(setting REDIS_HOST localhost)" != localhost ]
}

# launch NAME COMMAND...: runs the command in its own process group, with its output in run/NAME.log. run/NAME.pid
# has the process id and the start time, which distinguishes the process from a later one with the same id.
launch() {
  local name=$1
  shift
  set -m
  nohup "$@" >"$RUN/$name.log" 2>&1 </dev/null &
  set +m
  printf '%s %s\n' "$!" "$(start_time "$!")" >"$RUN/$name.pid"
}

# start_time PID: prints the start time of the process in the system's unit; nothing if the process has ended.
start_time() {
  local stat
  if stat=$(cat "/proc/$1/stat" 2>/dev/null); then
    # shellcheck disable=SC2086 # proc(5): the state follows the name in brackets, the start time 19 fields later
    set -- ${stat##*) }
    [ "$1" = Z ] || printf '%s\n' "${20}"
  else
    ps -o lstart= -p "$1" 2>/dev/null || true
  fi
}

# pid_of NAME: prints the id of the process; fails if the process has ended.
pid_of() {
  local pid started
  [ -f "$RUN/$1.pid" ] && read -r pid started <"$RUN/$1.pid" && [ -n "$started" ] &&
    [ "$(start_time "$pid")" = "$started" ] && printf '%s\n' "$pid"
}

# wait_until_healthy NAME PORT: if the process does not become healthy, prints the end of its log and fails.
wait_until_healthy() {
  local deadline=$((SECONDS + LOCAL_LIMIT_SECONDS)) reason=
  until healthy "$2"; do
    pid_of "$1" >/dev/null || reason="ended"
    ((SECONDS < deadline)) || reason="is not healthy after $LOCAL_LIMIT_SECONDS s"
    if [ -n "$reason" ]; then
      tail -n "$LOG_LINES" "$RUN/$1.log" >&2
      fail "The $1 $reason. Above is the end of $RUN/$1.log."
    fi
    sleep 0.2
  done
}

stop_process() {
  local pid tries
  if pid=$(pid_of "$1"); then
    kill -TERM "$pid" 2>/dev/null || true
    for ((tries = STOP_LIMIT_SECONDS * 10; tries > 0; tries--)); do
      pid_of "$1" >/dev/null || break
      sleep 0.1
    done
    # kill the whole process group, including the workers
    pid_of "$1" >/dev/null && kill -KILL -- "-$pid" 2>/dev/null
  fi
  rm -f "$RUN/$1.pid"
}

# ------------------------------------------------------------------ containers

start_containers() {
  local deadline service
  choose_redis_port
  if [ -z "$(unhealthy_services)" ]; then
    say "Already running."
    print_addresses
    return
  fi
  if [ -z "$(compose ps -q)" ]; then
    require_free_port "$APP_PORT" APP_PORT
    require_free_port "$PROVIDER_PORT" PROVIDER_PORT
  fi
  ensure_admin_key
  touch "$RUN/containers"
  trap 'stop_containers' EXIT
  if compose up -d --build; then
    deadline=$((SECONDS + CONTAINER_LIMIT_SECONDS))
    while [ -n "$(unhealthy_services)" ] && ((SECONDS < deadline)); do sleep 1; done
  fi
  for service in $(unhealthy_services); do
    compose logs --tail "$LOG_LINES" "$service" >&2
    fail "The service $service is not healthy. Above is the end of its log."
  done
  trap - EXIT
  say "Running in containers; logs: docker-compose logs."
  show_unknown_settings compose exec -T app python
  print_addresses
}

# choose_redis_port: sets the published port of Redis: the port of the running container, else REDIS_PORT, else
# the next free port.
choose_redis_port() {
  local preferred published
  preferred=$(setting REDIS_PORT 6379)
  published=$(compose port redis 6379 2>/dev/null | sed -n 's/.*:\([1-9][0-9]*\)$/\1/p') || true
  REDIS_PORT=${published:-$preferred}
  if [ -z "$published" ]; then
    while is_taken "$REDIS_PORT"; do REDIS_PORT=$((REDIS_PORT + 1)); done
  fi
  export REDIS_PORT
  REDIS=localhost:$REDIS_PORT
  if [ -z "$published" ] && [ "$REDIS_PORT" != "$preferred" ]; then
    say "Another program uses port $preferred: Redis is published on port $REDIS_PORT instead."
  fi
}

unhealthy_services() {
  local service id
  for service in redis provider app; do
    id=$(compose ps -q "$service" 2>/dev/null) || true
    [ "$(docker inspect --format '{{.State.Health.Status}}' "${id:-none}" 2>/dev/null)" = healthy ] ||
      printf '%s\n' "$service"
  done
}

stop_containers() {
  compose down
  rm -f "$RUN/containers"
}

# ------------------------------------------------------------------ common functions

stop_all() {
  if [ ! -f "$RUN/api.pid" ] && [ ! -f "$RUN/provider.pid" ] && [ ! -f "$RUN/containers" ]; then
    say "Nothing to stop."
    return
  fi
  stop_local
  if [ -f "$RUN/containers" ]; then stop_containers; fi
  say "Stopped; data is kept."
}

say() { printf '%s\n' "$*"; }

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

is_taken() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

require_free_port() {
  if is_taken "$1"; then
    fail "Another program uses port $1. Stop that program, or choose another port: $2=<port> ./start.sh"
  fi
}

# ensure_admin_key: creates an admin key if no key is set. The last line with ADMIN_API_KEY in .env counts.
ensure_admin_key() {
  ADMIN_API_KEY=$(setting ADMIN_API_KEY "")
  if [ -z "$ADMIN_API_KEY" ]; then
    ADMIN_API_KEY=$(od -An -N 24 -tx1 /dev/urandom | tr -d ' \n')
    if [ -s .env ] && [ -n "$(tail -c 1 .env)" ]; then printf '\n' >>.env; fi
    (umask 077 && printf 'ADMIN_API_KEY=%s\n' "$ADMIN_API_KEY" >>.env)
    chmod 600 .env
    say "Created an admin key and wrote it to .env"
  fi
  export ADMIN_API_KEY
}

# show_unknown_settings PYTHON...: prints the unknown names in .env and in the environment.
show_unknown_settings() {
  local env_file=/dev/null
  [ ! -f .env ] || env_file=.env
  "$@" -m src.config.unknown_settings <"$env_file"
}

# healthy PORT: succeeds if GET /health answers 200. It uses only bash, since curl may be missing.
healthy() (
  exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
  printf 'GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
  read -r -t 3 status <&3 && [[ $status == *" 200 "* ]]
)

print_addresses() {
  local api=http://localhost:$APP_PORT
  cat <<TEXT

  Dashboard  $api/dashboard
  API        $api
  Docs       $api/docs and $api/redoc
  Provider   $PROVIDER
  Redis      $REDIS
  Admin key  ${ADMIN_KEY:-$(setting ADMIN_API_KEY none)}

Try:
  curl -X POST $api/api/metrics -H 'Content-Type: application/json' -d '{"timestamp":"$(date -u +%Y-%m-%dT%H:%M:%SZ)","value":42.5,"type":"cpu"}'
  curl '$api/api/metrics/summary?type=cpu&period=hourly'
  curl $api/api/circuit-breaker/status

./demo.sh runs a guided tour. ./start.sh stop stops all processes or containers.
TEXT
}

main "$@"
