//! Runs statements and directives against an engine whose epochs are stepped by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};
use tidemill_engine::runtime::{Engine, QueryState};
use tidemill_engine::source::memory::Record;
use tidemill_sql::{Answer, Session};
use tokio::sync::Mutex;

use crate::directive::{self, Directive};
use crate::error::{Error, Result};
use crate::oracle;
use crate::values::{collect, letter, texts};
use crate::way::Way;
use crate::world::World;

/// A script that has not come to an end after so many epochs never will.
const MANY_EPOCHS: u64 = 2_000;

type Output = DBOutput<DefaultColumnType>;

/// One script's engine, in one way of running it.
pub struct Driver {
    world: World,
    way: Way,
    session: Option<Session>,
    /// Records that were dealt out, by topic.
    dealt: BTreeMap<String, usize>,
}

impl Driver {
    pub fn new(mut world: World, way: Way) -> Self {
        match way {
            Way::OneRow => world.config.max_rows_per_epoch = 1,
            Way::Overlapped => world.config.max_rows_per_epoch = 2,
            _ => {}
        }
        Self { world, way, session: None, dealt: BTreeMap::new() }
    }

    /// The session, once something was run.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    async fn open(&mut self) -> Result<&Session> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.world.open().await?.session(),
        };
        Ok(self.session.insert(session))
    }

    async fn engine(&mut self) -> Result<Arc<Engine>> {
        Ok(Arc::clone(self.open().await?.database().engine()))
    }

    /// Drops the engine as a crash does, and opens another one over what it left.
    pub async fn restart(&mut self) -> Result<()> {
        self.session = None;
        self.open().await?;
        Ok(())
    }

    pub async fn execute(&mut self, text: &str) -> Result<Output> {
        match directive::parse(text)? {
            Some(directive) => self.direct(directive).await,
            None => self.statement(text).await,
        }
    }

    async fn statement(&mut self, sql: &str) -> Result<Output> {
        match self.open().await?.execute(sql).await? {
            Answer::Done(done) => Ok(DBOutput::StatementComplete(done.rows.unwrap_or(0))),
            Answer::Rows(rows) => {
                let fields = rows.schema().fields().clone();
                let types = fields.iter().map(|field| letter(field.data_type())).collect();
                let rows = texts(&collect(rows).await?)?;
                Ok(DBOutput::Rows { types, rows })
            }
        }
    }

    async fn direct(&mut self, directive: Directive) -> Result<Output> {
        let count = match directive {
            Directive::Topic { topic, partitions } => {
                let partitions = if self.way == Way::ThreePartitions { 3 } else { partitions };
                self.world.broker.create_topic(&topic, partitions);
                partitions as u64
            }
            Directive::Produce { topic, partition, records } => {
                self.produce(&topic, partition, records)?
            }
            Directive::Step(query) if self.way == Way::OneRow => {
                self.run_dry(query.as_deref()).await?
            }
            Directive::Step(query) => self.step(query.as_deref()).await?,
            Directive::Run if self.way == Way::Overlapped => {
                self.open().await?.database().run_once(&|_| ()).await?;
                0
            }
            Directive::Run => self.run_dry(None).await?,
            Directive::Restart => {
                self.restart().await?;
                0
            }
            Directive::Advance(by) => {
                let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
                self.world.clock.advance_us(by);
                0
            }
            Directive::Away(reads) => {
                self.world.broker.fail_next_reads(reads);
                0
            }
            Directive::Expire { topic, partition, oldest } => {
                self.world.broker.expire(&topic, partition, oldest)?;
                0
            }
            Directive::Changes(view) => return self.changes(&view).await,
        };
        Ok(DBOutput::StatementComplete(count))
    }

    fn produce(
        &mut self,
        topic: &str,
        partition: Option<i32>,
        records: Vec<Record>,
    ) -> Result<u64> {
        let broker = &self.world.broker;
        let dealing = self.way == Way::ThreePartitions;
        if !broker.topics().contains_key(topic) {
            broker.create_topic(topic, if dealing { 3 } else { 1 });
        }
        let count = records.len() as u64;
        let dealt = self.dealt.entry(topic.to_owned()).or_default();
        let now_ms = self.world.clock.now_us().div_euclid(1000);
        for mut record in records {
            let partition = if dealing { (*dealt % 3) as i32 } else { partition.unwrap_or(0) };
            *dealt += 1;
            record.timestamp_ms = now_ms;
            broker.produce_record(topic, partition, record)?;
        }
        Ok(count)
    }

    /// Epochs until nothing is new; answers how many there were.
    async fn run_dry(&mut self, only: Option<&str>) -> Result<u64> {
        let mut epochs = 0;
        loop {
            match self.step(only).await? {
                0 => return Ok(epochs),
                made => epochs += made,
            }
            if epochs > MANY_EPOCHS {
                return Err(Error::script("RUN comes to no end: is a source endless?"));
            }
        }
    }

    /// One epoch of each query that is not paused; the first that fails is
    /// reported after the others had their turn. Answers how many had something to do.
    async fn step(&mut self, only: Option<&str>) -> Result<u64> {
        let names = self.due(only).await?;
        let mut made = 0;
        let mut failed = None;
        for name in names {
            // Not in the `match`: what it holds would outlive a restart.
            let stepped = self.engine().await?.step(&name).await;
            match stepped {
                Ok(None) => {}
                Ok(Some(_)) => {
                    made += 1;
                    if self.way == Way::Restarts {
                        self.restart().await?;
                    }
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(made), |error| Err(error.into()))
    }

    async fn due(&mut self, only: Option<&str>) -> Result<Vec<String>> {
        let queries = self.engine().await?.queries();
        if let Some(name) = only
            && !queries.iter().any(|query| query.name() == name)
        {
            return Err(Error::script(format!("there is no query \"{name}\"")));
        }
        let due = queries.iter().filter(|query| {
            only.is_none_or(|name| query.name() == name) && query.state() != QueryState::Paused
        });
        Ok(due.map(|query| query.name().to_owned()).collect())
    }

    async fn changes(&mut self, view: &str) -> Result<Output> {
        let rows = oracle::changes(self.open().await?, view).await?;
        let rows = rows.into_iter().map(|row| vec![row]).collect();
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Text], rows })
    }
}

/// A driver that a runner and its test hold together.
#[derive(Clone)]
pub struct Shared(pub Arc<Mutex<Driver>>);

#[async_trait]
impl AsyncDB for Shared {
    type Error = Error;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<Output> {
        self.0.lock().await.execute(sql).await
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "tidemill"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
