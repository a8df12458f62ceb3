//! The demo without a terminal: a line every few seconds.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::stage::Stage;
use super::{Plan, monitor};
use crate::interrupt::stop;
use crate::output::talk;
use crate::units::{brief, grouped};

/// How often the views are looked at, for the age of their newest rows.
const LOOK: Duration = Duration::from_millis(250);

const SAY: Duration = Duration::from_secs(5);

pub async fn play(plan: &Plan, stage: &Stage) -> Result<()> {
    talk(format!("warehouse {}", stage.warehouse.display()));
    stage.connect_lines().iter().for_each(|line| talk(format!("  {line}")));
    let over = async {
        match plan.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        watched = watch(stage) => watched,
        () = over => Ok(()),
        stopped = stop() => stopped,
    }
}

async fn watch(stage: &Stage) -> Result<()> {
    let mut said = Instant::now();
    loop {
        stage.fault()?;
        let samples = monitor::look(&stage.target, false).await?;
        stage.feed.ages.record(&samples);
        if said.elapsed() >= SAY {
            said = Instant::now();
            let views: Vec<String> = samples
                .iter()
                .map(|view| format!("{} {}", view.name, grouped(view.rows)))
                .collect();
            let backlog: u64 = stage.database.queries().iter().map(|query| query.backlog).sum();
            let age = samples.iter().filter_map(|view| view.age).max().unwrap_or_default();
            talk(format!(
                "{}: {} events produced; {}; backlog {}; newest rows {} old",
                brief(stage.started.elapsed()),
                grouped(stage.tally().events),
                views.join(", "),
                grouped(backlog),
                brief(age),
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}
