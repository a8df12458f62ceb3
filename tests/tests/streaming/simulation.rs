//! A warehouse through several lives of its engine, in which everything goes wrong: storage
//! fails or loses its answers, the broker is away, processes die at any moment, topics grow,
//! records are broken, epochs and partitions are cut anew in every life.
//!
//! One seed makes the whole [`Plan`] before anything runs, so that the same seed gives the same
//! arrivals, faults, restarts and epochs to be asked for. In the end every view, all of them
//! with state, holds what its query answers as a batch; every broken record is a dead letter
//! once; and no epoch stands twice in a log. `TIDEMILL_CASES` says how many seeds are tried,
//! `TIDEMILL_SEED` from which on.

use std::sync::Arc;
use std::time::Duration;

use tidemill_sql::Session;
use tidemill_tests::error::{Error, Result};
use tidemill_tests::faults::{Afterwards, Countdown, Fault, FaultyStore};
use tidemill_tests::shop::{BLOCK, Order, VIEWS, statements};
use tidemill_tests::values::sorted_lines;
use tidemill_tests::world::World;
use tidemill_tests::{delta_log, oracle};

use crate::crash::{execute, open_after};
use crate::random::number;

const SEEDS: u64 = 6;
const LIVES: u64 = 5;
const ACTIONS: u64 = 14;
/// Partitions of the topic whose records have keys: a key belongs to one.
const KEYED: u64 = 3;

/// What happens in a life of an engine.
#[derive(Debug, Clone, Copy)]
enum Action {
    /// So many orders, and all that belongs to them, reach the topics.
    Orders(u64),
    Broken,
    /// The topic of orders gets one more partition.
    Grow,
    Wait(Duration),
    /// The next reads of topics fail.
    Away(u32),
    /// One epoch of one view.
    Step(usize),
    /// Overlapped epochs of all views, up to what is there.
    RunOnce,
}

#[derive(Debug)]
struct Life {
    /// The operation on the storage that fails, and how.
    at: usize,
    fault: Fault,
    afterwards: Afterwards,
    max_rows_per_epoch: u64,
    target_partitions: usize,
    snapshot_interval: Duration,
    actions: Vec<Action>,
    /// Whether it ends in an orderly way, if it lives to its end.
    shut_down: bool,
}

type Plan = Vec<Life>;

/// Splitmix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % limit
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }

    fn plan(&mut self) -> Plan {
        (0..LIVES).map(|_| self.life()).collect()
    }

    fn life(&mut self) -> Life {
        Life {
            at: 1 + self.below(600) as usize,
            fault: self.one_of(&[Fault::Refused, Fault::AnswerLost]),
            afterwards: self.one_of(&[Afterwards::Dead, Afterwards::Dead, Afterwards::Fine]),
            max_rows_per_epoch: self.one_of(&[7, 40, 1000]),
            target_partitions: self.one_of(&[1, 2, 3]),
            snapshot_interval: self.one_of(&[Duration::ZERO, Duration::from_secs(3600)]),
            actions: (0..ACTIONS).map(|_| self.action()).collect(),
            shut_down: self.below(4) == 0,
        }
    }

    fn action(&mut self) -> Action {
        match self.below(20) {
            0..6 => Action::Orders(1 + self.below(60)),
            6 => Action::Broken,
            7 => Action::Grow,
            8 => Action::Wait(Duration::from_secs(1 + self.below(100))),
            9..11 => Action::Away(1 + self.below(3) as u32),
            11..13 => Action::RunOnce,
            _ => Action::Step(self.below(VIEWS.len() as u64) as usize),
        }
    }
}

/// The world, and what was put into it.
struct Simulation {
    world: World,
    orders: u64,
    broken: u64,
    partitions: u64,
    deaths: u64,
}

impl Simulation {
    fn new() -> Self {
        let world = World::default();
        for topic in ["orders", "payments", "latest"] {
            world.broker.create_topic(topic, KEYED as usize);
        }
        Self { world, orders: 0, broken: 0, partitions: KEYED, deaths: 0 }
    }

    /// One process, to its end or its death.
    async fn live(&mut self, life: &Life) -> Result<()> {
        let config = &mut self.world.config;
        config.max_rows_per_epoch = life.max_rows_per_epoch;
        config.target_partitions = life.target_partitions;
        config.snapshot_interval = life.snapshot_interval;
        let countdown = Countdown::new(life.at, life.fault, life.afterwards);
        let store = FaultyStore::new(Arc::clone(&self.world.store), Arc::clone(&countdown));
        let mut done = 0;
        let working = async {
            let session = open_after(&self.world, Arc::new(store)).await?.session();
            if set_up(&session).await.is_err() {
                // As a person does with a statement that failed.
                set_up(&session).await?;
            }
            // Opening tries a second time what failed, and no more than one operation does.
            let queries = session.database().queries();
            if let Some(failed) = queries.into_iter().find(|query| query.state == "failed") {
                let why = failed.reason.unwrap_or_default();
                // A process that is dead opens nothing.
                let dead = life.afterwards == Afterwards::Dead && countdown.hit();
                let why = if dead { why } else { why.replace("injected", "provoked") };
                return Err(Error::wrong(format!("{} could not be opened: {why}", failed.name)));
            }
            for action in &life.actions {
                done += 1;
                match self.act(&session, *action).await {
                    Err(error) if !is_injected(&error) => return Err(error),
                    _ => {}
                }
            }
            match life.shut_down {
                true => Ok(session.database().shutdown().await?),
                false => Ok(()),
            }
        };
        let outcome = tokio::select! {
            worked = working => worked,
            () = countdown.reached(), if life.afterwards == Afterwards::Dead => Ok(()),
        };
        countdown.kill();
        self.deaths += u64::from(countdown.hit() && life.afterwards == Afterwards::Dead);
        // What happens outside goes on without an engine: plans mean the same wherever it died.
        for action in &life.actions[done..] {
            self.happen(*action)?;
        }
        match outcome {
            Err(error) if is_injected(&error) => Ok(()),
            outcome => outcome,
        }
    }

    async fn act(&mut self, session: &Session, action: Action) -> Result<()> {
        match action {
            Action::Step(view) => {
                session.database().engine().step(VIEWS[view].0).await?;
            }
            Action::RunOnce => session.database().run_once(&|_| ()).await?,
            other => self.happen(other)?,
        }
        Ok(())
    }

    /// What does not need an engine.
    fn happen(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Orders(count) => self.produce(count),
            Action::Broken => {
                self.broken += 1;
                self.send("orders", self.broken % self.partitions, "{\"id\": 1, broken".into())
            }
            Action::Grow => {
                self.partitions += 1;
                self.world.broker.create_topic("orders", self.partitions as usize);
                Ok(())
            }
            Action::Wait(time) => {
                self.world.clock.advance_us(time.as_micros() as i64);
                Ok(())
            }
            Action::Away(reads) => {
                self.world.broker.fail_next_reads(reads);
                Ok(())
            }
            Action::Step(_) | Action::RunOnce => Ok(()),
        }
    }

    fn produce(&mut self, count: u64) -> Result<()> {
        for id in self.orders..self.orders + count {
            let order = Order::new(id);
            self.send("orders", id % self.partitions, order.order)?;
            self.send("payments", id % KEYED, order.payment)?;
            self.send("latest", order.user_id % KEYED, order.latest)?;
        }
        self.orders += count;
        Ok(())
    }

    fn send(&self, topic: &str, partition: u64, payload: String) -> Result<()> {
        self.world.broker.produce(topic, partition as i32, payload)?;
        Ok(())
    }

    /// Everything works again; what must hold then.
    async fn end(&mut self) -> Result<()> {
        self.world.broker.fail_next_reads(0);
        // Whole blocks: every payment has its order.
        self.produce(BLOCK - self.orders % BLOCK)?;
        let session = open_after(&self.world, Arc::clone(&self.world.store)).await?.session();
        set_up(&session).await?;
        for (view, _) in VIEWS {
            while session.database().engine().step(view).await?.is_some() {}
        }
        oracle::check(&session, &[]).await?;
        let counted = "SELECT sum(orders) FROM aggregate UNION ALL SELECT sum(orders) FROM sessions \
                       UNION ALL SELECT count(*) FROM joined";
        self.expect(&session, counted, &[self.orders; 3]).await?;
        if self.broken > 0 {
            let letters = "SELECT count(*) FROM orders__dead_letters UNION ALL SELECT count(*) \
                           FROM (SELECT DISTINCT \"partition\", \"offset\" FROM orders__dead_letters)";
            self.expect(&session, letters, &[self.broken; 2]).await?;
        }
        delta_log::check_epochs(&self.world.store).await
    }

    /// How much happened.
    async fn tell(&self, seed: u64) -> Result<()> {
        let tables = delta_log::epochs(&self.world.store).await?;
        let epochs: usize = tables.values().flat_map(|apps| apps.values()).map(Vec::len).sum();
        let Self { orders, broken, deaths, .. } = self;
        println!("seed {seed}: {orders} orders, {broken} broken, {deaths} deaths, {epochs} epochs");
        Ok(())
    }

    async fn expect(&self, session: &Session, sql: &str, wanted: &[u64]) -> Result<()> {
        let found = sorted_lines(&oracle::query(session, sql).await?.1)?;
        let wanted: Vec<String> = wanted.iter().map(u64::to_string).collect();
        oracle::compare(sql, &wanted, &found)
    }
}

async fn set_up(session: &Session) -> Result<()> {
    for statement in statements(|_| "connector = 'memory'".to_owned(), "") {
        execute(session, &statement).await?;
    }
    Ok(())
}

/// What fails by itself is a fault of the engine.
fn is_injected(error: &Error) -> bool {
    error.to_string().contains("injected")
}

async fn simulate(seed: u64) -> Result<()> {
    let mut simulation = Simulation::new();
    for (number, life) in Chance(seed).plan().iter().enumerate() {
        let lived = simulation.live(life).await;
        lived.map_err(|error| Error::wrong(format!("in life {number}: {error}")))?;
    }
    simulation.end().await?;
    simulation.tell(seed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_the_views_hold_what_the_batch_answers() {
    let first = number("TIDEMILL_SEED", 1);
    let mut failures = Vec::new();
    for seed in first..first + number("TIDEMILL_CASES", SEEDS) {
        if let Err(error) = simulate(seed).await {
            let plan = Chance(seed).plan();
            failures.push(format!("TIDEMILL_SEED={seed} TIDEMILL_CASES=1: {error}\n{plan:#?}"));
        }
    }
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}
