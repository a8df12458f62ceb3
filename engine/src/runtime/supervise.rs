//! Keeps a query running: recover, run, and after an error try again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::Rng;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::query::{Ended, Query};
use crate::runtime::{QueryHandle, QueryState, Task};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often a run that ends tries again without a commit in between.
const TRIES_OF_A_BOUNDED_RUN: u64 = 8;
/// How often progress is told.
const TELL: Duration = Duration::from_millis(200);

/// Starts the task of a query that has none.
pub fn start(handle: &Arc<QueryHandle>) {
    let mut task = handle.task.lock();
    if task.as_ref().is_some_and(|task| !task.handle.is_finished()) {
        return;
    }
    let stop = CancellationToken::new();
    let run = keep_running(Arc::clone(handle), stop.clone());
    *task = Some(Task { stop, handle: tokio::spawn(run) });
}

/// Asks the task to stop and waits for its epochs in flight.
pub async fn stop(handle: &Arc<QueryHandle>) {
    let task = handle.task.lock().take();
    if let Some(mut task) = task {
        task.stop.cancel();
        // Whether it ended or was aborted: there is nothing more to wait for.
        let _ = (&mut task.handle).await;
    }
}

async fn keep_running(handle: Arc<QueryHandle>, stop: CancellationToken) {
    loop {
        match attempt(&handle, &stop).await {
            Ok(Ended::Finished) => return set(&handle, QueryState::Finished),
            Ok(Ended::Stopped) => return set(&handle, QueryState::Stopped),
            Err(error) if error.retryable() => {
                if !wait(&handle, &error, &stop).await {
                    return set(&handle, QueryState::Stopped);
                }
            }
            Err(error) => {
                tracing::error!(query = handle.name(), %error, "failed");
                return set(&handle, QueryState::Failed(reason(&error)));
            }
        }
    }
}

async fn attempt(handle: &QueryHandle, stop: &CancellationToken) -> Result<Ended> {
    let query = Query::recover(&handle.spec, handle.with.clone()).await?;
    set(handle, QueryState::Running);
    query.run(None, stop.clone()).await
}

/// Waits before the next try; false when it is to stop instead.
async fn wait(handle: &QueryHandle, error: &Error, stop: &CancellationToken) -> bool {
    let tries = handle.with.metrics.retries.fetch_add(1, Relaxed);
    let pause = backoff(tries);
    tracing::warn!(query = handle.name(), %error, ?pause, "trying again");
    set(handle, QueryState::Retrying(reason(error)));
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(pause) => true,
    }
}

/// Doubles with every try, with up to a quarter taken off at random so that
/// queries that failed together don't come back together.
fn backoff(tries: u64) -> Duration {
    let exponent = u32::try_from(tries.min(16)).unwrap_or(16);
    let full = (FIRST_PAUSE * 2u32.pow(exponent)).min(LONGEST_PAUSE);
    full.mul_f64(1.0 - rand::rng().random_range(0.0..0.25))
}

fn reason(error: &Error) -> String {
    match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}

fn set(handle: &QueryHandle, state: QueryState) {
    handle.state.send_replace(state);
}

/// Runs the queries until each has read what was there at the start: side by side, but
/// those that follow what another one writes after it.
pub async fn run_once(
    handles: &[Arc<QueryHandle>],
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<()> {
    let due = handles.iter().filter(|handle| handle.state() != QueryState::Paused);
    let mut left: Vec<&Arc<QueryHandle>> = due.collect();
    let mut done = 0;
    while !left.is_empty() {
        let written: BTreeSet<String> = left.iter().flat_map(|handle| handle.writes()).collect();
        let waits =
            |handle: &&Arc<QueryHandle>| handle.follows.iter().any(|name| written.contains(name));
        let (mut later, mut now): (Vec<_>, Vec<_>) = left.iter().copied().partition(waits);
        if now.is_empty() {
            // One follows its own late rows or dead letters.
            std::mem::swap(&mut later, &mut now);
        }
        done += run_side_by_side(&now, &|some, all| progress(done + some, done + all)).await?;
        left = later;
    }
    Ok(())
}

/// Answers how many offsets there were.
async fn run_side_by_side(
    due: &[&Arc<QueryHandle>],
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<u64> {
    let mut total = 0;
    let mut ready = Vec::new();
    for handle in due {
        *handle.stepping.lock().await = None;
        let query = recover_patiently(handle).await?;
        let target = query.target().await?;
        let waiting = query.waiting(&target);
        handle.with.metrics.backlog.store(waiting, Relaxed);
        total += waiting;
        ready.push((*handle, query, target));
    }
    let stop = CancellationToken::new();
    let mut running: FuturesUnordered<_> =
        ready.into_iter().map(|(h, q, t)| run_to_target(h, q, t, stop.clone())).collect();
    let left = || due.iter().map(|h| h.with.metrics.backlog.load(Relaxed)).sum::<u64>();
    let mut tick = tokio::time::interval(TELL);
    loop {
        tokio::select! {
            ended = running.next() => match ended {
                None => break,
                Some(ended) => ended?,
            },
            _ = tick.tick() => progress(total.saturating_sub(left()), total),
        }
    }
    progress(total, total);
    Ok(total)
}

/// Runs one query to its target, trying again where that can help.
async fn run_to_target(
    handle: &Arc<QueryHandle>,
    mut query: Query,
    target: crate::query::Target,
    stop: CancellationToken,
) -> Result<()> {
    set(handle, QueryState::Running);
    loop {
        match query.run(Some(target.clone()), stop.clone()).await {
            Ok(_) => {
                set(handle, QueryState::Finished);
                return Ok(());
            }
            Err(error) => give_up_or_wait(handle, error).await?,
        }
        query = recover_patiently(handle).await?;
    }
}

async fn recover_patiently(handle: &Arc<QueryHandle>) -> Result<Query> {
    loop {
        match Query::recover(&handle.spec, handle.with.clone()).await {
            Ok(query) => return Ok(query),
            Err(error) => give_up_or_wait(handle, error).await?,
        }
    }
}

async fn give_up_or_wait(handle: &Arc<QueryHandle>, error: Error) -> Result<()> {
    let tries = handle.with.metrics.retries.load(Relaxed);
    if error.retryable() && tries < TRIES_OF_A_BOUNDED_RUN {
        wait(handle, &error, &CancellationToken::new()).await;
        return Ok(());
    }
    set(handle, QueryState::Failed(reason(&error)));
    Err(error)
}
