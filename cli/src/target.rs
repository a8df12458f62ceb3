//! Who executes a statement: this process, or a server over Flight SQL.
//!
//! Everything above (the shell, `submit`, `status`) speaks to a [`Target`] and
//! does not know the difference.

use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Result, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{Stream, StreamExt};
use tidemill_engine::config::EngineConfig;
use tidemill_sql::session::{Access, Answer, Database, Done, Session};

use crate::args::{ConnectArgs, WarehouseArgs};
use crate::config::Config;
use crate::failure::Failure;
use crate::output::talk;

mod remote;
pub use remote::Remote;

/// Rows as they come; dropping it cancels the query.
pub struct Rows {
    pub schema: SchemaRef,
    pub batches: Pin<Box<dyn Stream<Item = Result<RecordBatch, tidemill_sql::Error>> + Send>>,
}

/// What a statement answers.
pub enum Reply {
    Rows(Rows),
    Done(Done),
}

/// An open warehouse, or a connection.
pub enum Target {
    Embedded { database: Arc<Database>, session: Box<Session> },
    Remote(Remote),
}

impl Target {
    /// The server that `--connect` names, or else the warehouse.
    pub async fn open(config: &Config, access: Access, typed: &Typed) -> Result<Self> {
        if typed.connect && typed.warehouse {
            bail!("--warehouse and --connect exclude each other: a server has its own warehouse");
        }
        match &config.connect {
            Some(address) => Ok(Target::Remote(Remote::connect(address, config).await?)),
            None => Self::embedded(&config.engine, access).await,
        }
    }

    /// Opens the warehouse; one that another process runs is opened for reading.
    async fn embedded(config: &EngineConfig, access: Access) -> Result<Self> {
        let opened = Database::open(config.clone(), access).await;
        let database = match opened {
            Err(error) if access != Access::ReadOnly && is_taken(&error) => {
                talk(format!(
                    "note: {} is run by another process; opened for reading only\n\
                     (to change it, connect to that server: --connect grpc://HOST:PORT)",
                    config.warehouse
                ));
                Database::open(config.clone(), Access::ReadOnly).await
            }
            opened => opened,
        };
        let database = database.map_err(|error| Failure::of(&error, ""))?;
        Ok(Self::of(database))
    }

    pub fn of(database: Arc<Database>) -> Self {
        let session = Box::new(database.session());
        Target::Embedded { database, session }
    }

    /// Executes one statement.
    pub async fn execute(&self, sql: &str) -> Result<Reply, tidemill_sql::Error> {
        match self {
            Target::Embedded { session, .. } => Ok(match session.execute(sql).await? {
                Answer::Done(done) => Reply::Done(done),
                Answer::Rows(stream) => Reply::Rows(Rows {
                    schema: stream.schema(),
                    batches: stream.map(|batch| batch.map_err(Into::into)).boxed(),
                }),
            }),
            Target::Remote(remote) => remote.execute(sql).await,
        }
    }

    /// Words that can stand at the end of `before`.
    pub fn completions(&self, before: &str) -> Vec<String> {
        match self {
            Target::Embedded { session, .. } => session.completions(before),
            Target::Remote(remote) => remote.completions(before),
        }
    }

    /// Finishes the epochs in flight and lets go of the warehouse.
    pub async fn close(&self) -> Result<()> {
        match self {
            Target::Embedded { database, .. } => {
                database.shutdown().await.map_err(|error| Failure::of(&error, "").into())
            }
            Target::Remote(remote) => {
                remote.close().await;
                Ok(())
            }
        }
    }
}

/// What stood on the command line, as against in the environment or the file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Typed {
    pub warehouse: bool,
    pub connect: bool,
}

impl Typed {
    pub fn of(warehouse: &WarehouseArgs, connect: &ConnectArgs) -> Self {
        Self { warehouse: warehouse.warehouse.is_some(), connect: connect.connect.is_some() }
    }
}

/// All rows of a reply, for results that are known to be small.
pub async fn collect(rows: Rows) -> Result<Vec<RecordBatch>, tidemill_sql::Error> {
    let mut batches = Vec::new();
    let mut stream = rows.batches;
    while let Some(batch) = stream.next().await {
        batches.push(batch?);
    }
    Ok(batches)
}

/// Whether another process holds the warehouse's lease.
fn is_taken(error: &tidemill_sql::Error) -> bool {
    use tidemill_sql::error::Cause;
    matches!(error.cause(), Cause::Engine(tidemill_engine::Error::InUse { .. }))
}
