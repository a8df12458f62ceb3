//! Runs cases, several at a time; one that fails is made smaller and becomes a script.

use std::path::Path;
use std::thread::{self, Builder as Thread};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use tidemill_sql::Session;
use tidemill_tests::error::{Error, Result};
use tidemill_tests::script::Script;
use tidemill_tests::way::Way;
use tidemill_tests::world::World;
use tokio::runtime::{Builder, Runtime};

/// Cases are dealt out over so many threads, the same on every machine.
const LANES: u64 = 4;
/// Queries are nested deeply, and what plans them is not optimised.
const STACK: usize = 32 << 20;
/// How many cases, and how many milliseconds, are spent on making a failing one smaller.
const SHRINKING: (u32, u32) = (4000, 240_000);

/// A number that the environment says, or else `default`.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How many cases run: what the environment says, or else `default`.
pub fn cases(default: u32) -> u32 {
    u32::try_from(number("TIDEMILL_CASES", default.into())).unwrap_or(u32::MAX)
}

fn runner(lane: u64, cases: u32) -> TestRunner {
    let seed = number("TIDEMILL_SEED", 1);
    TestRunner::new(Config {
        cases: cases.div_ceil(LANES as u32),
        max_shrink_iters: SHRINKING.0,
        max_shrink_time: SHRINKING.1,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed.wrapping_mul(LANES).wrapping_add(lane)),
        ..Config::default()
    })
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).thread_stack_size(STACK).enable_all().build().expect("a runtime")
}

/// Runs `check` on `cases` cases; one that fails ends as a script.
pub fn for_cases<S: Strategy>(
    name: &str,
    cases: u32,
    strategy: impl Fn() -> S + Sync,
    script: impl Fn(&S::Value) -> String + Sync,
    check: impl AsyncFn(&S::Value) -> Result<()> + Sync,
) {
    println!("TIDEMILL_SEED={}", number("TIDEMILL_SEED", 1));
    let lane = |lane: u64| {
        let runtime = runtime();
        let outcome = runner(lane, cases).run(&strategy(), |case| {
            let checked = runtime.block_on(check(&case));
            checked.map_err(|error| TestCaseError::fail(error.to_string()))
        });
        match outcome {
            Ok(()) => Ok(()),
            Err(TestError::Fail(reason, case)) => Err(keep(name, reason.message(), &script(&case))),
            Err(other) => Err(format!("{other:?}")),
        }
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let start = |n| Thread::new().stack_size(STACK).spawn_scoped(scope, move || lane(n));
        let lanes: Vec<_> = (0..LANES).map(|n| start(n).expect("a thread")).collect();
        let ended = lanes.into_iter().map(|lane| lane.join().expect("a lane"));
        ended.filter_map(std::result::Result::err).collect()
    });
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
}

/// Writes the script of a case that failed where every run of the scripts finds it.
fn keep(name: &str, reason: &str, script: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt").join("found");
    std::fs::create_dir_all(&folder).expect("a folder for the script");
    let free = (1..).map(|n| folder.join(format!("{name}_{n}.slt"))).find(|path| !path.exists());
    let path = free.expect("a free name");
    std::fs::write(&path, script).expect("a place for the script");
    format!("{reason}\n\n{script}\nkept as {}", path.display())
}

/// Runs a script and hands its session to `then`.
pub async fn played(
    text: &str,
    way: Way,
    then: impl AsyncFnOnce(&Session) -> Result<()>,
) -> Result<()> {
    let driver = Script::parse(text, "case")?.run_in(World::default(), way).await?;
    let driver = driver.lock().await;
    then(driver.session().ok_or_else(|| Error::wrong("no session"))?).await
}
