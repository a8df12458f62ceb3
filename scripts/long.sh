#!/usr/bin/env bash
# Runs the end-to-end tests on real Kafka in their long forms (CI runs the short
# ones) and writes what they found into RESULTS.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'EOF'
Usage: scripts/long.sh [FILTER]...

Runs `cargo test --workspace --test e2e` with TIDEMILL_LONG=1, one test at a
time, and renders the results into RESULTS.md: rows of the tests that ran are
replaced, others stay, those of tests that there are no more go. FILTERs choose tests
by parts of their names.

A test reports by appending one line to the file that TIDEMILL_RESULTS names: a JSON
object with "name" (the test function's), "ok" (true or false), "seconds", "what" (one
sentence), and its figures under any other keys: {"messages": 1000000, "kills": 50}.

Examples:
  scripts/long.sh
  scripts/long.sh kill_9
EOF
}

main() {
  case ${1:-} in -h | --help) usage; return ;; esac
  local folder outcome=0
  folder=$(mktemp -d "${TMPDIR:-/tmp}/tidemill-long.XXXXXX")
  # shellcheck disable=SC2064  # the folder's name as it is now
  trap "rm -rf '$folder'" EXIT
  : >"$folder/results.ndjson"
  scripts/kafka.sh install
  scripts/python.sh >/dev/null
  scripts/spark.sh >/dev/null
  # The tests start the program.
  cargo build --bin tidemill
  cargo test --workspace --test e2e -- --list >"$folder/tests"
  TIDEMILL_LONG=1 TIDEMILL_REQUIRE_ALL=1 TIDEMILL_RESULTS="$folder/results.ndjson" \
    cargo test --workspace --test e2e -- --nocapture --test-threads=1 "$@" 2>&1 \
    | tee "$folder/output" || outcome=$?
  python3 scripts/results.py "$folder/results.ndjson" "$folder/output" "$folder/tests" RESULTS.md
  return $outcome
}

main "$@"
