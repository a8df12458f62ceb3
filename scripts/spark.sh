#!/usr/bin/env bash
# Apache Spark with Delta Lake for the tests: PySpark in a virtual environment
# (scripts/python.sh, pinned by tests/clients/requirements-spark.txt), and the
# jars of Delta Lake that fit it from Maven Central, in the cache folder. Fetched
# on first use: about 450 MB.
set -euo pipefail

# Of the Spark version in requirements-spark.txt.
readonly DELTA_ARTIFACT=delta-spark_4.1_2.13
readonly DELTA_VERSION=4.2.0
readonly SKIPPED=77
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
readonly ROOT
CACHE="${TIDEMILL_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/tidemill}/spark/$DELTA_ARTIFACT-$DELTA_VERSION"
readonly CACHE

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

skip() {
  {
    echo "spark.sh: ******************************************************************"
    echo "spark.sh: SKIPPED: $1"
    echo "spark.sh: Tests with Apache Spark cannot run here. On Debian:"
    echo "spark.sh:   apt-get install default-jre-headless maven python3 python3-venv"
    echo "spark.sh: ******************************************************************"
  } >&2
  exit "$SKIPPED"
}

need_java() {
  command -v java >/dev/null || skip "java is not installed."
  local major
  major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
  [ "${major:-0}" -ge 17 ] || skip "Apache Spark needs Java 17 or newer; this is Java ${major:-unknown}."
}

pom() {
  cat <<EOF
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tidemill</groupId><artifactId>spark</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>io.delta</groupId><artifactId>$DELTA_ARTIFACT</artifactId><version>$DELTA_VERSION</version>
    </dependency>
  </dependencies>
</project>
EOF
}

# Fetched under a lock into a scratch folder that is renamed when it is whole.
install() {
  [ -d "$CACHE" ] && return
  command -v mvn >/dev/null || skip "mvn (Maven) is not installed."
  mkdir -p "$(dirname "$CACHE")"
  exec 9>"$CACHE.lock"
  flock 9
  if [ ! -d "$CACHE" ]; then
    echo "spark.sh: fetching Delta Lake $DELTA_VERSION from Maven Central ..." >&2
    local part="$CACHE.part"
    rm -rf "$part" && mkdir -p "$part"
    pom >"$part/pom.xml"
    # What else Delta Lake needs is in Spark.
    mvn -B -ntp -q -f "$part/pom.xml" \
      org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
      -DincludeScope=runtime -DincludeGroupIds=io.delta -DoutputDirectory="$part/lib" >&2 || {
      echo "spark.sh: Maven could not fetch Delta Lake $DELTA_VERSION; see its message above." >&2
      exit 1
    }
    mv "$part" "$CACHE"
  fi
  exec 9>&-
}

main() {
  case ${1:-} in
    -h | --help) usage; return ;;
    '') ;;
    *) usage >&2; exit 2 ;;
  esac
  need_java
  install
  "$ROOT/scripts/python.sh" spark
  echo "jars=$CACHE/lib"
}

main "$@"
