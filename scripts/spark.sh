#!/usr/bin/env bash
# Apache Spark with Delta Lake for the tests: PySpark in a virtual environment
# (scripts/python.sh, pinned by tests/clients/requirements-spark.txt), and the
# jars of Delta Lake that fit it from Maven Central, in the cache folder. Fetched
# on first use: about 450 MB.
set -euo pipefail

# Of the Spark version in requirements-spark.txt.
readonly DELTA_ARTIFACT=delta-spark_4.1_2.13
readonly DELTA_VERSION=4.2.0
readonly TOOL=spark.sh WHAT="Tests with Apache Spark"
readonly PACKAGES="default-jre-headless maven python3 python3-venv"
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
readonly ROOT
source "$ROOT/scripts/fetch.sh"

readonly CACHE="$CACHE_ROOT/spark/$DELTA_ARTIFACT-$DELTA_VERSION"

usage() {
  cat <<'EOF'
Usage: scripts/spark.sh

Fetches Apache Spark and Delta Lake unless they are there; prints spark=PATH, an
interpreter that has PySpark, and jars=DIR, the jars of Delta Lake.

Exit code 77: Java 17 (or newer), Maven, or Python 3.10 (or newer) with venv is
missing, so the tests with Spark cannot run.
Environment: TIDEMILL_CACHE (default ~/.cache/tidemill), TIDEMILL_PYTHON (python3).

Example:
  eval "$(scripts/spark.sh)"
  echo '{"table": "lake/paid"}' | "$spark" tests/clients/spark.py "$jars"
EOF
}

# What else Delta Lake needs is in Spark.
jars() { # DIR
  maven "Delta Lake $DELTA_VERSION" "$1" -DincludeGroupIds=io.delta <<EOF
<dependency>
  <groupId>io.delta</groupId><artifactId>$DELTA_ARTIFACT</artifactId><version>$DELTA_VERSION</version>
</dependency>
EOF
}

main() {
  case ${1:-} in
    -h | --help) usage; return ;;
    '') ;;
    *) usage >&2; exit 2 ;;
  esac
  need_java "Apache Spark"
  once "$CACHE" jars
  "$ROOT/scripts/python.sh" spark
  echo "jars=$CACHE/lib"
}

main "$@"
