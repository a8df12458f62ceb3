#!/usr/bin/env bash
# Real Apache Kafka for tests and for trying things out: one KRaft broker (no
# ZooKeeper, no container), fetched from Maven Central once and then started
# from a cache folder in a few seconds. Each broker lives in a folder of its own
# with its own free ports, so any number can run side by side; the folder is the
# broker's name in every other subcommand.
set -euo pipefail

readonly KAFKA_VERSION=4.3.1
# The binding for slf4j 1.7, of the log4j version that this Kafka ships with.
readonly LOG4J_VERSION=2.25.4
readonly TOOL=kafka.sh WHAT="Tests against real Apache Kafka"
readonly PACKAGES="default-jre-headless maven openssl"
source "$(dirname "${BASH_SOURCE[0]}")/fetch.sh"

readonly CACHE="$CACHE_ROOT/kafka/$KAFKA_VERSION"
readonly HEAP="${TIDEMILL_KAFKA_HEAP:-512m}"
# How long a broker may take to start or to stop before that counts as a failure.
readonly PATIENCE="${TIDEMILL_KAFKA_PATIENCE:-90}"

usage() {
  cat <<'EOF'
Usage: scripts/kafka.sh COMMAND

  install                      fetch Apache Kafka into the cache (done once; the others do it too)
  start [OPTION]...            start a broker; prints bootstrap=HOST:PORT and dir=DIR when it answers
      --port N                   listen on 127.0.0.1:N (default: a free port)
      --dir D                    keep data and log in D (default: a new temporary folder)
      --sasl                     one more listener: SASL_SSL (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512), user
                                 `tidemill`, fresh password and certificate authority, all printed
      --parent PID               kill the broker, and remove its temporary folder, once PID is gone
      --set KEY=VALUE            one more line for server.properties (may be repeated)
  stop DIR                     stop gracefully
  kill DIR                     kill -9, as a crash would
  restart DIR                  stop if it runs, start again: same port, same data
  clean DIR                    kill if it runs and remove the folder
  status DIR                   print state=running|stopped and what `start` printed
  topic DIR create NAME [PARTITIONS] [KEY=VALUE]...    topic settings such as retention.ms=1000
  topic DIR alter NAME PARTITIONS                      grow to so many partitions
  topic DIR delete NAME
  topic DIR list
  produce DIR NAME             one message a line from standard input
  consume DIR NAME COUNT       print that many messages from the start (fails if they don't come in 30 s)
  offsets DIR NAME             print NAME:PARTITION:END-OFFSET lines
  trim DIR NAME PARTITION OFFSET     delete what is before OFFSET, as retention would
  run DIR CLASS [ARG]...       any other tool of Kafka's, by its Java class

Exit code 77: Java 17 (or newer), Maven or openssl is missing, so tests on real Kafka cannot run.
Environment: TIDEMILL_CACHE (default ~/.cache/tidemill), TIDEMILL_KAFKA_HEAP (512m).

Examples:
  eval "$(scripts/kafka.sh start)"                     # sets $bootstrap and $dir
  scripts/kafka.sh topic "$dir" create orders 4
  echo '{"order_id":1}' | scripts/kafka.sh produce "$dir" orders
  scripts/kafka.sh consume "$dir" orders 1
  scripts/kafka.sh kill "$dir"; scripts/kafka.sh restart "$dir"
  scripts/kafka.sh clean "$dir"
EOF
}

# ---- fetching ---------------------------------------------------------------

# Warnings only, but for the one line that says a broker is up, which `start` waits for.
broker_log_config() {
  cat <<'EOF'
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %-5p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.up.name = kafka.server.KafkaRaftServer
logger.up.level = info
EOF
}

tools_log_config() {
  cat <<'EOF'
status = error
appender.err.type = Console
appender.err.name = err
appender.err.target = SYSTEM_ERR
appender.err.layout.type = PatternLayout
appender.err.layout.pattern = %p %m%n
rootLogger.level = error
rootLogger.appenderRef.err.ref = err
EOF
}

jars() { # DIR
  maven "Apache Kafka $KAFKA_VERSION" "$1" <<EOF
<dependency>
  <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$KAFKA_VERSION</version>
</dependency>
<dependency>
  <groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$KAFKA_VERSION</version>
  <exclusions>
    <exclusion><groupId>org.apache.kafka</groupId><artifactId>connect-runtime</artifactId></exclusion>
  </exclusions>
</dependency>
<dependency>
  <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>$LOG4J_VERSION</version>
</dependency>
EOF
  broker_log_config >"$1/broker-log4j2.properties"
  tools_log_config >"$1/tools-log4j2.properties"
}

install() {
  need_java "Apache Kafka $KAFKA_VERSION"
  once "$CACHE" jars
}

# ---- running Java -----------------------------------------------------------

# tool CLASS [ARG]...: one of Kafka's command-line tools, quick to start.
tool() {
  java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData \
    -Dlog4j2.configurationFile="$CACHE/tools-log4j2.properties" -cp "$CACHE/lib/*" "$@"
}

# The broker's process id, if it runs. The folder in its command line guards
# against a number that meanwhile belongs to somebody else.
broker_pid() {
  local pid
  pid=$(cat "$1/broker.pid" 2>/dev/null) || return 1
  [ -n "$pid" ] || return 1
  { tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qxF -- "-Dtidemill.dir=$1"; } 2>/dev/null || return 1
  echo "$pid"
}

property() { sed -n "s/^$2=//p" "$1/endpoint"; }

# Kafka answers an ApiVersions request: a listening port alone proves little.
answers() {
  local port=$1 bytes
  { exec 8<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || return 1
  printf '\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff' >&8
  bytes=$(timeout 2 head -c 4 <&8 2>/dev/null | wc -c)
  exec 8>&-
  [ "$bytes" -eq 4 ]
}

taken() { (exec 7<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
  local port
  for _ in $(seq 200); do
    # Below the range that Linux hands out for outgoing connections, so that no
    # such connection takes the port while a broker is down for its restart.
    port=$((12000 + RANDOM % 20000))
    if ! taken "$port"; then
      echo "$port"
      return
    fi
  done
  fail "found no free port."
}

# ---- configuration of one broker ----------------------------------------------

server_properties() { # DIR PORT CONTROLLER_PORT SASL_PORT
  cat <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$3
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
listeners=PLAINTEXT://127.0.0.1:$2,CONTROLLER://127.0.0.1:$3${4:+,SASL_SSL://127.0.0.1:$4}
log.dirs=$1/data
auto.create.topics.enable=false
num.partitions=1
num.network.threads=2
num.io.threads=4
default.replication.factor=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=8388608
# Test data bears any timestamp: it is neither refused nor deleted for its age.
log.retention.ms=-1
log.message.timestamp.after.max.ms=9223372036854775807
# After kill -9 a broker is let in again once its old session has run out.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
EOF
  [ -z "$4" ] || cat <<EOF
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_tidemill="$(cat "$1/tls/password")";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location=$1/tls/server.pem
EOF
}

# A certificate authority of this broker's own and a server certificate from it.
make_tls() {
  local tls=$1/tls
  command -v openssl >/dev/null || skip "openssl is not installed, which --sasl needs."
  mkdir -p "$tls"
  [ -f "$tls/server.pem" ] && return
  (
    umask 077
    openssl rand -hex 16 >"$tls/password"
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=tidemill test CA" \
      -keyout "$tls/ca.key" -out "$tls/ca.pem"
    openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" -keyout "$tls/server.key" -out "$tls/server.csr"
    openssl x509 -req -in "$tls/server.csr" -CA "$tls/ca.pem" -CAkey "$tls/ca.key" -CAcreateserial -days 3650 \
      -extfile <(printf 'subjectAltName=DNS:localhost,IP:127.0.0.1') -out "$tls/server.crt"
    cat "$tls/server.key" "$tls/server.crt" "$tls/ca.pem" >"$tls/server.pem"
  ) 2>"$tls/openssl.log" || fail "openssl could not make the certificates: $(cat "$tls/openssl.log")"
}

# What `StorageTool random-uuid` prints, without a Java start: 16 bytes in base64url, no dash in front.
cluster_id() { head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n' | sed 's/^-/T/'; }

format() {
  local dir=$1 password scram=()
  if [ -f "$dir/tls/password" ]; then
    password=$(cat "$dir/tls/password")
    scram=(--add-scram "SCRAM-SHA-256=[name=tidemill,password=$password]"
      --add-scram "SCRAM-SHA-512=[name=tidemill,password=$password]")
  fi
  tool kafka.tools.StorageTool format --ignore-formatted --config "$dir/server.properties" \
    --cluster-id "$(cluster_id)" ${scram[@]+"${scram[@]}"} >"$dir/format.log" 2>&1 \
    || fail "could not format $dir/data: $(cat "$dir/format.log")"
}

# ---- the life of one broker ---------------------------------------------------

launch() {
  local dir=$1
  [ ! -f "$dir/broker.log" ] || mv "$dir/broker.log" "$dir/broker.previous.log"
  # A session of its own: Ctrl-C in the terminal, or the end of a test, is not its end;
  # and it must not hold the caller's pipes open.
  setsid java "-Xmx$HEAP" "-Xms$HEAP" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData \
    -Djava.awt.headless=true "-Dtidemill.dir=$dir" \
    -Dlog4j2.configurationFile="$CACHE/broker-log4j2.properties" -cp "$CACHE/lib/*" \
    kafka.Kafka "$dir/server.properties" </dev/null >"$dir/broker.log" 2>&1 &
  echo $! >"$dir/broker.pid"
}

# 0: it answers; 2: it ended (the log says why); 1: it took too long.
wait_until_up() {
  local dir=$1 port end=$((SECONDS + PATIENCE))
  port=$(property "$dir" bootstrap)
  port=${port##*:}
  while [ $SECONDS -lt $end ]; do
    if grep -q 'Kafka Server started' "$dir/broker.log" 2>/dev/null && answers "$port"; then return 0; fi
    kill -0 "$(cat "$dir/broker.pid")" 2>/dev/null || return 2
    sleep 0.1
  done
  return 1
}

wait_until_gone() {
  local dir=$1 end=$((SECONDS + PATIENCE))
  while broker_pid "$dir" >/dev/null; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.05
  done
  rm -f "$dir/broker.pid"
}

start_failed() {
  tail -n 20 "$1/broker.log" >&2 || true
  kill_broker "$1"
  fail "the broker in $1 did not start; the end of its log is above."
}

# Ends the broker when PARENT ends, however that ends: a test that is killed leaves nothing behind.
watch_parent() { # DIR PARENT REMOVE
  (
    trap '' HUP
    while [ -d "$1" ] && kill -0 "$2" 2>/dev/null; do sleep 1; done
    [ -d "$1" ] || exit 0
    kill_broker "$1"
    [ "$3" = no ] || rm -rf "$1"
  ) </dev/null >/dev/null 2>&1 &
  disown
}

start() {
  local port='' dir='' sasl=no parent='' temporary=no extra=()
  while [ $# -gt 0 ]; do
    case $1 in
      --sasl) sasl=yes; shift; continue ;;
      --port | --dir | --parent | --set) [ $# -ge 2 ] || fail "$1 needs a value." ;;
      *) fail "start knows no $1; see --help." ;;
    esac
    case $1 in
      --port) port=$2 ;;
      --dir) dir=$2 ;;
      --parent) parent=$2 ;;
      --set) extra+=("$2") ;;
    esac
    shift 2
  done
  [[ $port =~ ^[0-9]*$ ]] || fail "--port wants a number, not \`$port\`."
  install
  if [ -n "$port" ] && [ ! -f "$dir/endpoint" ] && taken "$port"; then fail "port $port is in use."; fi
  if [ -z "$dir" ]; then
    dir=$(mktemp -d "${TMPDIR:-/tmp}/tidemill-kafka.XXXXXX")
    temporary=yes
  fi
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd -P)
  if broker_pid "$dir" >/dev/null; then
    describe "$dir"
    return
  fi
  if [ -f "$dir/endpoint" ]; then
    restart "$dir"
  else
    [ "$sasl" = no ] || make_tls "$dir"
    start_new "$dir" "$port" "$sasl" ${extra[@]+"${extra[@]}"}
  fi
  [ -z "$parent" ] || watch_parent "$dir" "$parent" "$temporary"
  describe "$dir"
}

# A port that was free a moment ago may be taken by now: then with others, a few times.
start_new() { # DIR PORT SASL [KEY=VALUE]...
  local dir=$1 wanted=$2 sasl=$3 port controller secure='' outcome
  shift 3
  for _ in $(seq 5); do
    port=${wanted:-$(free_port)}
    controller=$(free_port)
    [ "$sasl" = no ] || secure=$(free_port)
    server_properties "$dir" "$port" "$controller" "$secure" >"$dir/server.properties"
    [ $# -eq 0 ] || printf '%s\n' "$@" >>"$dir/server.properties"
    {
      echo "bootstrap=127.0.0.1:$port"
      [ "$sasl" = no ] || echo "sasl_bootstrap=127.0.0.1:$secure"
    } >"$dir/endpoint"
    rm -rf "$dir/data"
    format "$dir"
    launch "$dir"
    outcome=0
    wait_until_up "$dir" || outcome=$?
    [ $outcome -ne 0 ] || return 0
    if [ $outcome -eq 1 ] || ! grep -q 'Address already in use' "$dir/broker.log"; then break; fi
  done
  rm -f "$dir/endpoint"
  start_failed "$dir"
}

describe() {
  cat "$1/endpoint"
  if [ -f "$1/tls/password" ]; then
    echo "sasl_user=tidemill"
    echo "sasl_password=$(cat "$1/tls/password")"
    echo "ssl_ca=$1/tls/ca.pem"
  fi
  echo "dir=$1"
}

stop() {
  local pid
  if ! pid=$(broker_pid "$1"); then return 0; fi
  kill -TERM "$pid"
  wait_until_gone "$1" || fail "the broker in $1 did not stop within $PATIENCE s; try: kafka.sh kill $1"
}

kill_broker() {
  local pid
  if ! pid=$(broker_pid "$1"); then return 0; fi
  kill -KILL "$pid" 2>/dev/null || true
  wait_until_gone "$1"
}

restart() {
  install
  stop "$1"
  launch "$1"
  wait_until_up "$1" || start_failed "$1"
}

status() {
  if broker_pid "$1" >/dev/null; then echo "state=running"; else echo "state=stopped"; fi
  describe "$1"
}

clean() {
  kill_broker "$1"
  rm -rf "$1"
}

# ---- topics and messages ------------------------------------------------------

topic() { # DIR VERB [NAME] ...
  local dir=$1 verb=${2:-} bootstrap settings=()
  shift $(($# < 2 ? $# : 2))
  bootstrap=$(property "$dir" bootstrap)
  local admin=(org.apache.kafka.tools.TopicCommand --bootstrap-server "$bootstrap")
  case $verb in
    create)
      [ $# -ge 1 ] || fail "topic DIR create wants NAME [PARTITIONS] [KEY=VALUE]..."
      local name=$1 partitions=1
      shift
      if [[ ${1:-} =~ ^[0-9]+$ ]]; then partitions=$1; shift; fi
      for setting in "$@"; do settings+=(--config "$setting"); done
      tool "${admin[@]}" --create --topic "$name" --partitions "$partitions" --replication-factor 1 \
        ${settings[@]+"${settings[@]}"} | without_name_warning
      ;;
    alter)
      [ $# -eq 2 ] || fail "topic DIR alter wants NAME PARTITIONS."
      tool "${admin[@]}" --alter --topic "$1" --partitions "$2"
      ;;
    delete)
      [ $# -eq 1 ] || fail "topic DIR delete wants NAME."
      tool "${admin[@]}" --delete --topic "$1"
      ;;
    list) tool "${admin[@]}" --list --exclude-internal ;;
    *) fail "topic knows create, alter, delete and list, not \`$verb\`." ;;
  esac
}

# Kafka warns of every name with a dot or an underscore in it.
without_name_warning() { grep -v '^WARNING: Due to limitations in metric names' || true; }

produce() {
  [ $# -eq 2 ] || fail "produce wants DIR NAME."
  tool org.apache.kafka.tools.ConsoleProducer --bootstrap-server "$(property "$1" bootstrap)" --topic "$2" \
    --command-property acks=all --command-property linger.ms=5 >/dev/null
}

consume() {
  [ $# -eq 3 ] || fail "consume wants DIR NAME COUNT."
  local lines
  lines=$(mktemp)
  tool org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$(property "$1" bootstrap)" --topic "$2" \
    --from-beginning --max-messages "$3" --timeout-ms 30000 2>"$lines.err" | tee "$lines" || true
  local got
  got=$(wc -l <"$lines")
  if [ "$got" -lt "$3" ]; then cat "$lines.err" >&2; fi
  rm -f "$lines" "$lines.err"
  [ "$got" -ge "$3" ] || fail "got $got of $3 messages from $2."
}

offsets() {
  [ $# -eq 2 ] || fail "offsets wants DIR NAME."
  tool org.apache.kafka.tools.GetOffsetShell --bootstrap-server "$(property "$1" bootstrap)" --topic "$2"
}

trim() {
  [ $# -eq 4 ] || fail "trim wants DIR NAME PARTITION OFFSET."
  printf '{"version":1,"partitions":[{"topic":"%s","partition":%d,"offset":%d}]}\n' "$2" "$3" "$4" >"$1/trim.json"
  local answer
  answer=$(tool org.apache.kafka.tools.DeleteRecordsCommand --bootstrap-server "$(property "$1" bootstrap)" \
    --offset-json-file "$1/trim.json")
  # The tool exits 0 even when the broker refuses.
  if grep -q 'error:' <<<"$answer"; then fail "could not trim $2: $answer"; fi
}

# ---- the command line ---------------------------------------------------------

broker_dir() {
  [ -n "${1:-}" ] || fail "which broker? Give the folder that \`start\` printed as dir=..."
  [ -f "$1/server.properties" ] || fail "no broker was ever started in \`$1\`."
  (cd "$1" && pwd -P)
}

main() {
  local command=${1:-}
  [ $# -eq 0 ] || shift
  case $command in
    install) install; echo "kafka=$KAFKA_VERSION"; echo "lib=$CACHE/lib"; return ;;
    start) start "$@"; return ;;
    -h | --help | help) usage; return ;;
    '') usage >&2; exit 2 ;;
    stop | kill | restart | clean | status | topic | produce | consume | offsets | trim | run) ;;
    *) fail "no command \`$command\`; see --help." ;;
  esac
  # Cleaning what is gone already is no mistake: tests do it in their destructors.
  [ "$command" != clean ] || [ -z "${1:-}" ] || [ -d "$1" ] || return 0
  local dir
  dir=$(broker_dir "${1:-}")
  shift
  case $command in
    kill) kill_broker "$dir" ;;
    restart) restart "$dir"; describe "$dir" ;;
    run) tool "$@" ;;
    *) "$command" "$dir" "$@" ;;
  esac
}

main "$@"
