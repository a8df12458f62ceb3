//! The events of an online shop, produced to two topics and counted as they go.
//!
//! The counts are made here, from the payloads, by other means than the views:
//! what the views must hold is not what the engine says it read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use serde_json::Value;
use tidemill_engine::source::generator::events::Events;
use tidemill_engine::source::kafka::producer::{Producer, Record};
use tidemill_sql::session::Database;
use tokio::task::JoinHandle;

use super::summary::Ages;
use crate::pace::Pace;

/// Each is made from the template of its name.
pub const TOPICS: [&str; 2] = ["orders", "page_views"];

/// Two of three events are page views.
const ORDERS_EVERY: i64 = 3;

/// One record of a thousand is broken, so that the dead letters have something to show.
const BROKEN_EVERY: i64 = 1_000;

/// More would not fit the embedded broker's memory for long enough.
pub const FASTEST: f64 = 20_000.0;

/// Rows that may wait in a partition. The broker keeps 5 MiB of each, which is
/// more than twice that; what it dropped unread would be lost.
const WAITING: u64 = 6_000;

/// Partitions of a topic at that rate.
pub fn partitions(rate: f64) -> i32 {
    if rate > 5_000.0 { 8 } else { 4 }
}

/// What was produced.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub events: u64,
    pub orders: u64,
    pub page_views: u64,
    pub paid_orders: u64,
    pub broken: u64,
}

pub struct Feed {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<Result<()>>>>,
    /// Ages of the views' newest rows, seen while the feed ran.
    pub ages: Ages,
}

#[derive(Default)]
struct Shared {
    tally: Mutex<Tally>,
    stopping: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl Feed {
    pub fn start(servers: &str, rate: f64, seed: u32, database: Arc<Database>) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let maker = Maker::new(servers, rate, seed)?;
        let task = tokio::spawn(run(maker, rate, Arc::clone(&shared), database));
        Ok(Self { shared, task: Mutex::new(Some(task)), ages: Ages::default() })
    }

    pub fn tally(&self) -> Tally {
        self.shared.tally.lock().map(|tally| *tally).unwrap_or_default()
    }

    pub fn failure(&self) -> Option<String> {
        self.shared.failure.lock().ok()?.clone()
    }

    /// Stops, and answers once the broker has everything.
    pub async fn stop(&self) -> Result<Tally> {
        self.shared.stopping.store(true, Ordering::Relaxed);
        let task = self.task.lock().map_err(|_| anyhow!("the feed's lock is poisoned"))?.take();
        if let Some(task) = task {
            task.await??;
        }
        Ok(self.tally())
    }
}

async fn run(
    mut maker: Maker,
    rate: f64,
    shared: Arc<Shared>,
    database: Arc<Database>,
) -> Result<()> {
    let made = make(&mut maker, rate, &shared, &database).await;
    if let (Err(error), Ok(mut failure)) = (&made, shared.failure.lock()) {
        *failure = Some(format!("{error:#}"));
    }
    made
}

async fn make(maker: &mut Maker, rate: f64, shared: &Shared, database: &Database) -> Result<()> {
    let most = WAITING * u64::try_from(partitions(rate))?;
    let mut pace = Pace::new(rate);
    while !shared.stopping.load(Ordering::Relaxed) {
        let waiting = database.queries().iter().map(|query| query.backlog).max().unwrap_or(0);
        if waiting > most {
            pace.pause(Duration::from_millis(20)).await;
            continue;
        }
        let mut tally = shared.tally.lock().map(|tally| *tally).unwrap_or_default();
        maker.portion(i64::try_from(pace.due().await)?, &mut tally).await?;
        if let Ok(mut shared) = shared.tally.lock() {
            *shared = tally;
        }
    }
    Ok(maker.producer.flush().await?)
}

/// Makes both topics' events, in the order of their event times.
struct Maker {
    orders: Events,
    page_views: Events,
    producer: Producer,
    made: i64,
}

impl Maker {
    fn new(servers: &str, rate: f64, seed: u32) -> Result<Self> {
        let share = rate / ORDERS_EVERY as f64;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        let events = |template: &str, rate: f64| {
            let options = BTreeMap::from([
                ("template".to_string(), template.to_string()),
                ("rows_per_second".to_string(), rate.to_string()),
                ("seed".to_string(), seed.to_string()),
                ("start_time".to_string(), "now".to_string()),
            ]);
            Ok::<_, anyhow::Error>(Events::new(&options, i64::try_from(now)?, 0.0, 0.0)?)
        };
        Ok(Self {
            orders: events(TOPICS[0], share)?,
            page_views: events(TOPICS[1], rate - share)?,
            producer: Producer::new(servers, &BTreeMap::new())?,
            made: 0,
        })
    }

    /// The next `count` events: every third is an order.
    async fn portion(&mut self, count: i64, tally: &mut Tally) -> Result<()> {
        let (from, to) = (self.made, self.made + count);
        let orders = |made: i64| made / ORDERS_EVERY;
        let views = |made: i64| made - orders(made);
        let mut order_payloads = self.orders.json(orders(from)..orders(to))?.into_iter();
        let mut view_payloads = self.page_views.json(views(from)..views(to))?.into_iter();
        for number in from + 1..=to {
            let is_order = number % ORDERS_EVERY == 0;
            let payloads = if is_order { &mut order_payloads } else { &mut view_payloads };
            let Some(mut payload) = payloads.next() else { break };
            if number % BROKEN_EVERY == 0 {
                // As a record that was written half is broken.
                payload.truncate(payload.len() / 2);
            }
            count_in(tally, is_order, &payload);
            let topic = TOPICS[usize::from(!is_order)];
            self.producer
                .send(Record { topic, payload: Some(&payload), ..Record::default() })
                .await?;
        }
        self.made = to;
        Ok(())
    }
}

/// Adds one event to the tally, by looking into it.
fn count_in(tally: &mut Tally, is_order: bool, payload: &[u8]) {
    tally.events += 1;
    let Ok(event) = serde_json::from_slice::<Value>(payload) else {
        tally.broken += 1;
        return;
    };
    if !is_order {
        tally.page_views += 1;
        return;
    }
    tally.orders += 1;
    tally.paid_orders += u64::from(event["status"] == "paid");
}
