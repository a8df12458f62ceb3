//! Everything that plays in the demo, set up and taken down in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use arrow::array::{Array, AsArray};
use tidemill_engine::broker::EmbeddedBroker;
use tidemill_flight_server::{ServeOptions, serve};
use tidemill_sql::session::{Access, Database};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::feed::{Feed, Tally};
use super::monitor::{self, number};
use super::{Plan, SCRIPTS, VIEWS};
use crate::args::Format;
use crate::config::Config;
use crate::failure::Failure;
use crate::output::{Style, talk};
use crate::shell::Shell;
use crate::target::Target;

/// What the SQL files say, and the demo replaces by its own broker.
const WRITTEN: &str = "localhost:9092";

/// How long the queries may take to read what the feed left them.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Stage {
    pub database: Arc<Database>,
    /// A session for looking.
    pub target: Arc<Target>,
    pub feed: Feed,
    pub address: SocketAddr,
    pub warehouse: PathBuf,
    /// A result table's place, to show where Delta readers find it.
    delta: String,
    pub started: Instant,
    stop_server: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<(), tidemill_flight_server::Error>>,
    /// Last, because everything else talks to it.
    _broker: EmbeddedBroker,
}

impl Stage {
    pub async fn set(plan: &Plan, config: Config) -> Result<Self> {
        let broker = EmbeddedBroker::start(1)?;
        for topic in super::feed::TOPICS {
            broker.create_topic(topic, super::feed::partitions(plan.rate))?;
        }
        let mut engine = config.engine;
        engine.warehouse = plan.warehouse.display().to_string();
        engine.storage_options.clear();
        engine.trigger_interval = Duration::from_millis(100);
        let database = Database::open(engine, Access::Run).await;
        let database = database.map_err(|error| Failure::of(&error, ""))?;
        let target = Arc::new(Target::of(Arc::clone(&database)));
        let servers = broker.bootstrap_servers();
        submit(&target, &servers).await?;

        let delta = location(&target, "paid_orders").await?;

        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (stop_server, stopped) = oneshot::channel();
        let serving = serve(listener, Arc::clone(&database), ServeOptions::default(), async {
            let _ = stopped.await;
        });
        let server = tokio::spawn(serving);
        let feed = Feed::start(&servers, plan.rate, plan.seed, Arc::clone(&database))?;
        Ok(Self {
            database,
            target,
            feed,
            address,
            warehouse: plan.warehouse.clone(),
            delta,
            started: Instant::now(),
            stop_server: Some(stop_server),
            server,
            _broker: broker,
        })
    }

    /// A feed or a query that can't go on.
    pub fn fault(&self) -> Result<()> {
        if let Some(reason) = self.feed.failure() {
            bail!("the feed stopped: {reason}");
        }
        let queries = self.database.queries();
        match queries.iter().find(|query| query.state == "failed") {
            Some(query) => {
                let reason = query.reason.as_deref().unwrap_or("no reason known");
                Err(anyhow!("query {} failed: {reason}", query.name))
            }
            None => Ok(()),
        }
    }

    /// Stops the feed and waits until every view holds what it produced. Views
    /// that never do are the summary's to tell.
    pub async fn settle(&self) -> Result<()> {
        let tally = self.feed.stop().await?;
        talk("the feed has stopped; the queries read what is left");
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            self.fault()?;
            let samples = monitor::look(&self.target, false).await?;
            let mut settled = self.database.queries().iter().all(|query| query.backlog == 0);
            for (sample, view) in samples.iter().zip(VIEWS) {
                settled &= sample.rows >= (view.expected)(&tally);
            }
            settled &= self.dead_letters().await? >= tally.broken;
            if settled {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Records that were kept aside, over both topics.
    pub async fn dead_letters(&self) -> Result<u64> {
        let mut sum = 0;
        for topic in super::feed::TOPICS {
            let sql = format!("SELECT count(*) FROM {topic}__dead_letters");
            sum += number(&self.target, &sql).await.unwrap_or(0);
        }
        Ok(sum)
    }

    pub fn tally(&self) -> Tally {
        self.feed.tally()
    }

    /// How others get in.
    pub fn connect_lines(&self) -> Vec<String> {
        let url = format!("grpc://{}", self.address);
        vec![
            format!("shell   tidemill sql --connect {url}"),
            format!(
                "Python  adbc_driver_flightsql.dbapi.connect(\"{url}\").cursor().execute(\"SELECT …\")"
            ),
            format!("Delta   deltalake.DeltaTable(\"{}\").to_pandas()", self.delta),
        ]
    }

    /// The server first, then the engine, the broker last.
    pub async fn close(mut self) -> Result<()> {
        if let Some(stop) = self.stop_server.take() {
            let _ = stop.send(());
        }
        let served = self.server.await;
        self.database.shutdown().await.map_err(|error| Failure::of(&error, ""))?;
        Ok(served??)
    }
}

/// Where a materialized view's Delta table lies.
async fn location(target: &Target, name: &str) -> Result<String> {
    let batches = monitor::rows(target, &format!("SHOW MATERIALIZED VIEWS LIKE '{name}'")).await?;
    let column = batches.first().and_then(|batch| batch.column_by_name("location"));
    let texts = column.and_then(|column| column.as_string_opt::<i32>()).filter(|t| !t.is_empty());
    let url = texts.ok_or_else(|| anyhow!("{name} has no location"))?.value(0);
    Ok(url.strip_prefix("file://").unwrap_or(url).trim_end_matches('/').to_string())
}

/// Executes `queries/demo/`, with the broker's address put in.
async fn submit(target: &Arc<Target>, servers: &str) -> Result<()> {
    let mut shell =
        Shell::new(Arc::clone(target), Style { format: Format::Table, expanded: false });
    for (name, text) in SCRIPTS {
        shell.script(&text.replace(WRITTEN, servers), Some(name)).await?;
    }
    Ok(())
}
