# What the scripts share that fetch parts for the tests: `source`d by them.
#
# They set TOOL, their own name in messages; WHAT, the tests that need the part;
# PACKAGES, what to install on Debian when something is missing.

readonly SKIPPED=77
CACHE_ROOT="${TIDEMILL_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/tidemill}"
readonly CACHE_ROOT

say() { echo "$TOOL: $*" >&2; }

fail() {
  say "$*"
  exit 1
}

# Ends the script, loudly: its part can't be had on this machine.
skip() { # REASON
  say '******************************************************************'
  say "SKIPPED: $1"
  say "$WHAT cannot run here. On Debian:"
  say "  apt-get install $PACKAGES"
  say '******************************************************************'
  exit "$SKIPPED"
}

need_java() { # PRODUCT
  command -v java >/dev/null || skip "java is not installed."
  local major
  major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
  [ "${major:-0}" -ge 17 ] || skip "$1 needs Java 17 or newer; this is Java ${major:-unknown}."
}

# Runs a command that makes a folder, unless the folder is there. Under a lock, into a
# scratch folder that is renamed when it is whole: two at once, or one cut short, leave
# nothing half done. The command gets the scratch folder as its last argument.
once() { # DIR COMMAND [ARG]...
  local dir=$1
  shift
  [ -d "$dir" ] && return
  mkdir -p "$(dirname "$dir")"
  exec 9>"$dir.lock"
  flock 9
  if [ ! -d "$dir" ]; then
    rm -rf "$dir.part" && mkdir -p "$dir.part"
    "$@" "$dir.part"
    mv "$dir.part" "$dir"
  fi
  exec 9>&-
}

# Copies the runtime jars of dependencies (a pom's <dependency> elements on stdin) from
# Maven Central to DIR/lib.
maven() { # PRODUCT DIR [OPTION]...
  local product=$1 dir=$2
  shift 2
  command -v mvn >/dev/null || skip "mvn (Maven) is not installed."
  say "fetching $product from Maven Central ..."
  {
    echo '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
    echo '<groupId>tidemill</groupId><artifactId>parts</artifactId><version>1</version>'
    echo '<packaging>pom</packaging><dependencies>'
    cat
    echo '</dependencies></project>'
  } >"$dir/pom.xml"
  mvn -B -ntp -q -f "$dir/pom.xml" \
    org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$dir/lib" "$@" >&2 </dev/null \
    || fail "Maven could not fetch $product; see its message above."
}
