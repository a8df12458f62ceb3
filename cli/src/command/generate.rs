//! `tidemill generate`: seeded events, to a topic, a file or stdout.

mod nexmark;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use tidemill_engine::clock::Clock;
use tidemill_engine::source::generator::events::Events;
use tidemill_engine::source::generator::{TEMPLATES, template_schema};
use tidemill_engine::source::kafka::producer::{Producer, Record};
use tidemill_sql::session::Progress;

use crate::args::GenerateArgs;
use crate::interrupt::stop;
use crate::output::talk;
use crate::pace::Pace;
use crate::progress::Bar;
use crate::units::{self, grouped};

pub async fn run(args: GenerateArgs) -> Result<ExitCode> {
    if args.template == "list" {
        return list();
    }
    if args.template == nexmark::NEXMARK {
        return nexmark::run(args).await;
    }
    let plan = Plan::of_template(&args, &args.template)?;
    let mut work = Work { sink: Sink::open(&args)?, done: 0, bar: Bar::new("events") };
    let mut pace = Pace::new(plan.rate);
    let made = tokio::select! {
        made = work.run(&plan, &mut pace) => made,
        stopped = stop() => stopped,
    };
    let flushed = work.sink.flush().await;
    let (done, rate) = (work.done, pace.achieved(work.done));
    drop(work);
    made?;
    flushed?;
    talk(format!("{} events to {}, {} a second", grouped(done), args.to, grouped(rate as u64)));
    Ok(ExitCode::SUCCESS)
}

fn list() -> Result<ExitCode> {
    let mut out = io::stdout();
    for template in TEMPLATES {
        let schema = template_schema(template)?;
        let columns: Vec<&str> =
            schema.fields().iter().map(|field| field.name().as_str()).collect();
        writeln!(out, "{template:16} {}", columns.join(", "))?;
    }
    writeln!(out, "{:16} all three of nexmark.*, into a folder or into topics", nexmark::NEXMARK)?;
    Ok(ExitCode::SUCCESS)
}

/// What the arguments mean.
struct Plan {
    events: Events,
    rate: f64,
    rows: Option<u64>,
}

impl Plan {
    fn of_template(args: &GenerateArgs, template: &str) -> Result<Self> {
        let rate = args.rate.as_deref().map_or(Ok(f64::INFINITY), units::rate).context("--rate")?;
        let rows = args.rows.as_deref().map(units::count).transpose().context("--rows")?;
        let late = units::share(&args.late).context("--late")?;
        let broken = units::share(&args.broken).context("--broken")?;
        let mut options = BTreeMap::from([
            ("template".to_string(), template.to_string()),
            ("seed".to_string(), args.seed.to_string()),
        ]);
        if rate.is_finite() {
            options.insert("rows_per_second".into(), rate.to_string());
        }
        // Events that come at a rate happen as they come. Without one they are for a
        // file or a fixture: the same seed makes the same bytes.
        let start = args.start_time.as_deref().or(rate.is_finite().then_some("now"));
        if let Some(start) = start {
            options.insert("start_time".into(), start.into());
        }
        let events = Events::new(&options, Clock::System.now_us(), late, broken)?;
        let own_end = events.number_of_rows().and_then(|rows| u64::try_from(rows).ok());
        Ok(Self { events, rate, rows: rows.or(own_end) })
    }
}

struct Work {
    sink: Sink,
    done: u64,
    bar: Bar,
}

impl Work {
    async fn run(&mut self, plan: &Plan, pace: &mut Pace) -> Result<()> {
        let rows = plan.rows.unwrap_or(u64::MAX);
        while self.done < rows {
            let due = pace.due().await.min(rows - self.done);
            let range = i64::try_from(self.done)?..i64::try_from(self.done + due)?;
            for payload in plan.events.json(range)? {
                self.sink.put(&payload).await?;
            }
            self.done += due;
            self.sink.portion()?;
            self.bar.update(Progress { rows_done: self.done, rows_total: plan.rows.unwrap_or(0) });
        }
        Ok(())
    }
}

enum Sink {
    Lines(Box<dyn Write + Send>),
    Topic { producer: Producer, topic: String },
}

impl Sink {
    fn open(args: &GenerateArgs) -> Result<Self> {
        if let Some((servers, topic)) = kafka_address(&args.to)? {
            let producer = Producer::new(servers, &properties(&args.properties)?)?;
            return Ok(Sink::Topic { producer, topic: topic.to_string() });
        }
        if !args.properties.is_empty() {
            bail!("--property is for --to kafka://…");
        }
        if args.to == "-" {
            return Ok(Sink::Lines(Box::new(BufWriter::new(io::stdout()))));
        }
        let file = File::create(&args.to).with_context(|| format!("can't write {}", args.to))?;
        Ok(Sink::Lines(Box::new(BufWriter::new(file))))
    }

    async fn put(&mut self, payload: &[u8]) -> Result<()> {
        match self {
            Sink::Lines(out) => {
                out.write_all(payload)?;
                Ok(out.write_all(b"\n")?)
            }
            Sink::Topic { producer, topic } => {
                let record = Record { topic, payload: Some(payload), ..Record::default() };
                Ok(producer.send(record).await?)
            }
        }
    }

    /// At a slow rate, a reader of the pipe sees events as they are made.
    fn portion(&mut self) -> Result<()> {
        match self {
            Sink::Lines(out) => Ok(out.flush()?),
            Sink::Topic { .. } => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<()> {
        match self {
            Sink::Lines(out) => Ok(out.flush()?),
            Sink::Topic { producer, .. } => Ok(producer.flush().await?),
        }
    }
}

/// The servers and the topic of `kafka://servers/topic`.
fn kafka_address(to: &str) -> Result<Option<(&str, &str)>> {
    let Some(rest) = to.strip_prefix("kafka://") else { return Ok(None) };
    rest.split_once('/')
        .filter(|(servers, topic)| !servers.is_empty() && !topic.is_empty())
        .map(Some)
        .ok_or_else(|| anyhow!("--to {to}: write it as kafka://HOST:PORT/TOPIC"))
}

fn properties(list: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            anyhow!("--property {text}: write it as KEY=VALUE, such as security.protocol=SSL")
        })?;
        Ok((key.trim().to_string(), value.trim().to_string()))
    };
    list.iter().map(pair).collect()
}
