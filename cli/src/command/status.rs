//! `tidemill status`: the continuous queries, once or again and again.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use tidemill_sql::session::Access;

use crate::args::StatusArgs;
use crate::config::Config;
use crate::interrupt::ctrl_c;
use crate::output::{Style, row_writer, talk};
use crate::target::{Reply, Target, Typed, collect};
use crate::units;

pub async fn run(args: StatusArgs, config: Config) -> Result<ExitCode> {
    let every = args.watch.as_deref().map(units::duration).transpose()?;
    let typed = Typed::of(&args.warehouse, &args.connect);
    let target = Target::open(&config, Access::ReadOnly, &typed).await?;
    let style = Style { format: config.format, expanded: false };
    if matches!(target, Target::Embedded { .. }) {
        talk(
            "note: read from the warehouse, which knows states and epochs; rates and backlogs are \
             known to the process that runs it (--connect)",
        );
    }
    let shown = match every {
        None => show(&target, style, "").await,
        Some(every) => watch(&target, style, every).await,
    };
    let closed = target.close().await;
    shown?;
    closed?;
    Ok(ExitCode::SUCCESS)
}

async fn watch(target: &Target, style: Style, every: Duration) -> Result<()> {
    // Home, and clear to the end: the table moves in place.
    let before = if io::stdout().is_terminal() { "\x1b[H\x1b[J" } else { "" };
    loop {
        tokio::select! {
            shown = show(target, style, before) => shown?,
            () = ctrl_c() => return Ok(()),
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = ctrl_c() => return Ok(()),
        }
    }
}

async fn show(target: &Target, style: Style, before: &str) -> Result<()> {
    let Reply::Rows(rows) = target.execute("SHOW QUERIES").await? else {
        bail!("SHOW QUERIES answered no rows");
    };
    let mut writer = row_writer(style, rows.schema.clone());
    let mut text = Vec::from(before);
    for batch in collect(rows).await? {
        writer.batch(&mut text, &batch)?;
    }
    writer.finish(&mut text)?;
    // In one write, so that a watched table does not flicker.
    let mut out = io::stdout();
    out.write_all(&text)?;
    Ok(out.flush()?)
}
