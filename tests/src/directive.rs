//! What a script may say besides SQL.
//!
//! ```text
//! TOPIC clicks 4                       a topic with four partitions
//! PRODUCE clicks                       records, one a line, to a topic
//! {"id": 1}
//! KEY 'k' HEADER trace 'a1' {"id": 2}
//! RAW 'no json at all'
//! TOMBSTONE
//! PRODUCE clicks 2 {"id": 3}           to a partition
//! STEP [query]                         one epoch of every query, or of one
//! RUN                                  epochs until nothing is new
//! RESTART                              the engine is gone, another one recovers
//! ADVANCE 10s                          the clock
//! AWAY 2                               the next reads of topics fail, a retry can help
//! EXPIRE clicks 0 2                    the records before an offset are gone
//! CHANGES view                         what the view's last version added and took away
//! ```

use std::time::Duration;

use bytes::Bytes;
use tidemill_engine::source::memory::Record;

use crate::error::{Error, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directive {
    Topic { topic: String, partitions: usize },
    Produce { topic: String, partition: Option<i32>, records: Vec<Record> },
    Step(Option<String>),
    Run,
    Restart,
    Advance(Duration),
    Away(u32),
    Expire { topic: String, partition: i32, oldest: i64 },
    Changes(String),
}

/// Reads a directive; `None` when the text is SQL.
pub fn parse(text: &str) -> Result<Option<Directive>> {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let words: Vec<&str> = first.split_whitespace().collect();
    let directive = match words[..] {
        ["TOPIC", topic, partitions] => {
            Directive::Topic { topic: topic.into(), partitions: number(partitions)? }
        }
        ["PRODUCE", ..] => produce(first, rest)?,
        ["STEP"] => Directive::Step(None),
        ["STEP", query] => Directive::Step(Some(query.into())),
        ["RUN"] => Directive::Run,
        ["RESTART"] => Directive::Restart,
        ["ADVANCE", by] => Directive::Advance(duration(by)?),
        ["AWAY", reads] => Directive::Away(number(reads)?),
        ["EXPIRE", topic, partition, oldest] => Directive::Expire {
            topic: topic.into(),
            partition: number(partition)?,
            oldest: number(oldest)?,
        },
        ["CHANGES", view] => Directive::Changes(view.into()),
        _ => return Ok(None),
    };
    Ok(Some(directive))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::script(format!("{text} is no number that fits here")))
}

fn duration(text: &str) -> Result<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(Error::script(format!("{text} is no time: write 10s, 500ms, 2m or 1h"))),
    };
    Ok(Duration::from_millis(number::<u64>(count)? * millis))
}

/// `PRODUCE topic [partition] [record]`, further records a line each.
fn produce(first: &str, rest: &str) -> Result<Directive> {
    let mut left = Left(first);
    left.word();
    let topic = left.word().ok_or_else(|| Error::script("PRODUCE names no topic"))?.to_owned();
    let partition = left.peek().parse().ok();
    if partition.is_some() {
        left.word();
    }
    let lines = std::iter::once(left.0).chain(rest.lines()).map(str::trim);
    let records = lines.filter(|line| !line.is_empty()).map(record).collect::<Result<Vec<_>>>()?;
    Ok(Directive::Produce { topic, partition, records })
}

/// `[KEY 'k'] [HEADER name 'v']… payload`, the payload being `TOMBSTONE`, `RAW 'text'` or
/// the rest of the line as it is.
fn record(line: &str) -> Result<Record> {
    let mut record = Record { timestamp_ms: i64::MIN, ..Record::default() };
    let mut left = Left(line);
    loop {
        match left.peek() {
            "KEY" => {
                left.word();
                record.key = Some(left.quoted()?);
            }
            "HEADER" => {
                left.word();
                let name = left.word().unwrap_or_default().to_owned();
                record.headers.push((name, left.quoted()?));
            }
            "TOMBSTONE" => return Ok(record),
            "RAW" => {
                left.word();
                record.payload = Some(left.quoted()?);
                return Ok(record);
            }
            _ => {
                record.payload = Some(Bytes::copy_from_slice(left.0.as_bytes()));
                return Ok(record);
            }
        }
    }
}

/// What is left of a line.
struct Left<'a>(&'a str);

impl<'a> Left<'a> {
    fn peek(&self) -> &'a str {
        self.0.split_whitespace().next().unwrap_or_default()
    }

    fn word(&mut self) -> Option<&'a str> {
        let word = self.peek();
        self.0 = self.0.trim_start().strip_prefix(word).unwrap_or_default().trim_start();
        (!word.is_empty()).then_some(word)
    }

    /// `'text'`, a quote in it doubled.
    fn quoted(&mut self) -> Result<Bytes> {
        let wrong = || Error::script(format!("expected 'text' at: {}", self.0));
        let inner = self.0.strip_prefix('\'').ok_or_else(wrong)?;
        let mut text = String::new();
        let mut chars = inner.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '\'' if chars.next_if(|(_, next)| *next == '\'').is_some() => text.push('\''),
                '\'' => {
                    self.0 = inner[at + 1..].trim_start();
                    return Ok(text.into());
                }
                c => text.push(c),
            }
        }
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Directive {
        parse(text).unwrap().unwrap()
    }

    fn payload(text: &str) -> Record {
        let payload = Some(Bytes::copy_from_slice(text.as_bytes()));
        Record { payload, timestamp_ms: i64::MIN, ..Record::default() }
    }

    #[test]
    fn records_stand_on_the_line_or_below() {
        let one = parsed("PRODUCE t 2 {\"id\": 1}");
        let records = vec![payload("{\"id\": 1}")];
        assert_eq!(one, Directive::Produce { topic: "t".into(), partition: Some(2), records });
        let Directive::Produce { partition, records, .. } = parsed(
            "PRODUCE t\n{\"id\": 1}\nTOMBSTONE\nRAW 'it''s'\nKEY 'k' HEADER h 'v' {\"id\": 2}",
        ) else {
            panic!("no PRODUCE");
        };
        assert_eq!((partition, records.len()), (None, 4));
        assert_eq!(records[0], payload("{\"id\": 1}"));
        assert_eq!(records[1].payload, None);
        assert_eq!(records[2], payload("it's"));
        assert_eq!(records[3].key.as_deref(), Some(&b"k"[..]));
        assert_eq!(records[3].headers[0].0, "h");
        assert_eq!(records[3].payload.as_deref(), Some(&b"{\"id\": 2}"[..]));
    }

    #[test]
    fn sql_is_left_alone() {
        for sql in ["SELECT 1", "CREATE SOURCE run (id INT)", "INSERT INTO t VALUES (1)"] {
            assert_eq!(parse(sql).unwrap(), None, "{sql}");
        }
        assert_eq!(parsed("ADVANCE 2m"), Directive::Advance(Duration::from_secs(120)));
        assert_eq!(parsed("STEP v"), Directive::Step(Some("v".into())));
        assert!(parse("ADVANCE soon").is_err());
        assert!(parse("PRODUCE t RAW 'open").is_err());
    }
}
