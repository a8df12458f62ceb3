//! Storage fails at operation 1, 2, 3, …, in several ways, until a run gets through.
//! After each failure another engine recovers over what was left, and in the end
//! every view holds what the oracle says, every bad record is kept once, and
//! every epoch stands once in the logs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tidemill_engine::Error as EngineError;
use tidemill_sql::error::Cause;
use tidemill_sql::{Answer, Database, Session};
use tidemill_tests::error::{Error, Result};
use tidemill_tests::faults::{Afterwards, Countdown, Fault, FaultyStore};
use tidemill_tests::values::sorted_lines;
use tidemill_tests::world::World;
use tidemill_tests::{delta_log, oracle};

/// More than a runtime needs to drop what was aborted, on however loaded a machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Statements that can be said again after a crash.
const SETUP: [&str; 5] = [
    "CREATE SOURCE IF NOT EXISTS clicks (id BIGINT, page INT) \
     WITH (connector = 'memory', max_rows_per_epoch = 2)",
    "CREATE TABLE IF NOT EXISTS pages AS SELECT * FROM (VALUES (1, 'home'), (2, 'cart')) AS t(page, name)",
    "CREATE MATERIALIZED VIEW IF NOT EXISTS named AS \
     SELECT c.id, p.name FROM clicks c LEFT JOIN pages p ON c.page = p.page",
    "CREATE MATERIALIZED VIEW IF NOT EXISTS doubled PARTITIONED BY (page) AS \
     SELECT id, id * 2 AS twice, page FROM clicks WHERE id <> 3",
    "CREATE MATERIALIZED VIEW IF NOT EXISTS met AS \
     SELECT a.page, count(*) AS pairs, max(b.id) AS last FROM clicks a LEFT JOIN clicks b \
     ON a.page = b.page AND a.id < b.id GROUP BY a.page",
];

/// The same for rows that come too late.
const LATE_SETUP: [&str; 2] = [
    "CREATE SOURCE IF NOT EXISTS visits (id BIGINT, at TIMESTAMP, WATERMARK FOR at AS at) \
     WITH (connector = 'memory', max_rows_per_epoch = 1, late_rows = 'table')",
    "CREATE MATERIALIZED VIEW IF NOT EXISTS per_minute AS SELECT window_start, count(*) AS n \
     FROM TUMBLE(visits, at, INTERVAL '1' MINUTE) GROUP BY window_start",
];

/// Five clicks, and two records that are none.
const RECORDS: [&str; 7] = [
    r#"{"id": 1, "page": 1}"#,
    r#"{"id": 2, "page": 2}"#,
    r#"{"id": "broken"#,
    r#"{"id": 3, "page": 2}"#,
    r#"{"id": 4, "page": 9}"#,
    r#"{"id": "two", "page": 1}"#,
    r#"{"id": 5}"#,
];

/// Visits, one an epoch: the third and the fourth come when their window is closed.
const VISITS: [&str; 4] = [
    r#"{"id": 1, "at": "2024-01-01T00:00:10"}"#,
    r#"{"id": 2, "at": "2024-01-01T00:05:00"}"#,
    r#"{"id": 3, "at": "2024-01-01T00:00:20"}"#,
    r#"{"id": 4, "at": "2024-01-01T00:04:00"}"#,
];

fn world() -> World {
    let world = World::default();
    world.broker.create_topic("clicks", 2);
    for (index, record) in RECORDS.iter().enumerate() {
        let partition = (index % 2) as i32;
        world.broker.produce("clicks", partition, *record).expect("a topic with two partitions");
    }
    world.broker.create_topic("visits", 1);
    for visit in VISITS {
        world.broker.produce("visits", 0, visit).expect("a topic");
    }
    world
}

/// While no engine runs, another click arrives: epochs that were planned before the
/// crash must be run as they were planned and not anew.
fn time_goes_on(world: &World) {
    world.clock.advance_us(3_600_000_000);
    world.broker.produce("clicks", 0, r#"{"id": 6, "page": 2}"#).expect("a topic");
}

pub async fn execute(session: &Session, sql: &str) -> Result<()> {
    if let Answer::Rows(rows) = session.execute(sql).await? {
        tidemill_tests::values::collect(rows).await?;
    }
    Ok(())
}

/// How epochs are run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    OneByOne,
    /// An epoch is read while the one before it is executed and committed.
    Overlapped,
}

/// What is done and checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scene {
    Clicks,
    Late,
}

impl Scene {
    fn setup(self) -> &'static [&'static str] {
        match self {
            Scene::Clicks => &SETUP,
            Scene::Late => &LATE_SETUP,
        }
    }

    async fn check(self, session: &Session, world: &World) -> Result<()> {
        match self {
            Scene::Clicks => check(session, world).await,
            Scene::Late => check_late(session, world).await,
        }
    }
}

/// Everything that is to be done, from whatever state.
async fn work(session: &Session, pace: Pace, scene: Scene) -> Result<()> {
    for statement in scene.setup() {
        execute(session, statement).await?;
    }
    if pace == Pace::Overlapped {
        return Ok(session.database().run_once(&|_| ()).await?);
    }
    let engine = Arc::clone(session.database().engine());
    for query in engine.queries() {
        while engine.step(query.name()).await?.is_some() {}
    }
    Ok(())
}

/// Works over storage that breaks. A process that dies does so at once; else it tries
/// again, as a person does with a statement that failed.
async fn work_until_it_breaks(
    world: &World,
    countdown: &Arc<Countdown>,
    afterwards: Afterwards,
    pace: Pace,
    scene: Scene,
) {
    let store = FaultyStore::new(Arc::clone(&world.store), Arc::clone(countdown));
    // What fails here is what the test is about; what is left behind is checked later.
    let working = async {
        let session = world.open_over(Arc::new(store)).await?.session();
        let worked = work(&session, pace, scene).await;
        if worked.is_err() && afterwards == Afterwards::Fine {
            return work(&session, pace, scene).await;
        }
        worked
    };
    tokio::select! {
        _ = working => {}
        () = countdown.reached(), if afterwards == Afterwards::Dead => {}
    }
    countdown.kill();
}

/// Opens another engine as soon as the tasks of the one before, which were dropped in
/// the middle, are really gone and the lease with them. A process takes them along.
pub async fn open_after(world: &World, store: Arc<dyn ObjectStore>) -> Result<Arc<Database>> {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        match world.open_over(Arc::clone(&store)).await {
            Err(Error::Sql(error)) if in_use(&error) => tokio::task::yield_now().await,
            opened => return opened,
        }
    }
    world.open_over(store).await
}

fn in_use(error: &tidemill_sql::Error) -> bool {
    matches!(error.cause(), Cause::Engine(EngineError::InUse { .. }))
}

/// What must hold however the crash went.
async fn check(session: &Session, world: &World) -> Result<()> {
    oracle::check(session, &[]).await?;
    let (_, rows) = oracle::query(session, "SELECT id FROM named").await?;
    let ids = sorted_lines(&rows)?;
    if ids != ["1", "2", "3", "4", "5", "6"] {
        return Err(Error::wrong(format!("named holds {ids:?}")));
    }
    let (_, pages) = oracle::query(session, "SELECT * FROM pages").await?;
    let pages = sorted_lines(&pages)?;
    if pages != ["1 | home", "2 | cart"] {
        return Err(Error::wrong(format!("pages holds {pages:?}")));
    }
    let letters = "SELECT \"partition\", \"offset\" FROM clicks__dead_letters";
    let letters = sorted_lines(&oracle::query(session, letters).await?.1)?;
    if letters != ["0 | 1", "1 | 2"] {
        return Err(Error::wrong(format!("the dead letters are {letters:?}")));
    }
    delta_log::check_epochs(&world.store).await
}

/// Late rows are kept once, however the crash went.
async fn check_late(session: &Session, world: &World) -> Result<()> {
    for (sql, wanted) in [
        ("SELECT * FROM per_minute__late_rows", "3 | 2024-01-01T00:00:20; 4 | 2024-01-01T00:04:00"),
        ("SELECT n FROM per_minute", "1; 1"),
    ] {
        let found = sorted_lines(&oracle::query(session, sql).await?.1)?.join("; ");
        if found != wanted {
            return Err(Error::wrong(format!("{sql}: {found}")));
        }
    }
    delta_log::check_epochs(&world.store).await
}

/// Runs with the fault at operation 1, 2, 3, … until it is not reached any more.
async fn count_down(fault: Fault, afterwards: Afterwards, pace: Pace, scene: Scene) {
    let mut failures = Vec::new();
    for at in 1.. {
        let world = world();
        let countdown = Countdown::new(at, fault, afterwards);
        work_until_it_breaks(&world, &countdown, afterwards, pace, scene).await;
        time_goes_on(&world);
        let recovered = async {
            let session = open_after(&world, Arc::clone(&world.store)).await?.session();
            work(&session, pace, scene).await?;
            scene.check(&session, &world).await
        };
        if let Err(error) = recovered.await {
            failures.push(format!("{}: {error}", countdown.what()));
        }
        if !countdown.hit() {
            println!("{fault:?}, {afterwards:?}: {at} operations");
            break;
        }
    }
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_dies_before_an_operation() {
    count_down(Fault::Refused, Afterwards::Dead, Pace::OneByOne, Scene::Clicks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_dies_after_an_operation() {
    count_down(Fault::AnswerLost, Afterwards::Dead, Pace::OneByOne, Scene::Clicks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_dies_while_epochs_overlap() {
    count_down(Fault::AnswerLost, Afterwards::Dead, Pace::Overlapped, Scene::Clicks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_fails_once() {
    count_down(Fault::Refused, Afterwards::Fine, Pace::OneByOne, Scene::Clicks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_lost_once() {
    count_down(Fault::AnswerLost, Afterwards::Fine, Pace::OneByOne, Scene::Clicks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_rows_are_kept_once_though_the_process_dies() {
    count_down(Fault::AnswerLost, Afterwards::Dead, Pace::OneByOne, Scene::Late).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_rows_are_kept_once_though_operations_fail() {
    count_down(Fault::Refused, Afterwards::Fine, Pace::Overlapped, Scene::Late).await;
}

/// Writes the token after the newest, as an engine on another machine does.
async fn take_over(store: &Arc<dyn ObjectStore>) {
    let folder = Path::from("warehouse/_tidemill/lease");
    let tokens: Vec<_> = store.list(Some(&folder)).try_collect().await.expect("the tokens");
    let newest = tokens.iter().map(|token| &token.location).max().expect("a token");
    let number: u64 =
        newest.filename().and_then(|n| n.strip_suffix(".json")?.parse().ok()).expect("a number");
    let text = store.get(newest).await.expect("the token").bytes().await.expect("its bytes");
    let mut token: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    token["lease"] = "00000000-0000-4000-8000-000000000000".into();
    let next = folder.join(format!("{:020}.json", number + 1));
    store.put(&next, token.to_string().into()).await.expect("a new token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_was_superseded_commits_nothing() {
    let world = world();
    let old = world.open().await.expect("the first engine");
    for statement in SETUP {
        execute(&old.session(), statement).await.expect(statement);
    }
    take_over(&world.store).await;
    time_goes_on(&world);
    let stepped = old.engine().step("named").await;
    assert!(matches!(stepped, Err(EngineError::Fenced { .. })), "{stepped:?}");
    drop(old);
    let new = world.open().await.expect("the second engine");
    work(&new.session(), Pace::OneByOne, Scene::Clicks).await.expect("the second engine works");
    check(&new.session(), &world).await.expect("nothing is there twice");
}
