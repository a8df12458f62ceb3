#!/usr/bin/env bash
# Python clients, and a server, for the tests: one virtual environment each in the
# cache folder, pinned by tests/clients/requirements-*.txt. Made on first use;
# made anew when its pins or the Python version change.
set -euo pipefail

readonly TOOL=python.sh WHAT="Tests with Python clients"
readonly PACKAGES="python3 python3-venv"
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
readonly ROOT
source "$ROOT/scripts/fetch.sh"

readonly CACHE="$CACHE_ROOT/python"

usage() {
  cat <<'EOF'
Usage: scripts/python.sh [adbc | dbapi | s3 | spark]...

Makes the virtual environments of these clients (all but spark, if none is named)
unless they are there, and prints each one's interpreter as NAME=PATH:

  adbc     adbc-driver-flightsql
  dbapi    flightsql-dbapi, with SQLAlchemy before 2
  s3       moto: no client, but an S3 server in memory (tests/clients/s3.py)
  spark    PySpark; scripts/spark.sh brings what else it needs

Exit code 77: Python 3.10 or newer with its venv module is missing, so the tests
with Python clients cannot run.
Environment: TIDEMILL_CACHE (default ~/.cache/tidemill), TIDEMILL_PYTHON (python3).

Example:
  eval "$(scripts/python.sh)"
  "$adbc" tests/clients/adbc.py grpc://127.0.0.1:50051 query
EOF
}

need_python() {
  PYTHON=${TIDEMILL_PYTHON:-python3}
  command -v "$PYTHON" >/dev/null || skip "$PYTHON is not installed."
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
    || skip "Python 3.10 or newer is needed; $PYTHON is $("$PYTHON" --version 2>&1)."
  "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || skip "$PYTHON has no venv module with pip."
}

# The folder's name tells what is in it, so a change of pins needs no cleaning up.
environment() { # NAME
  local pins
  pins=$({ "$PYTHON" --version; cat "$ROOT/tests/clients/requirements-$1.txt"; } | cksum | cut -d ' ' -f 1)
  echo "$CACHE/$1-$pins"
}

make() { # NAME
  local dir
  dir=$(environment "$1")
  if [ ! -f "$dir/ready" ]; then
    mkdir -p "$CACHE"
    exec 9>"$CACHE/lock"
    flock 9
    if [ ! -f "$dir/ready" ]; then
      say "installing the Python client $1 ..."
      rm -rf "$dir"
      "$PYTHON" -m venv "$dir" >&2
      "$dir/bin/python" -m pip install --quiet --disable-pip-version-check \
        --requirement "$ROOT/tests/clients/requirements-$1.txt" >&2
      touch "$dir/ready"
    fi
    exec 9>&-
  fi
  echo "$1=$dir/bin/python"
}

main() {
  case ${1:-} in -h | --help) usage; return ;; esac
  local name
  [ $# -gt 0 ] || set -- adbc dbapi s3
  for name in "$@"; do
    [ -f "$ROOT/tests/clients/requirements-$name.txt" ] || fail "no client \`$name\`; see --help."
  done
  need_python
  for name in "$@"; do make "$name"; done
}

main "$@"
