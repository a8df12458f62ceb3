//! `tidemill generate nexmark`: the three streams of one sequence, each to its own place.
//!
//! Into a folder, each stream is a series of files, so that a reader can take the three along
//! at the same pace; into Kafka, each is a topic.

use std::fs::{File, create_dir_all};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tidemill_engine::source::generator::events::Events;
use tidemill_engine::source::kafka::producer::{Producer, Record};
use tidemill_sql::session::Progress;

use super::{Plan, kafka_address, properties};
use crate::args::GenerateArgs;
use crate::interrupt::stop;
use crate::output::talk;
use crate::pace::Pace;
use crate::progress::Bar;
use crate::units::grouped;

/// The template that stands for all three.
pub const NEXMARK: &str = "nexmark";
const STREAMS: [&str; 3] = ["person", "auction", "bid"];
/// Events of the sequence that are made at a time.
const BLOCK: i64 = 50_000;
/// Events of the sequence in a file of each series.
const FILE: i64 = 1_000_000;

pub async fn run(args: GenerateArgs) -> Result<ExitCode> {
    let mut streams = Vec::new();
    for name in STREAMS {
        let plan = Plan::of_template(&args, &format!("nexmark.{name}"))?;
        streams.push(Stream { name, events: plan.events, rate: plan.rate, rows: plan.rows });
    }
    let mut place = Place::open(&args)?;
    let mut made = Made { done: 0, bar: Bar::new("events") };
    let mut pace = Pace::new(streams[0].rate);
    let worked = tokio::select! {
        worked = made.run(&streams, &mut place, &mut pace) => worked,
        stopped = stop() => stopped,
    };
    let flushed = place.flush().await;
    let (done, rate) = (made.done, pace.achieved(made.done));
    drop(made);
    worked?;
    flushed?;
    talk(format!("{} events to {}, {} a second", grouped(done), args.to, grouped(rate as u64)));
    Ok(ExitCode::SUCCESS)
}

/// One of the three.
struct Stream {
    name: &'static str,
    events: Events,
    rate: f64,
    /// Events of the whole sequence, if it ends.
    rows: Option<u64>,
}

struct Made {
    done: u64,
    bar: Bar,
}

impl Made {
    async fn run(&mut self, streams: &[Stream], place: &mut Place, pace: &mut Pace) -> Result<()> {
        let limit = streams.first().and_then(|stream| stream.rows);
        let all = limit.unwrap_or(u64::MAX);
        while self.done < all {
            let due = pace.due().await.min(all - self.done);
            let mut from = i64::try_from(self.done)?;
            let end = from + i64::try_from(due)?;
            while from < end {
                let to = end.min(from + BLOCK).min((from / FILE + 1) * FILE);
                for stream in streams {
                    place.put(stream, from..to).await?;
                }
                from = to;
                tokio::task::yield_now().await;
            }
            self.done += due;
            self.bar.update(Progress { rows_done: self.done, rows_total: limit.unwrap_or(0) });
        }
        Ok(())
    }
}

/// Where the streams go.
enum Place {
    Folder { folder: PathBuf, open: Vec<Part> },
    Topics { producer: Producer, prefix: String },
}

/// The file of a series that is being written.
struct Part {
    stream: &'static str,
    number: i64,
    file: BufWriter<File>,
}

impl Place {
    fn open(args: &GenerateArgs) -> Result<Self> {
        if let Some((servers, prefix)) = kafka_address(&args.to)? {
            let producer = Producer::new(servers, &properties(&args.properties)?)?;
            return Ok(Place::Topics { producer, prefix: prefix.to_string() });
        }
        if !args.properties.is_empty() {
            bail!("--property is for --to kafka://…");
        }
        if args.to == "-" {
            bail!(
                "nexmark makes three streams: --to a folder, or --to kafka://HOST:PORT/PREFIX; \
                 one of them alone is nexmark.bid, nexmark.auction or nexmark.person"
            );
        }
        Ok(Place::Folder { folder: PathBuf::from(&args.to), open: Vec::new() })
    }

    /// Writes what a stream has of these events of the sequence.
    async fn put(&mut self, stream: &Stream, events: Range<i64>) -> Result<()> {
        let rows = stream.events.rows_of(events.start)..stream.events.rows_of(events.end);
        if rows.is_empty() {
            return Ok(());
        }
        let payloads = stream.events.json(rows)?;
        match self {
            Place::Folder { folder, open } => {
                let part = part(folder, open, stream.name, events.start / FILE)?;
                for payload in payloads {
                    part.file.write_all(&payload)?;
                    part.file.write_all(b"\n")?;
                }
            }
            Place::Topics { producer, prefix } => {
                let topic = format!("{prefix}-{}", stream.name);
                for payload in payloads {
                    let payload = Some(payload.as_ref());
                    producer.send(Record { topic: &topic, payload, ..Record::default() }).await?;
                }
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        match self {
            Place::Folder { open, .. } => {
                open.iter_mut().try_for_each(|part| Ok(part.file.flush()?))
            }
            Place::Topics { producer, .. } => Ok(producer.flush().await?),
        }
    }
}

/// The file that events of this number go to.
fn part<'a>(
    folder: &Path,
    open: &'a mut Vec<Part>,
    stream: &'static str,
    number: i64,
) -> Result<&'a mut Part> {
    let at = open.iter().position(|part| part.stream == stream);
    if let Some(at) = at {
        if open[at].number == number {
            return Ok(&mut open[at]);
        }
        open.swap_remove(at).file.flush()?;
    }
    let folder = folder.join(stream);
    create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let path = folder.join(format!("{number:06}.ndjson"));
    let file = File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
    open.push(Part { stream, number, file: BufWriter::new(file) });
    let last = open.len() - 1;
    Ok(&mut open[last])
}
