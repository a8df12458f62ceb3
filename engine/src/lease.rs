//! One engine per warehouse: a lease with a growing fencing token.
//!
//! Who takes the lease writes the next numbered object under `_tidemill/lease/`;
//! the object store lets exactly one through. From then on the engine before it
//! is *fenced*: it finds a token above its own before its next commit and stops.
//!
//! ```text
//! 00000000000000000006.json   engine A, renewed until it died
//! 00000000000000000007.json   engine B, the holder: renews by overwriting its own token
//! ```
//!
//! A token may be succeeded when it was released, when it was not renewed for its
//! duration, or at once when its process is seen to be dead (same machine). The
//! moment between a check and the commit behind it is covered by the commit's
//! `txn`: the successor runs the recorded epoch again, and the log takes it once.

mod process;

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::lease::process::Process;
use crate::storage::Warehouse;

/// Tokens that are kept behind the newest, for those who look into the folder.
const KEPT: u64 = 16;
/// A lease is renewed so many times in its duration.
const RENEWALS: u32 = 3;

/// Leases held in this process: a token of ours that is not here was dropped.
static HELD: LazyLock<Mutex<HashSet<Uuid>>> = LazyLock::new(Mutex::default);

/// What a token's object says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Token {
    /// The lease, whatever process holds it.
    lease: Uuid,
    process: Process,
    /// Microseconds since 1970-01-01 UTC.
    taken_at_us: i64,
    renewed_at_us: i64,
    duration_ms: u64,
    released: bool,
}

impl Token {
    fn expires_at_us(&self) -> i64 {
        let duration = i64::try_from(self.duration_ms).unwrap_or(i64::MAX).saturating_mul(1000);
        self.renewed_at_us.saturating_add(duration)
    }

    fn dead(&self) -> bool {
        match self.process.alive() {
            Some(true) if self.process.is_ours() => !HELD.lock().contains(&self.lease),
            Some(alive) => !alive,
            None => false,
        }
    }

    fn free(&self, now_us: i64) -> bool {
        self.released || self.expires_at_us() <= now_us || self.dead()
    }
}

/// The right to run a warehouse's queries. Dropping it lets the next engine in.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    /// A set of one: dropped with us, it stops renewing.
    renewal: parking_lot::Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn ObjectStore>,
    number: u64,
    token: Token,
    /// Who took over, once that is known.
    lost: watch::Sender<Option<Successor>>,
}

#[derive(Debug, Clone)]
struct Successor {
    holder: String,
    token: u64,
}

impl Lease {
    /// Takes the lease of the warehouse, waiting for a holder that may be dead but
    /// can't be seen (another machine) until its lease runs out.
    ///
    /// # Errors
    /// If another engine is alive, with who and where it is.
    pub async fn acquire(warehouse: &Warehouse, duration: Duration) -> Result<Self> {
        let store = warehouse.store().clone();
        let mut waited_for: Option<Token> = None;
        let number = loop {
            let Some((number, holder)) = newest(store.as_ref()).await? else { break 1 };
            let now = now_us();
            if holder.free(now) {
                break number + 1;
            }
            let renewed = waited_for.is_some_and(|before| before != holder);
            if renewed || holder.process.alive() == Some(true) {
                return Err(in_use(warehouse, &holder));
            }
            let left = u64::try_from(holder.expires_at_us() - now).unwrap_or(0);
            tracing::info!(
                holder = holder.process.to_string(),
                wait_ms = left / 1000,
                "waiting for the lease of an engine that may be dead"
            );
            waited_for = Some(holder);
            tokio::time::sleep(Duration::from_micros(left)).await;
        };
        Self::take(warehouse, store, number, duration).await
    }

    async fn take(
        warehouse: &Warehouse,
        store: Arc<dyn ObjectStore>,
        number: u64,
        duration: Duration,
    ) -> Result<Self> {
        let now = now_us();
        let token = Token {
            lease: Uuid::new_v4(),
            process: Process::this(),
            taken_at_us: now,
            renewed_at_us: now,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            released: false,
        };
        if !create(store.as_ref(), number, &token).await? {
            let winner = read(store.as_ref(), number).await?;
            return Err(winner.map_or_else(
                || Error::internal("a lease that was taken is not there"),
                |winner| in_use(warehouse, &winner),
            ));
        }
        HELD.lock().insert(token.lease);
        for old in number.saturating_sub(2 * KEPT)..number.saturating_sub(KEPT) {
            let _ = store.delete(&path(old)).await;
        }
        let shared = Arc::new(Shared { store, number, token, lost: watch::Sender::new(None) });
        let mut renewal = JoinSet::new();
        renewal.spawn(renew(shared.clone(), duration / RENEWALS));
        Ok(Self { shared, renewal: parking_lot::Mutex::new(renewal) })
    }

    /// Grows with every engine that takes the warehouse over.
    pub fn token(&self) -> u64 {
        self.shared.number
    }

    /// Whether we still hold it: asked before every commit.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another engine took over.
    pub async fn check(&self) -> Result<()> {
        self.shared.check().await
    }

    /// Resolves when another engine took over.
    pub async fn lost(&self) -> Error {
        let mut lost = self.shared.lost.subscribe();
        // The sender lives as long as we do, so the wait can only end with a successor.
        let _ = lost.wait_for(Option::is_some).await;
        self.shared.fenced().unwrap_or_else(|| Error::internal("a lease lost to nobody"))
    }

    /// Lets the next engine in at once, whatever machine it is on.
    pub async fn release(&self) -> Result<()> {
        self.renewal.lock().abort_all();
        self.shared.check().await?;
        let token = Token { released: true, ..self.shared.token.clone() };
        write(self.shared.store.as_ref(), self.shared.number, &token).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        HELD.lock().remove(&self.shared.token.lease);
    }
}

impl Shared {
    fn fenced(&self) -> Option<Error> {
        let Successor { holder, token } = self.lost.borrow().clone()?;
        Some(Error::Fenced { holder, token })
    }

    /// Our token must be there (it goes only when many have come after it), the
    /// next one must not.
    async fn check(&self) -> Result<()> {
        if let Some(fenced) = self.fenced() {
            return Err(fenced);
        }
        let (own, next) = (path(self.number), path(self.number + 1));
        let (own, next) =
            tokio::join!(exists(self.store.as_ref(), &own), exists(self.store.as_ref(), &next));
        if own? && !next? {
            return Ok(());
        }
        let newest = newest(self.store.as_ref()).await?;
        let successor = match newest {
            Some((token, holder)) => Successor { holder: holder.process.to_string(), token },
            None => Successor { holder: "somebody who deleted the lease".into(), token: 0 },
        };
        self.lost.send_replace(Some(successor.clone()));
        Err(Error::Fenced { holder: successor.holder, token: successor.token })
    }
}

/// Overwrites our token with a fresh time until somebody takes over.
async fn renew(shared: Arc<Shared>, every: Duration) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let token = Token { renewed_at_us: now_us(), ..shared.token.clone() };
        let renewed = match shared.check().await {
            Ok(()) => write(shared.store.as_ref(), shared.number, &token).await,
            Err(error) => Err(error),
        };
        match renewed {
            Ok(()) => {}
            Err(error @ Error::Fenced { .. }) => {
                tracing::error!(%error, "this engine stops");
                return;
            }
            // The next tick tries again; until somebody takes over, the lease is ours.
            Err(error) => tracing::warn!(%error, "the lease was not renewed"),
        }
    }
}

/// Who runs the warehouse now, as far as can be told from outside.
pub async fn holder(warehouse: &Warehouse) -> Result<Option<String>> {
    let newest = newest(warehouse.store().as_ref()).await?;
    Ok(newest
        .filter(|(_, token)| !token.free(now_us()))
        .map(|(_, token)| token.process.to_string()))
}

fn in_use(warehouse: &Warehouse, holder: &Token) -> Error {
    let taken = DateTime::from_timestamp_micros(holder.taken_at_us).unwrap_or_default();
    let ago = now_us().saturating_sub(holder.renewed_at_us).max(0) / 1_000_000;
    Error::InUse {
        warehouse: warehouse.url().to_string(),
        holder: format!(
            "{}, since {}, last heard of {ago} s ago",
            holder.process,
            taken.to_rfc3339_opts(SecondsFormat::Secs, true),
        ),
    }
}

fn path(number: u64) -> Path {
    Warehouse::internal(&["lease", &format!("{number:020}.json")])
}

fn now_us() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

async fn newest(store: &dyn ObjectStore) -> Result<Option<(u64, Token)>> {
    loop {
        let folder = Warehouse::internal(&["lease"]);
        let found: Vec<_> = store.list(Some(&folder)).try_collect().await?;
        let numbers = found
            .iter()
            .filter_map(|meta| meta.location.filename()?.strip_suffix(".json")?.parse().ok());
        let Some(number) = numbers.max() else { return Ok(None) };
        // Gone since the listing only if newer ones came.
        if let Some(token) = read(store, number).await? {
            return Ok(Some((number, token)));
        }
    }
}

async fn read(store: &dyn ObjectStore, number: u64) -> Result<Option<Token>> {
    let path = path(number);
    let bytes = match store.get(&path).await {
        Ok(found) => found.bytes().await?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::Corrupt {
        path: path.to_string(),
        message: format!("{error}; if no engine runs on the warehouse, delete this file"),
    })
}

async fn exists(store: &dyn ObjectStore, path: &Path) -> Result<bool> {
    match store.head(path).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether the token is ours now; false if somebody else has it.
async fn create(store: &dyn ObjectStore, number: u64, token: &Token) -> Result<bool> {
    let options = PutOptions::from(PutMode::Create);
    let Err(error) = store.put_opts(&path(number), bytes(token)?.into(), options).await else {
        return Ok(true);
    };
    // A lost answer looks like a failure, a repeated request like a loser: look.
    match read(store, number).await? {
        Some(found) => Ok(found.lease == token.lease),
        None => Err(error.into()),
    }
}

async fn write(store: &dyn ObjectStore, number: u64, token: &Token) -> Result<()> {
    store.put(&path(number), bytes(token)?.into()).await?;
    Ok(())
}

fn bytes(token: &Token) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(token).map_err(|error| Error::internal(format!("lease: {error}")))
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use url::Url;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn warehouse() -> Warehouse {
        let url = Url::parse("memory:///house").unwrap();
        Warehouse::with_store(url, Arc::new(InMemory::new()))
    }

    /// A token that somebody left behind.
    async fn left_behind(house: &Warehouse, process: Process, age: Duration) {
        let then = now_us() - age.as_micros() as i64;
        let token = Token {
            lease: Uuid::new_v4(),
            process,
            taken_at_us: then,
            renewed_at_us: then,
            duration_ms: 60_000,
            released: false,
        };
        assert!(create(house.store().as_ref(), 1, &token).await.unwrap());
    }

    #[tokio::test]
    async fn a_second_engine_is_told_who_runs_the_warehouse() {
        let house = warehouse();
        let first = Lease::acquire(&house, LONG).await.unwrap();
        first.check().await.unwrap();
        let refused = Lease::acquire(&house, LONG).await.unwrap_err();
        let message = refused.to_string();
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        assert!(refused.hint().unwrap().contains("--warehouse"));
    }

    #[tokio::test]
    async fn a_dropped_or_released_lease_is_free_at_once() {
        let house = warehouse();
        drop(Lease::acquire(&house, LONG).await.unwrap());
        let second = Lease::acquire(&house, LONG).await.unwrap();
        assert_eq!(second.token(), 2);
        second.release().await.unwrap();
        assert_eq!(Lease::acquire(&house, LONG).await.unwrap().token(), 3);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_killed_process_on_this_machine_is_not_waited_for() {
        let house = warehouse();
        left_behind(&house, Process::this().started_at(1), Duration::ZERO).await;
        assert_eq!(Lease::acquire(&house, LONG).await.unwrap().token(), 2);
    }

    #[tokio::test]
    async fn an_expired_lease_is_free_wherever_its_holder_is() {
        let house = warehouse();
        left_behind(&house, Process::elsewhere(), LONG).await;
        assert_eq!(Lease::acquire(&house, LONG).await.unwrap().token(), 2);
    }

    #[tokio::test]
    async fn a_silent_holder_elsewhere_is_waited_for() {
        let house = warehouse();
        left_behind(&house, Process::elsewhere(), Duration::from_millis(59_950)).await;
        assert_eq!(Lease::acquire(&house, LONG).await.unwrap().token(), 2);
    }

    #[tokio::test]
    async fn who_was_taken_over_is_fenced() {
        let house = warehouse();
        let first = Lease::acquire(&house, LONG).await.unwrap();
        let usurper = Token { lease: Uuid::new_v4(), ..first.shared.token.clone() };
        assert!(create(house.store().as_ref(), 2, &usurper).await.unwrap());
        let fenced = first.check().await.unwrap_err();
        assert!(matches!(fenced, Error::Fenced { token: 2, .. }), "{fenced}");
        assert!(matches!(first.lost().await, Error::Fenced { token: 2, .. }));
        assert!(first.release().await.is_err());
    }

    #[tokio::test]
    async fn of_two_that_reach_for_a_token_one_gets_it() {
        let house = warehouse();
        let both = tokio::join!(Lease::acquire(&house, LONG), Lease::acquire(&house, LONG));
        assert_eq!(usize::from(both.0.is_ok()) + usize::from(both.1.is_ok()), 1);
    }

    #[tokio::test]
    async fn who_slept_through_many_takeovers_is_fenced() {
        let house = warehouse();
        let first = Lease::acquire(&house, LONG).await.unwrap();
        let token = first.shared.token.clone();
        create(house.store().as_ref(), 100, &token).await.unwrap();
        house.store().delete(&path(1)).await.unwrap();
        assert!(matches!(first.check().await, Err(Error::Fenced { token: 100, .. })));
    }
}
