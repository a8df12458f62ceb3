# Names for the commands that people use. Plain cargo and the scripts do as well.

set positional-arguments

# Lists the names.
default:
    @just --list --unsorted

# The main job in a terminal: broker, generator, continuous queries, Flight SQL.
demo *arguments:
    cargo run -p tidemill -- demo "$@"

# The SQL shell on the default warehouse.
sql *arguments:
    cargo run -p tidemill -- sql "$@"

# All tests; those that lack Kafka or a Python client say so and are skipped.
test *arguments:
    cargo test --workspace "$@"

# One package's unit tests: `just unit tidemill-engine changelog`.
unit package *filter:
    cargo test -p "$@"

# The end-to-end tests on real Kafka in their long forms; writes RESULTS.md.
long *filter:
    scripts/long.sh "$@"

# What CI runs, on this machine.
ci:
    .ci/run

# Formats.
fmt:
    cargo fmt --all

# Lints as CI does.
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Licences, duplicate crates, advisories (needs cargo-deny).
deny:
    cargo deny check

# Real Apache Kafka: `just kafka start`.
kafka *arguments:
    scripts/kafka.sh "$@"

# Accepts changed snapshots and expected results after review: see CONTRIBUTING.md.
accept *arguments:
    INSTA_UPDATE=always cargo test -p tidemill-tests "$@"

# Benchmarks; `just bench --help` lists them.
bench *arguments:
    cargo run --release -p tidemill-benchmarks -- "$@"
