#!/usr/bin/env bash
# Gets the API answering, with all it needs:
#
#   ./start.sh            in containers where a Docker engine answers, else as --local
#   ./start.sh --local    as processes of this machine: .venv, provider, API, embedded Redis
#   ./start.sh stop       stops what this script started; data is kept
#
# APP_PORT, PROVIDER_PORT and, for the Redis in a container, REDIS_PORT say where; ADMIN_API_KEY is the key for
# the admin endpoints. Each comes from the environment or .env. Without a key the script makes one and keeps it
# in .env. What it runs is noted in run/, where the local processes log as well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. scripts/environment.sh

RUN=run
LOCAL_LIMIT_SECONDS=60
STOP_LIMIT_SECONDS=40  # requests get 10 s to end, telemetry a few to be sent, an embedded Redis 10
CONTAINER_LIMIT_SECONDS=120
LOG_LINES=15

main() {
  APP_PORT=$(setting APP_PORT 8000)
  PROVIDER_PORT=$(setting PROVIDER_PORT 9000)
  # A key that the caller set is not shown, since it may be a secret of the caller's.
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

# ------------------------------------------------------------------ as processes of this machine

start_local() {
  REDIS="embedded, its data in data/"
  if redis_is_given; then REDIS="as REDIS_URL or REDIS_HOST says"; fi
  PROVIDER=$(setting EXTERNAL_SERVICE_URL "$PROVIDER")
  if pid_of api >/dev/null && healthy "$APP_PORT"; then
    say "Already running."
    say_where
    return
  fi
  stop_local
  require_free_port "$APP_PORT" APP_PORT
  make_venv requirements.txt
  have_admin_key
  trap 'stop_local' EXIT
  if [ -z "$(setting EXTERNAL_SERVICE_URL "")" ]; then
    require_free_port "$PROVIDER_PORT" PROVIDER_PORT
    say "Starting the provider"
    launch provider "$VENV/bin/python" -m src.provider --port "$PROVIDER_PORT" \
      --fail-chance "$(setting EXTERNAL_SERVICE_FAILURE_RATE 0.1)"
    await provider "$PROVIDER_PORT"
    export EXTERNAL_SERVICE_URL=http://127.0.0.1:$PROVIDER_PORT
  fi
  redis_is_given || export REDIS_URL=embedded://
  say "Starting the API"
  launch api "$VENV/bin/python" -m src
  await api "$APP_PORT"
  trap - EXIT
  say "Running; logs in $RUN/."
  show_unknown_settings "$VENV/bin/python"
  say_where
}

stop_local() {
  stop_process api
  stop_process provider
  # An embedded Redis of an API that was killed is stopped by its guard. This waits for it.
  if [ -e data/server.lock ] && [ -x "$VENV/bin/python" ]; then
    "$VENV/bin/python" -c '
import asyncio
from pathlib import Path
from src.storage.redis.embedded import EmbeddedRedis
asyncio.run(EmbeddedRedis(Path("data")).stop())' || true
  fi
}

# Whether the user named a Redis. In .env, localhost names none: it is what a copied .env.example says.
redis_is_given() {
  [ -n "$(setting REDIS_URL "")" ] || [ -n "${REDIS_HOST-}" ] || [ "$(setting REDIS_HOST localhost)" != localhost ]
}

# launch NAME COMMAND...: runs it in a process group of its own, its output in run/NAME.log. run/NAME.pid
# holds its id and its birth, so that an id the system gave to somebody else later is never taken for ours.
launch() {
  local name=$1
  shift
  set -m
  nohup "$@" >"$RUN/$name.log" 2>&1 </dev/null &
  set +m
  printf '%s %s\n' "$!" "$(born "$!")" >"$RUN/$name.pid"
}

# born PID: when the process began, in whatever unit the system has; nothing when it has ended.
born() {
  local stat
  if stat=$(cat "/proc/$1/stat" 2>/dev/null); then
    # shellcheck disable=SC2086 # proc(5): after the name in brackets come the state and, 19 on, the start
    set -- ${stat##*) }
    [ "$1" = Z ] || printf '%s\n' "${20}"
  else
    ps -o lstart= -p "$1" 2>/dev/null || true
  fi
}

# pid_of NAME: the id of the process, or failure where it runs no more.
pid_of() {
  local pid birth
  [ -f "$RUN/$1.pid" ] && read -r pid birth <"$RUN/$1.pid" && [ -n "$birth" ] &&
    [ "$(born "$pid")" = "$birth" ] && printf '%s\n' "$pid"
}

# await NAME PORT: until it is healthy, or fails with the end of its log.
await() {
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
    # its whole group, so that no worker outlives it
    pid_of "$1" >/dev/null && kill -KILL -- "-$pid" 2>/dev/null
  fi
  rm -f "$RUN/$1.pid"
}

# ------------------------------------------------------------------ in containers

start_containers() {
  local deadline service
  choose_redis_port
  if [ -z "$(unhealthy_services)" ]; then
    say "Already running."
    say_where
    return
  fi
  if [ -z "$(compose ps -q)" ]; then
    require_free_port "$APP_PORT" APP_PORT
    require_free_port "$PROVIDER_PORT" PROVIDER_PORT
  fi
  have_admin_key
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
  say_where
}

# The port that Redis is published on: that of the running container, or REDIS_PORT, or the next free one.
choose_redis_port() {
  local wanted published
  wanted=$(setting REDIS_PORT 6379)
  published=$(compose port redis 6379 2>/dev/null | sed -n 's/.*:\([1-9][0-9]*\)$/\1/p') || true
  REDIS_PORT=${published:-$wanted}
  if [ -z "$published" ]; then
    while is_taken "$REDIS_PORT"; do REDIS_PORT=$((REDIS_PORT + 1)); done
  fi
  export REDIS_PORT
  REDIS=localhost:$REDIS_PORT
  if [ -z "$published" ] && [ "$REDIS_PORT" != "$wanted" ]; then
    say "Port $wanted is taken by another program: Redis is published on port $REDIS_PORT instead."
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

# ------------------------------------------------------------------ both

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
    fail "Port $1 is taken by another program. Free it, or choose another: $2=<port> ./start.sh"
  fi
}

# Makes an admin key where none is set. The last line of .env that names it is the one that counts.
have_admin_key() {
  ADMIN_API_KEY=$(setting ADMIN_API_KEY "")
  if [ -z "$ADMIN_API_KEY" ]; then
    ADMIN_API_KEY=$(od -An -N 24 -tx1 /dev/urandom | tr -d ' \n')
    if [ -s .env ] && [ -n "$(tail -c 1 .env)" ]; then printf '\n' >>.env; fi
    (umask 077 && printf 'ADMIN_API_KEY=%s\n' "$ADMIN_API_KEY" >>.env)
    chmod 600 .env
    say "Made an admin key and wrote it to .env"
  fi
  export ADMIN_API_KEY
}

# show_unknown_settings PYTHON...: prints the names in .env and in the environment that are no settings.
show_unknown_settings() {
  local env_file=/dev/null
  [ ! -f .env ] || env_file=.env
  "$@" -m src.config.unknown_settings <"$env_file"
}

# healthy PORT: whether GET /health there answers 200. In plain bash, since curl may be missing.
healthy() (
  exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
  printf 'GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
  read -r -t 3 status <&3 && [[ $status == *" 200 "* ]]
)

say_where() {
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

./demo.sh is the guided tour, ./start.sh stop stops everything.
TEXT
}

main "$@"
