//! `tidemill demo`: the main job from end to end, without anything else installed.
//!
//! A broker inside this process, a feed of events, the statements of
//! `queries/demo/` as a person would submit them, Delta tables in a folder,
//! Flight SQL on loopback. At the end the views are held against what the feed
//! counted: the exit code says whether every event arrived exactly once.

mod feed;
mod headless;
mod monitor;
mod screen;
mod stage;
mod summary;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::args::DemoArgs;
use crate::config::{Config, Settings};
use crate::interrupt::finish;
use crate::logging::{self, Destination};
use crate::output::talk;
use crate::units;
use monitor::View;
use stage::Stage;

/// The statements, file by file: they are in the program, and in the repository to read.
const SCRIPTS: &[(&str, &str)] = &[
    ("queries/demo/1_sources.sql", include_str!("../../../queries/demo/1_sources.sql")),
    ("queries/demo/2_products.sql", include_str!("../../../queries/demo/2_products.sql")),
    ("queries/demo/3_paid_orders.sql", include_str!("../../../queries/demo/3_paid_orders.sql")),
    ("queries/demo/4_activity.sql", include_str!("../../../queries/demo/4_activity.sql")),
    ("queries/demo/5_order_details.sql", include_str!("../../../queries/demo/5_order_details.sql")),
];

/// The result tables that are shown and checked.
const VIEWS: &[View] = &[
    View {
        name: "paid_orders",
        time: "ordered_at",
        columns: "order_id, country, amount",
        expected: |tally| tally.paid_orders,
    },
    View {
        name: "activity",
        time: "happened_at",
        columns: "user_id, what, product_id",
        expected: |tally| tally.orders + tally.page_views,
    },
    View {
        name: "order_details",
        time: "ordered_at",
        columns: "order_id, product, category",
        expected: |tally| tally.orders,
    },
];

/// What the arguments mean.
struct Plan {
    rate: f64,
    seed: u32,
    duration: Option<Duration>,
    warehouse: PathBuf,
    /// A terminal view instead of plain lines.
    live: bool,
}

pub async fn run(args: DemoArgs, settings: &Settings, config: Config) -> Result<ExitCode> {
    let plan = Plan::of(&args)?;
    let log = match plan.live {
        true => Destination::File(plan.warehouse.join("demo.log")),
        false => Destination::Stderr,
    };
    logging::start(settings, "warn", log)?;
    let stage = Stage::set(&plan, config).await?;
    let played = match plan.live {
        true => screen::play(&plan, &stage).await,
        false => headless::play(&plan, &stage).await,
    };
    let settled = match &played {
        Ok(()) => stage.settle().await,
        Err(_) => Ok(()),
    };
    let summary = summary::Summary::of(&stage).await;
    let closed = finish(stage.close()).await;
    played?;
    settled?;
    let summary = summary?;
    summary.print()?;
    closed??;
    talk(format!("Delta tables are left in {}", plan.warehouse.display()));
    Ok(if summary.right() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Plan {
    fn of(args: &DemoArgs) -> Result<Self> {
        let rate = units::rate(&args.rate).context("--rate")?;
        if !(1.0..=feed::FASTEST).contains(&rate) {
            bail!(
                "--rate {}: the demo's broker holds little; from 1/s to {}/s",
                args.rate,
                feed::FASTEST
            );
        }
        let duration =
            args.duration.as_deref().map(units::duration).transpose().context("--for")?;
        let warehouse = match &args.warehouse {
            Some(folder) => empty_folder(PathBuf::from(folder))?,
            None => tempfile::Builder::new().prefix("tidemill-demo-").tempdir()?.keep(),
        };
        let live = !args.headless && screen::possible();
        Ok(Self { rate, seed: args.seed, duration, warehouse, live })
    }
}

/// The demo's topics live as long as it runs: a warehouse that has read other
/// ones can't go on with them.
fn empty_folder(folder: PathBuf) -> Result<PathBuf> {
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("can't make the folder {}", folder.display()))?;
    let mut entries = std::fs::read_dir(&folder)?;
    if entries.next().is_some() {
        bail!(
            "the folder {} is not empty: the demo wants a new one, since its topics start anew each time \
             (to look at what an earlier demo left: tidemill sql --warehouse {})",
            folder.display(),
            folder.display()
        );
    }
    Ok(std::path::absolute(folder)?)
}
