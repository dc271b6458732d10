# Functions for the other scripts: settings, the Python environment, containers. Other scripts source this file.
# shellcheck shell=bash

VENV=${VENV:-.venv}

# setting NAME DEFAULT: prints the value from the environment, else from .env, else the default. An empty value
# counts as unset.
setting() {
  local value=${!1-}
  if [ -z "$value" ] && [ -f .env ]; then
    # The first expression drops the byte order mark that some editors write.
    value=$(LC_ALL=C sed -n -e $'1s/^\xef\xbb\xbf//' \
      -e "s/^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}$1[[:space:]]*=[[:space:]]*//p" .env |
      tail -n 1 | sed -e 's/[[:space:]]\{1,\}#.*$//' -e 's/[[:space:]]*$//' -e "s/^\(['\"]\)\(.*\)\1\$/\2/")
  fi
  printf '%s\n' "${value:-$2}"
}

# find_python: prints the first command that runs Python >= 3.11; $PYTHON comes first. Each command is run,
# because a version switcher can leave commands on PATH that do not work.
find_python() {
  local name
  for name in ${PYTHON-} python3.14 python3.13 python3.12 python3.11 python3 python; do
    if is_new_enough "$name"; then
      printf '%s\n' "$name"
      return
    fi
  done
  echo "No Python >= 3.11 on PATH (tried python3.14 to python3.11, python3, python)." >&2
  return 1
}

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# make_venv REQUIREMENTS: installs exactly the pinned REQUIREMENTS into $VENV, unless an earlier run did.
make_venv() {
  local requirements=$1 python
  local stamp=$VENV/installed-$requirements
  if ! is_new_enough "$VENV/bin/python" || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python) || return 1
    echo "Making $VENV with $("$python" --version)"
    if ! "$python" -m venv --clear "$VENV"; then
      echo "$python cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2
      return 1
    fi
  fi
  if ! cat requirements-installer.txt "$requirements" | cmp -s - "$stamp"; then
    rm -f "$VENV"/installed-*
    "$VENV/bin/python" scripts/install.py "$requirements" || return 1
    cat requirements-installer.txt "$requirements" >"$stamp"
  fi
}

containers_can_run() {
  [ -n "$(docker info --format '{{.ServerVersion}}' 2>/dev/null)" ] && compose version >/dev/null 2>&1
}

compose() {
  if docker compose version >/dev/null 2>&1; then docker compose "$@"; else docker-compose "$@"; fi
}
