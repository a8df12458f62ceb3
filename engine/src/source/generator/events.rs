//! The generator's events as JSON payloads, for topics and files.
//!
//! Unlike the source itself, this can make trouble on purpose: a share of events
//! that are late, and a share that is broken, each kind of breakage in turn.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::json::LineDelimitedWriter;
use bytes::Bytes;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::source::generator::GeneratorSource;
use crate::source::generator::random::Stream;

/// How far back a late event lies: between these two, in microseconds.
const LATE_US: Range<u64> = 10_000_000..120_000_000;

/// Makes the events of one template.
#[derive(Debug, Clone)]
pub struct Events {
    source: GeneratorSource,
    late: f64,
    broken: f64,
    lateness: Stream,
    breakage: Stream,
}

/// Events `range` of a template as JSON, with event times from 2025-01-01 on, one a millisecond.
pub fn json_rows(template: &str, seed: i64, range: Range<i64>) -> Result<Vec<Bytes>> {
    let options = BTreeMap::from([
        ("template".to_string(), template.to_string()),
        ("seed".to_string(), seed.to_string()),
    ]);
    Events::new(&options, 0, 0.0, 0.0)?.json(range)
}

impl Events {
    /// `options` as [`GeneratorSource::new`] takes them, with a template; `now_us` is what
    /// `start_time = 'now'` means; `late` and `broken` are shares between 0 and 1.
    pub fn new(
        options: &BTreeMap<String, String>,
        now_us: i64,
        late: f64,
        broken: f64,
    ) -> Result<Self> {
        for (name, share) in [("late", late), ("broken", broken)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::invalid(format!(
                    "{name} is a share between 0 and 1, not {share}"
                )));
            }
        }
        let seed = options.get("seed").and_then(|seed| seed.parse().ok()).unwrap_or(0);
        Ok(Self {
            source: GeneratorSource::new("events", None, options, now_us, Clock::System)?,
            late,
            broken,
            lateness: Stream::new(seed, "late"),
            breakage: Stream::new(seed, "broken"),
        })
    }

    pub fn schema(&self) -> SchemaRef {
        crate::source::Source::schema(&self.source)
    }

    /// How many events there are, if they end.
    pub fn number_of_rows(&self) -> Option<i64> {
        self.source.rows
    }

    /// How many of the first `events` of the sequence are this template's: all but for Nexmark.
    pub fn rows_of(&self, events: i64) -> i64 {
        self.source.plan.share.rows(events)
    }

    /// When event `row` is due, in microseconds since 1970.
    pub fn time_us(&self, row: i64) -> i64 {
        self.source.timeline.time_us(row)
    }

    /// The events as Arrow, late ones included; none is broken.
    pub fn batch(&self, range: Range<i64>) -> Result<RecordBatch> {
        let schema = self.schema();
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let arrays = self.source.plan.arrays(&all, range.clone(), self.source.timeline)?;
        let arrays = arrays.into_iter().map(|array| self.delay(array, range.start)).collect();
        Ok(RecordBatch::try_new(schema, arrays)?)
    }

    /// The events as JSON objects, one each.
    pub fn json(&self, range: Range<i64>) -> Result<Vec<Bytes>> {
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write(&self.batch(range.clone())?)?;
        writer.finish()?;
        let lines = Bytes::from(writer.into_inner());
        let mut rows = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
        let mut start = 0;
        for (row, line) in range.zip(lines.split(|byte| *byte == b'\n')) {
            let end = start + line.len();
            let event = lines.slice(start..end);
            rows.push(match self.breakage.happens(row, self.broken) {
                true => self.broken(row, &event),
                false => event,
            });
            start = end + 1;
        }
        Ok(rows)
    }

    /// Moves the times of late events back.
    fn delay(&self, array: ArrayRef, first: i64) -> ArrayRef {
        let Some(times) = array.as_primitive_opt::<TimestampMicrosecondType>() else {
            return array;
        };
        let late = |(row, time): (i64, &i64)| match self.lateness.happens(row, self.late) {
            false => *time,
            true => {
                let by = LATE_US.start + self.lateness.below(!row, LATE_US.end - LATE_US.start);
                time - by.cast_signed()
            }
        };
        let times: Vec<i64> = (first..).zip(times.values()).map(late).collect();
        let times = arrow::array::TimestampMicrosecondArray::from(times);
        std::sync::Arc::new(times.with_data_type(array.data_type().clone()))
    }

    /// One of the ways in which producers break events.
    fn broken(&self, row: i64, event: &Bytes) -> Bytes {
        match self.breakage.below(!row, 4) {
            0 => event.slice(..event.len() / 2),
            1 => Bytes::from_static(b"<html><body>502 Bad Gateway</body></html>"),
            2 => Bytes::from(
                event
                    .iter()
                    .map(|byte| if *byte == b'"' { b'\'' } else { *byte })
                    .collect::<Vec<u8>>(),
            ),
            _ => Bytes::from_iter(event.iter().copied().chain(*b"\xff\xfe")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Format, RawBatch, decoder};
    use crate::source::generator::TEMPLATES;
    use arrow::array::{BinaryArray, Int64Array};

    fn options(template: &str) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("template".into(), template.into()),
            ("number_of_rows".into(), "1000".into()),
        ])
    }

    fn decode(schema: &SchemaRef, rows: &[Bytes]) -> (RecordBatch, usize) {
        let raw = RawBatch {
            origin: "t".into(),
            partition: 0,
            offsets: Int64Array::from_iter_values(0..rows.len() as i64),
            timestamps: None,
            payloads: rows.iter().map(|row| Some(row.as_ref())).collect::<BinaryArray>(),
            keys: None,
            headers: None,
        };
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let format = Format::Json { timestamp_unit: Default::default() };
        let (chunk, rejected) = decoder(&format, schema, &all).unwrap().decode(raw).unwrap();
        (chunk.batch, rejected.len())
    }

    #[test]
    fn json_decodes_to_what_the_source_makes() {
        for template in TEMPLATES {
            let events = Events::new(&options(template), 0, 0.0, 0.0).unwrap();
            let rows = events.json(0..1000).unwrap();
            let (batch, rejected) = decode(&events.schema(), &rows);
            assert_eq!(rejected, 0);
            assert_eq!(batch, events.batch(0..1000).unwrap());
            assert_eq!(events.json(500..510).unwrap(), rows[500..510]);
        }
        assert_eq!(json_rows("orders", 0, 3..5).unwrap().len(), 2);
    }

    #[test]
    fn late_and_broken_events_come_in_their_share() {
        let good = Events::new(&options("orders"), 0, 0.0, 0.0).unwrap();
        let events = Events::new(&options("orders"), 0, 0.1, 0.05).unwrap();
        let (_, rejected) = decode(&events.schema(), &events.json(0..1000).unwrap());
        assert!((25..100).contains(&rejected), "{rejected}");
        let at = events.schema().index_of("ordered_at").unwrap();
        let times = |events: &Events| events.batch(0..1000).unwrap().column(at).clone();
        let (late, due) = (times(&events), times(&good));
        let late = late.as_primitive::<TimestampMicrosecondType>().values().to_vec();
        let due = due.as_primitive::<TimestampMicrosecondType>().values().to_vec();
        let moved = late.iter().zip(&due).filter(|(late, due)| late < due).count();
        assert!((50..200).contains(&moved), "{moved}");
        assert!(Events::new(&options("orders"), 0, 2.0, 0.0).is_err());
    }
}
