//! The command line as it was typed, before anything is looked up or defaulted.
//!
//! What a flag means, together with the environment and `tidemill.toml`, is
//! settled in `config.rs`; here every value is optional and mostly text.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::config::Flags;

/// Streaming SQL: Kafka topics in, continuous queries, Delta tables out.
#[derive(Debug, Parser)]
#[command(
    name = "tidemill",
    version,
    arg_required_else_help = true,
    after_help = "Examples:\n  \
        tidemill demo                                  See the whole of it run, without Kafka\n  \
        tidemill run --once pipeline.sql               Process what is there, then leave\n  \
        tidemill sql -c 'SELECT count(*) FROM paid' --format csv\n  \
        tidemill serve --listen 127.0.0.1:50051        Run queries and serve Flight SQL\n\n\
        Every option can also be set in the environment (TIDEMILL_WAREHOUSE, …) or in\n\
        tidemill.toml; `tidemill config` shows what holds and where it comes from."
)]
pub struct Args {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, ClapArgs)]
pub struct GlobalArgs {
    /// Configuration file [default: tidemill.toml in the current folder, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What is logged to stderr: error, warn, info, debug, trace, or a RUST_LOG filter
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// text or json
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the whole of it: topics, continuous queries, Delta tables, Flight SQL
    Demo(DemoArgs),
    /// Run SQL: statements, a file, or an interactive shell
    Sql(SqlArgs),
    /// Run the continuous queries of SQL files in the foreground
    Run(RunArgs),
    /// Run the warehouse's continuous queries and serve Flight SQL
    Serve(ServeArgs),
    /// Send the statements of SQL files to a server
    Submit(SubmitArgs),
    /// Show the continuous queries: state, backlog, freshness
    Status(StatusArgs),
    /// Parse, plan and explain SQL files; contacts nothing
    Check(CheckArgs),
    /// Make seeded events, to a topic, a file or stdout
    Generate(GenerateArgs),
    /// Show every setting, its value, and where it comes from
    Config(ConfigArgs),
}

/// Which warehouse, and how its engine runs.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct WarehouseArgs {
    /// Folder or URL that holds the tables [default: ./tidemill-data]
    #[arg(long, short = 'w', value_name = "DIR|URL")]
    pub warehouse: Option<String>,
    /// Option of the object store behind the warehouse, as object_store names it
    #[arg(long = "storage-option", value_name = "KEY=VALUE")]
    pub storage_options: Vec<String>,
    /// How often a query looks for new rows [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub trigger_interval: Option<String>,
    /// Most rows an epoch takes from a source [default: 1M]
    #[arg(long, value_name = "N")]
    pub max_rows_per_epoch: Option<String>,
}

/// Which server.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct ConnectArgs {
    /// A running server: grpc://HOST:PORT, or grpc+tls://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub connect: Option<String>,
    /// CA certificate (PEM) to trust for grpc+tls [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<String>,
    #[command(flatten)]
    pub login: LoginArgs,
}

#[derive(Debug, Clone, Default, ClapArgs)]
pub struct LoginArgs {
    /// User name
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Password (visible in process lists: prefer --password-file or TIDEMILL_PASSWORD)
    #[arg(long, value_name = "PASSWORD")]
    pub password: Option<String>,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    pub password_file: Option<String>,
}

#[derive(Debug, Clone, Default, ClapArgs)]
pub struct ListenArgs {
    /// Address to serve Flight SQL on; port 0 takes a free one [default: 127.0.0.1:50051]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Certificate chain (PEM) of the server
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<String>,
    /// Private key (PEM) of the server
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<String>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidemill demo                                  Live view in the terminal; q leaves\n  \
    tidemill demo --rate 5000/s\n  \
    tidemill demo --headless --for 30s             Plain lines, a summary, an exit code\n  \
    tidemill demo --warehouse /tmp/mill            Keep the Delta tables there")]
pub struct DemoArgs {
    /// Plain lines instead of the live view
    #[arg(long)]
    pub headless: bool,
    /// Stop after this long [default: until q or Ctrl-C]
    #[arg(long = "for", value_name = "DURATION")]
    pub duration: Option<String>,
    /// Events produced a second
    #[arg(long, value_name = "RATE", default_value = "2000/s")]
    pub rate: String,
    /// Folder for the Delta tables; must be new or empty [default: a fresh temporary folder]
    #[arg(long, short = 'w', value_name = "DIR")]
    pub warehouse: Option<String>,
    /// Seed of the generator
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u32,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidemill sql                                   Interactive; \\? shows its commands\n  \
    tidemill sql -c 'SELECT * FROM paid' --format csv > paid.csv\n  \
    tidemill sql -f setup.sql -c 'SHOW QUERIES'\n  \
    echo 'SELECT 1' | tidemill sql -f -\n  \
    tidemill sql --connect grpc://localhost:50051\n\n\
    Without --connect the warehouse is opened in this process; if a server runs on it\n\
    already, it is opened for reading only.")]
pub struct SqlArgs {
    /// Run these statements and leave (repeatable)
    #[arg(long, short = 'c', value_name = "SQL", allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// Run the statements of a file and leave; - is stdin (repeatable, before -c)
    #[arg(long, short = 'f', value_name = "FILE|-")]
    pub file: Vec<String>,
    /// table, csv, json or ndjson
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// No pager for results taller than the terminal
    #[arg(long)]
    pub no_pager: bool,
    /// Show how long each statement took
    #[arg(long)]
    pub timing: bool,
    #[command(flatten)]
    pub warehouse: WarehouseArgs,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidemill run pipeline.sql                      Until Ctrl-C; the epoch in flight is finished\n  \
    tidemill run --once pipeline.sql               What is available now, then leave\n  \
    tidemill run sources.sql views.sql --warehouse s3://lake/mill\n\n\
    Running the same files again goes on where they stopped: a CREATE that the warehouse\n\
    already holds, word for word, is passed over; a different one is an error. INSERTs of\n\
    given rows are executed each time.")]
pub struct RunArgs {
    /// SQL files, executed in this order; none runs what the warehouse already holds
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Process what is available at the start, in as many epochs as needed, and leave
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub warehouse: WarehouseArgs,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidemill serve                                 Loopback, no password\n  \
    tidemill serve --listen 0.0.0.0:50051 --user admin --password-file secret.txt\n  \
    tidemill serve --listen 0.0.0.0:50051 --user admin --password-file secret.txt \\\n    \
    --tls-cert server.pem --tls-key server.key\n\n\
    Anything but loopback needs a user and a password. Ctrl-C or SIGTERM finishes the\n\
    epochs in flight; after a restart every query runs on where it was.")]
pub struct ServeArgs {
    #[command(flatten)]
    pub listen: ListenArgs,
    #[command(flatten)]
    pub login: LoginArgs,
    #[command(flatten)]
    pub warehouse: WarehouseArgs,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidemill submit queries/demo/*.sql --connect grpc://localhost:50051\n  \
    tidemill submit view.sql                       To the server on this machine")]
pub struct SubmitArgs {
    /// SQL files, executed in this order; - is stdin
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidemill status\n  \
    tidemill status --connect grpc://localhost:50051 --watch\n  \
    tidemill status --format json")]
pub struct StatusArgs {
    /// Show again every so often, until Ctrl-C
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "2s")]
    pub watch: Option<String>,
    /// table, csv, json or ndjson
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    #[command(flatten)]
    pub warehouse: WarehouseArgs,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidemill check queries/demo/*.sql\n  \
    tidemill check --explain pipeline.sql          With the incremental plan of each query\n\n\
    The files are checked together, in this order, against an empty catalog: a view may\n\
    use a source of an earlier file. Exit code 0 only if every statement is right.")]
pub struct CheckArgs {
    /// SQL files; - is stdin
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Print how each continuous query is maintained
    #[arg(long)]
    pub explain: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidemill generate orders --rows 5              To stdout, as JSON lines\n  \
    tidemill generate orders --rows 1M --to orders.ndjson\n  \
    tidemill generate orders --rate 50/s --late 2% --broken 0.1% --to kafka://localhost:9092/orders\n  \
    tidemill generate nexmark --rows 10M --to nexmark      Three series of files in a folder\n  \
    tidemill generate nexmark --rate 10k/s --to kafka://localhost:9092/nexmark   Topics nexmark-bid, …")]
pub struct GenerateArgs {
    /// What to make; `tidemill generate list` names the templates
    #[arg(value_name = "TEMPLATE")]
    pub template: String,
    /// Events a second [default: as fast as it goes]
    #[arg(long, value_name = "RATE")]
    pub rate: Option<String>,
    /// How many events [default: all of users and products, else until Ctrl-C]
    #[arg(long, value_name = "N")]
    pub rows: Option<String>,
    /// The same seed makes the same events
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u32,
    /// Event time of the first event: ISO 8601, or now [default: now with --rate, else 2025-01-01]
    #[arg(long, value_name = "TIME")]
    pub start_time: Option<String>,
    /// Share of events whose event time lies up to two minutes back
    #[arg(long, value_name = "SHARE", default_value = "0%")]
    pub late: String,
    /// Share of events that can't be decoded
    #[arg(long, value_name = "SHARE", default_value = "0%")]
    pub broken: String,
    /// kafka://HOST:PORT/TOPIC, a file, or - for stdout; for nexmark a folder, or the topics' prefix
    #[arg(long, value_name = "WHERE", default_value = "-")]
    pub to: String,
    /// librdkafka property for kafka:// (repeatable): security.protocol=SASL_SSL
    #[arg(long = "property", value_name = "KEY=VALUE")]
    pub properties: Vec<String>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidemill config                                What holds here, and why\n  \
    tidemill config > tidemill.toml                A file to start from\n  \
    TIDEMILL_TRIGGER_INTERVAL=100ms tidemill config")]
pub struct ConfigArgs {
    #[command(flatten)]
    pub warehouse: WarehouseArgs,
    #[command(flatten)]
    pub listen: ListenArgs,
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// table, csv, json or ndjson
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Csv,
    Json,
    Ndjson,
}

impl GlobalArgs {
    pub fn flags(&self, flags: &mut Flags) {
        flags.set("log_level", &self.log_level);
        flags.set("log_format", &self.log_format);
    }
}

impl WarehouseArgs {
    pub fn flags(&self, flags: &mut Flags) {
        flags.set("warehouse", &self.warehouse);
        flags.set("trigger_interval", &self.trigger_interval);
        flags.set("max_rows_per_epoch", &self.max_rows_per_epoch);
        flags.storage.extend(self.storage_options.iter().cloned());
    }
}

impl LoginArgs {
    pub fn flags(&self, flags: &mut Flags) {
        flags.set("user", &self.user);
        flags.set("password", &self.password);
        flags.set("password_file", &self.password_file);
    }
}

impl ConnectArgs {
    pub fn flags(&self, flags: &mut Flags) {
        flags.set("connect", &self.connect);
        flags.set("tls_ca", &self.tls_ca);
        self.login.flags(flags);
    }
}

impl ListenArgs {
    pub fn flags(&self, flags: &mut Flags) {
        flags.set("listen", &self.listen);
        flags.set("tls_cert", &self.tls_cert);
        flags.set("tls_key", &self.tls_key);
    }
}

impl Command {
    /// The flags that are settings too.
    pub fn flags(&self, flags: &mut Flags) {
        match self {
            Command::Sql(args) => {
                flags.set("format", &args.format);
                args.warehouse.flags(flags);
                args.connect.flags(flags);
            }
            Command::Run(args) => args.warehouse.flags(flags),
            Command::Serve(args) => {
                args.listen.flags(flags);
                args.login.flags(flags);
                args.warehouse.flags(flags);
            }
            Command::Submit(args) => args.connect.flags(flags),
            Command::Status(args) => {
                flags.set("format", &args.format);
                args.warehouse.flags(flags);
                args.connect.flags(flags);
            }
            Command::Config(args) => {
                flags.set("format", &args.format);
                args.warehouse.flags(flags);
                args.listen.flags(flags);
                args.connect.flags(flags);
            }
            Command::Demo(_) | Command::Check(_) | Command::Generate(_) => {}
        }
    }
}
