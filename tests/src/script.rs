//! One `.slt` file: what of it runs in which way, and what is checked.
//!
//! As it is written, everything runs and everything is checked. In the other
//! ways the epochs are cut differently, so answers in the middle differ: there
//! only the `SELECT`s *after the last `RUN`* are checked (and all statements
//! still run). `CHANGES` and the epochs that `statement count` counts belong to
//! the script as written, too.
//!
//! Comments set a script apart where that is not enough, always with a reason:
//!
//! ```text
//! # ways: as-written, restarts (the table changes between epochs)
//! # no oracle: late, early (now() is the epoch's)
//! ```
//!
//! And `onlyif as-written` or `skipif three-partitions` before one query.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqllogictest::{DefaultColumnType, Record, Runner, StatementExpect, strict_column_validator};
use tokio::sync::Mutex;

use crate::delta_log;
use crate::directive::{self, Directive};
use crate::driver::{Driver, Shared};
use crate::error::{Error, Result};
use crate::oracle;
use crate::way::Way;
use crate::world::World;

type SltRecord = Record<DefaultColumnType>;

/// A parsed script.
#[derive(Debug)]
pub struct Script {
    records: Vec<SltRecord>,
    ways: Vec<Way>,
    /// Views whose content no batch query can answer.
    without_oracle: Vec<String>,
    last_run: Option<usize>,
}

impl Script {
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        Self::parse(&std::fs::read_to_string(path)?, &name)
    }

    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let records: Vec<SltRecord> = sqllogictest::parse_with_name(text, name)
            .map_err(|error| Error::script(error.to_string()))?;
        let run = |record: &SltRecord| matches!(directive_of(record), Ok(Some(Directive::Run)));
        let last_run = records.iter().rposition(run);
        let ways = match markers(text, "ways:").as_slice() {
            [] if last_run.is_some() => Way::ALL.to_vec(),
            // Without a RUN there is nothing that could be cut in another way.
            [] => vec![Way::AsWritten],
            labels => labels.iter().map(|label| way(label)).collect::<Result<_>>()?,
        };
        Ok(Self { records, ways, without_oracle: markers(text, "no oracle:"), last_run })
    }

    pub fn runs(&self, way: Way) -> bool {
        self.ways.contains(&way)
    }

    /// Runs the script in a world of its own, then asks the oracle.
    pub async fn run(&self, way: Way) -> Result<()> {
        self.run_in(World::default(), way).await.map(|_| ())
    }

    /// Runs the script, asks the oracle, and answers the driver for further questions.
    pub async fn run_in(&self, world: World, way: Way) -> Result<Arc<Mutex<Driver>>> {
        let (mut runner, driver) = runner(world.clone(), way);
        for (index, record) in self.records.iter().enumerate() {
            let Some(record) = self.adapted(index, record, way) else { continue };
            runner.run_async(record).await.map_err(|e| Error::Sqllogictest(e.to_string()))?;
        }
        self.check_end(&world, &driver).await?;
        Ok(driver)
    }

    /// What must hold after every script, whatever it says.
    async fn check_end(&self, world: &World, driver: &Mutex<Driver>) -> Result<()> {
        let mut driver = driver.lock().await;
        let Some(session) = driver.session() else { return Ok(()) };
        oracle::check(session, &self.without_oracle).await?;
        delta_log::check_epochs(&world.store).await?;
        // Recovery alone changes nothing.
        let tables = oracle::tables(session);
        let before = oracle::contents(session, &tables).await?;
        driver.restart().await?;
        let again = driver.session().ok_or_else(|| Error::wrong("no engine"))?;
        let after = oracle::contents(again, &tables).await?;
        for ((table, before), after) in tables.iter().zip(&before).zip(&after) {
            oracle::compare(&format!("{table} after a restart"), before, after)?;
        }
        Ok(())
    }

    /// The record as it runs in `way`; `None` where it does not.
    fn adapted(&self, index: usize, record: &SltRecord, way: Way) -> Option<SltRecord> {
        if way == Way::AsWritten {
            return Some(record.clone());
        }
        let before = self.last_run.is_some_and(|last| index < last);
        let directive = directive_of(record).ok().flatten();
        let mut record = record.clone();
        match (&mut record, directive) {
            (Record::Query { .. }, Some(Directive::Changes(_))) => None,
            (Record::Query { .. }, _) if before => None,
            (Record::Statement { .. }, Some(Directive::Step(_) | Directive::Run))
                if before && way == Way::OneEpoch =>
            {
                None
            }
            (
                Record::Statement { expected: expected @ StatementExpect::Count(_), .. },
                Some(Directive::Step(_) | Directive::Run),
            ) => {
                *expected = StatementExpect::Ok;
                Some(record)
            }
            _ => Some(record),
        }
    }
}

/// Writes the answers of today into the script at `path`.
pub async fn complete(path: &Path) -> Result<()> {
    let (mut runner, _) = runner(World::default(), Way::AsWritten);
    let (validator, normalizer) =
        (sqllogictest::default_validator, sqllogictest::default_normalizer);
    runner
        .update_test_file(path, " ", validator, normalizer, strict_column_validator)
        .await
        .map_err(|error| Error::Sqllogictest(error.to_string()))
}

/// All scripts below `folder`, sorted.
pub fn find(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(find(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn runner(
    world: World,
    way: Way,
) -> (Runner<Shared, impl sqllogictest::MakeConnection<Conn = Shared>>, Arc<Mutex<Driver>>) {
    let driver = Arc::new(Mutex::new(Driver::new(world, way)));
    let shared = Shared(Arc::clone(&driver));
    let mut runner = Runner::new(move || {
        let shared = shared.clone();
        async move { Ok(shared) }
    });
    runner.add_label(way.label());
    runner.with_column_validator(strict_column_validator);
    (runner, driver)
}

fn directive_of(record: &SltRecord) -> Result<Option<Directive>> {
    match record {
        Record::Statement { sql, .. } | Record::Query { sql, .. } => directive::parse(sql),
        _ => Ok(None),
    }
}

/// The words of `# <marker> a, b (why)`.
fn markers(text: &str, marker: &str) -> Vec<String> {
    let line = |line: &str| Some(line.strip_prefix('#')?.trim().strip_prefix(marker)?.to_owned());
    let words = |list: String| -> Vec<String> {
        let list = list.split('(').next().unwrap_or_default().to_owned();
        list.split(',').map(|word| word.trim().to_owned()).filter(|w| !w.is_empty()).collect()
    };
    text.lines().filter_map(line).flat_map(words).collect()
}

fn way(label: &str) -> Result<Way> {
    Way::from_label(label).ok_or_else(|| Error::script(format!("there is no way \"{label}\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# no oracle: v (why, and why not)

statement count 2
STEP

query I
SELECT 1
----
1

statement ok
RUN

query I
SELECT 2
----
2

query T
CHANGES v
----
";

    fn kept(way: Way) -> usize {
        let script = Script::parse(TEXT, "x").unwrap();
        let all = script.records.iter().enumerate();
        all.filter_map(|(index, record)| script.adapted(index, record, way))
            .filter(|record| matches!(record, Record::Statement { .. } | Record::Query { .. }))
            .count()
    }

    #[test]
    fn other_ways_keep_what_stands_after_the_last_run() {
        assert_eq!(kept(Way::AsWritten), 5);
        assert_eq!(kept(Way::Restarts), 3);
        assert_eq!(kept(Way::OneEpoch), 2);
    }

    #[test]
    fn markers_name_views_and_ways() {
        assert_eq!(Script::parse(TEXT, "x").unwrap().without_oracle, ["v"]);
        let script = Script::parse("# ways: one-row, restarts (why)\n", "x").unwrap();
        assert!(script.runs(Way::OneRow) && !script.runs(Way::AsWritten));
        assert!(Script::parse("# ways: sideways\n", "x").is_err());
    }
}
