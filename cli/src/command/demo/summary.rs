//! What the demo did, and whether every event arrived exactly once.

use std::io::{self, Write};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Result;
use tidemill_sql::session::QueryStatus;

use super::VIEWS;
use super::feed::Tally;
use super::monitor::{self, ViewSample};
use super::stage::Stage;
use crate::units::{brief, grouped};

/// Ages of the views' newest rows, one a look.
#[derive(Default)]
pub struct Ages(Mutex<Vec<Duration>>);

impl Ages {
    pub fn record(&self, samples: &[ViewSample]) {
        if let Ok(mut ages) = self.0.lock() {
            ages.extend(samples.iter().filter_map(|sample| sample.age));
        }
    }

    /// The age that this share of looks did not exceed.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let mut ages = self.0.lock().ok()?.clone();
        ages.sort_unstable();
        let last = ages.len().checked_sub(1)?;
        ages.get((last as f64 * share).round() as usize).copied()
    }
}

pub struct Summary {
    elapsed: Duration,
    tally: Tally,
    queries: Vec<QueryStatus>,
    /// Name, rows, rows that there should be.
    counts: Vec<(String, u64, u64)>,
    ages: Option<(Duration, Duration)>,
}

impl Summary {
    pub async fn of(stage: &Stage) -> Result<Self> {
        let tally = stage.tally();
        let samples = monitor::look(&stage.target, false).await?;
        let mut counts: Vec<_> = samples
            .into_iter()
            .zip(VIEWS)
            .map(|(sample, view)| (sample.name, sample.rows, (view.expected)(&tally)))
            .collect();
        counts.push(("dead letters".into(), stage.dead_letters().await?, tally.broken));
        let ages = &stage.feed.ages;
        Ok(Self {
            elapsed: stage.started.elapsed(),
            tally,
            queries: stage.database.queries(),
            counts,
            ages: ages.percentile(0.5).zip(ages.percentile(0.99)),
        })
    }

    /// Whether every view holds exactly what was produced.
    pub fn right(&self) -> bool {
        self.counts.iter().all(|(_, rows, expected)| rows == expected)
    }

    pub fn print(&self) -> Result<()> {
        let mut text = format!(
            "produced  {} events in {} ({} orders, {} page views, {} broken)\n",
            grouped(self.tally.events),
            brief(self.elapsed),
            grouped(self.tally.orders),
            grouped(self.tally.page_views),
            grouped(self.tally.broken),
        );
        for query in &self.queries {
            text.push_str(&format!(
                "query     {}: {} read, {} written in {} epochs\n",
                query.name,
                grouped(query.rows_read),
                grouped(query.rows_written),
                grouped(query.epoch),
            ));
        }
        for (name, rows, expected) in &self.counts {
            let verdict = match rows == expected {
                true => "as produced".to_string(),
                false => format!("WRONG: {} were produced", grouped(*expected)),
            };
            text.push_str(&format!("holds     {name}: {} rows, {verdict}\n", grouped(*rows)));
        }
        if let Some((half, most)) = self.ages {
            text.push_str(&format!(
                "fresh     newest rows {} old in half of the looks, at most {} in 99 of 100\n",
                brief(half),
                brief(most),
            ));
        }
        io::stdout().write_all(text.as_bytes())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_ages() {
        let ages = Ages::default();
        assert_eq!(ages.percentile(0.5), None);
        let samples: Vec<ViewSample> = (0..=100)
            .map(|ms| ViewSample { age: Some(Duration::from_millis(ms)), ..ViewSample::default() })
            .collect();
        ages.record(&samples);
        assert_eq!(ages.percentile(0.5), Some(Duration::from_millis(50)));
        assert_eq!(ages.percentile(0.99), Some(Duration::from_millis(99)));
    }
}
