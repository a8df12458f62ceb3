//! A seeded generator of events as a source.
//!
//! Row `i` is a pure function of the seed and `i`, so any range reads the same
//! whenever, however often and in whatever pieces it is read. Rows become available
//! as time goes by since the source was created; the event time of row `i` is
//! `start_time + i / rows_per_second`, whatever the clock says.

pub mod events;
mod nexmark;
mod random;
mod template;
mod values;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{BinaryArray, Int64Array};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::clock::Clock;
use crate::decode::{Layout, RawBatch, bad_option, parse_timestamp_us};
use crate::epoch::{OffsetRange, Offsets, Ranges};
use crate::error::{Error, Result};
use crate::source::generator::template::Plan;
use crate::source::generator::values::Timeline;
use crate::source::{Chunk, Origin, Reader, Rows, Source};

pub use template::{TEMPLATES, template_schema};

/// Rows made at a time.
const CHUNK_ROWS: i64 = 8192;
/// Event time of the first row: 2025-01-01T00:00:00Z.
const DEFAULT_START_US: i64 = 1_735_689_600_000_000;

/// `connector = 'generator'`.
#[derive(Debug, Clone)]
pub struct GeneratorSource {
    name: String,
    schema: SchemaRef,
    plan: Arc<Plan>,
    timeline: Timeline,
    /// Rows in all; None never ends.
    rows: Option<i64>,
    /// Whether rows appear as time goes by; else they are all there.
    paced: bool,
    created_at_us: i64,
    clock: Clock,
}

impl GeneratorSource {
    /// Options, all optional:
    ///
    /// | option | meaning |
    /// |---|---|
    /// | `template` | what it makes, one of [`TEMPLATES`]; without it, values after type and name of the declared columns |
    /// | `rows_per_second` | how fast rows appear; default 1000 (`nexmark.*`: 10000), or all at once where `number_of_rows` is given |
    /// | `number_of_rows` | ends after so many; default endless, for `products` 1000 and for `users` 10000 |
    /// | `seed` | another seed, other rows; default 0 |
    /// | `start_time` | event time of the first row, ISO 8601 or `now` (when the source was created); default 2025-01-01 |
    ///
    /// The templates `nexmark.bid`, `nexmark.auction` and `nexmark.person` are parts of one
    /// sequence of events: for them `number_of_rows` and `rows_per_second` speak of the whole
    /// sequence, of which each has its share (92, 6 and 2 in a hundred).
    ///
    /// `declared` holds the declared columns, if any: of a template, some of its columns.
    /// Metadata columns alone come behind all that the template has.
    /// `created_at_us` is when the source was created; it must survive restarts.
    ///
    /// It is bounded where `number_of_rows` stands without a rate: with one, rows
    /// trickle until there are enough.
    pub fn new(
        name: &str,
        declared: Option<SchemaRef>,
        options: &BTreeMap<String, String>,
        created_at_us: i64,
        clock: Clock,
    ) -> Result<Self> {
        let template = options.get("template").map(String::as_str);
        let seed = whole(options, "seed")?.unwrap_or(0);
        let (schema, plan) = template::plan(template, declared, seed)?;
        let rate = rate(options)?;
        let rows = whole(options, "number_of_rows")?.or(plan.default_rows);
        let rows = rows.map(|events| plan.share.rows(events));
        if rows.is_none() && rate == Some(0.0) {
            return Err(Error::invalid_hint(
                "rows_per_second = 0 makes all rows at once, which never ends",
                "add number_of_rows",
            ));
        }
        let pace = rate.filter(|rate| *rate > 0.0);
        let start_us = match options.get("start_time").map(String::as_str) {
            None => DEFAULT_START_US,
            Some("now") => created_at_us,
            Some(text) => parse_timestamp_us(text)
                .ok_or_else(|| bad_option("start_time", text, "'2025-01-01T00:00:00Z' or 'now'"))?,
        };
        Ok(Self {
            name: name.to_string(),
            schema,
            timeline: Timeline::new(start_us, pace.unwrap_or(plan.default_rate)).of(plan.share),
            plan: Arc::new(plan),
            rows,
            paced: pace.is_some() || rows.is_none(),
            created_at_us,
            clock,
        })
    }

    /// How many rows exist now.
    fn available_rows(&self) -> i64 {
        let limit = self.rows.unwrap_or(i64::MAX);
        if !self.paced {
            return limit;
        }
        let elapsed = self.clock.now_us().saturating_sub(self.created_at_us);
        self.timeline.rows_within(elapsed).clamp(0, limit)
    }
}

fn rate(options: &BTreeMap<String, String>) -> Result<Option<f64>> {
    let Some(text) = options.get("rows_per_second") else { return Ok(None) };
    match text.parse::<f64>() {
        Ok(rate) if rate == 0.0 || (0.001..=1e9).contains(&rate) => Ok(Some(rate)),
        _ => Err(bad_option("rows_per_second", text, "a number between 0.001 and 1000000000")),
    }
}

fn whole(options: &BTreeMap<String, String>, name: &str) -> Result<Option<i64>> {
    let Some(text) = options.get(name) else { return Ok(None) };
    match text.parse::<i64>() {
        Ok(value) if value >= 0 => Ok(Some(value)),
        _ => Err(bad_option(name, text, "a whole number that is not negative")),
    }
}

#[async_trait]
impl Source for GeneratorSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn connector(&self) -> &'static str {
        "generator"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn bounded(&self) -> bool {
        !self.paced
    }

    async fn available(&self) -> Result<Ranges> {
        Ok(Ranges::from([(0, OffsetRange::new(0, self.available_rows()))]))
    }

    async fn start(&self, available: &Ranges) -> Result<Offsets> {
        Ok(available.iter().map(|(partition, range)| (*partition, range.start)).collect())
    }

    fn open(&self, projection: Vec<usize>) -> Result<Box<dyn Reader>> {
        let layout = Layout::new(&self.schema, &projection)?;
        let wanted: Vec<String> =
            layout.payload_fields().map(|field| field.name().clone()).collect();
        Ok(Box::new(GeneratorReader {
            name: self.name.as_str().into(),
            columns: self.plan.positions(&wanted)?,
            plan: Arc::clone(&self.plan),
            timeline: self.timeline,
            layout,
        }))
    }
}

struct GeneratorReader {
    name: Arc<str>,
    layout: Layout,
    plan: Arc<Plan>,
    /// Of the plan, in projected order.
    columns: Vec<usize>,
    timeline: Timeline,
}

impl GeneratorReader {
    fn chunk(&self, rows: Range<i64>) -> Result<Chunk> {
        let count = usize::try_from(rows.end - rows.start).unwrap_or(0);
        let payload = self.plan.arrays(&self.columns, rows.clone(), self.timeline)?;
        let times = rows.clone().map(|row| self.timeline.time_us(row).div_euclid(1000));
        let raw = RawBatch {
            origin: Arc::clone(&self.name),
            partition: 0,
            offsets: Int64Array::from_iter_values(rows.clone()),
            timestamps: Some(Int64Array::from_iter_values(times)),
            payloads: BinaryArray::new_null(count),
            keys: None,
            headers: None,
        };
        let batch = self.layout.batch(&raw, &payload)?;
        let origin = Origin { offsets: raw.offsets, timestamps: raw.timestamps, payloads: None };
        Ok(Chunk { batch, partition: 0, origin })
    }
}

#[async_trait]
impl Reader for GeneratorReader {
    async fn read(&mut self, ranges: &Ranges) -> Result<Rows> {
        let mut rows = Rows::default();
        for range in ranges.values() {
            let mut start = range.start;
            while start < range.end {
                let end = range.end.min(start + CHUNK_ROWS);
                let chunk = self.chunk(start..end)?;
                rows.bytes += chunk.batch.get_array_memory_size() as u64;
                rows.chunks.push(chunk);
                start = end;
                tokio::task::yield_now().await;
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, RecordBatch};
    use arrow::compute::concat_batches;
    use arrow::datatypes::{
        DataType, Field, Int64Type, Schema, TimeUnit, TimestampMicrosecondType,
    };

    fn options(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    fn source(list: &[(&str, &str)], clock: &Clock) -> Result<GeneratorSource> {
        GeneratorSource::new("g", None, &options(list), 1_000_000, clock.clone())
    }

    async fn read(
        source: &GeneratorSource,
        projection: Vec<usize>,
        range: Range<i64>,
    ) -> RecordBatch {
        let mut reader = source.open(projection).unwrap();
        let ranges = Ranges::from([(0, OffsetRange::new(range.start, range.end))]);
        let rows = reader.read(&ranges).await.unwrap();
        let schema = rows.chunks[0].batch.schema();
        concat_batches(&schema, rows.chunks.iter().map(|chunk| &chunk.batch)).unwrap()
    }

    #[tokio::test]
    async fn any_range_of_any_template_reads_the_same() {
        for template in TEMPLATES {
            let source =
                source(&[("template", template), ("seed", "7")], &Clock::manual(0)).unwrap();
            let all: Vec<usize> = (0..source.schema().fields().len()).collect();
            let whole = read(&source, all.clone(), 0..20_000).await;
            assert_eq!(whole.schema(), source.schema());
            let part = read(&source, all.clone(), 8_000..17_000).await;
            assert_eq!(part, whole.slice(8_000, 9_000));
            for column in all {
                let alone = read(&source, vec![column], 100..200).await;
                assert_eq!(alone.column(0), &whole.slice(100, 100).column(column).clone());
            }
        }
    }

    #[tokio::test]
    async fn rows_appear_as_time_goes_by() {
        let clock = Clock::manual(1_000_000);
        let endless = source(&[("template", "orders"), ("rows_per_second", "50")], &clock).unwrap();
        let slow = [("template", "orders"), ("rows_per_second", "0.5"), ("number_of_rows", "3")];
        let slow = source(&slow, &clock).unwrap();
        let end = async |source: &GeneratorSource| source.available().await.unwrap()[&0].end;
        assert!(!endless.bounded() && !slow.bounded());
        assert_eq!((end(&endless).await, end(&slow).await), (0, 0));
        clock.advance_us(2_000_000);
        assert_eq!((end(&endless).await, end(&slow).await), (100, 1));
        clock.advance_us(60_000_000);
        assert_eq!((end(&endless).await, end(&slow).await), (3_100, 3));
    }

    #[tokio::test]
    async fn event_time_follows_the_rate_and_not_the_clock() {
        let list = [
            ("template", "orders"),
            ("rows_per_second", "3"),
            ("start_time", "2025-02-01T00:00:00Z"),
        ];
        let source = source(&list, &Clock::manual(0)).unwrap();
        let at = source.schema().index_of("ordered_at").unwrap();
        let batch = read(&source, vec![at], 0..4).await;
        let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        let base = 1_738_368_000_000_000;
        assert_eq!(times.values(), &[base, base + 333_333, base + 666_666, base + 1_000_000]);
    }

    #[test]
    fn bounded_when_only_the_number_is_given() {
        let clock = Clock::manual(0);
        assert!(
            source(&[("template", "orders"), ("number_of_rows", "5")], &clock).unwrap().bounded()
        );
        assert!(source(&[("template", "products")], &clock).unwrap().bounded());
        assert!(!source(&[("template", "orders")], &clock).unwrap().bounded());
        for bad in [
            &[("template", "orders"), ("rows_per_second", "0")][..],
            &[("template", "orders"), ("rows_per_second", "x")],
            &[("template", "orders"), ("number_of_rows", "-1")],
            &[("template", "order")],
            &[("template", "orders"), ("start_time", "soon")],
            &[],
        ] {
            assert!(source(bad, &clock).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn declared_columns_choose_from_a_template() {
        let schema = |fields: Vec<Field>| Some(Arc::new(Schema::new(fields)));
        let declared = schema(vec![
            Field::new("ordered_at", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
            Field::new("amount", DataType::Float64, true),
        ]);
        let list = options(&[("template", "orders"), ("number_of_rows", "10")]);
        let source = GeneratorSource::new("g", declared.clone(), &list, 0, Clock::System).unwrap();
        assert_eq!(Some(read(&source, vec![0, 1], 0..10).await.schema()), declared);
        let unknown = schema(vec![Field::new("colour", DataType::Utf8, true)]);
        let error = GeneratorSource::new("g", unknown, &list, 0, Clock::System).unwrap_err();
        assert!(error.to_string().contains("\"colour\""), "{error}");
        let wrong = schema(vec![Field::new("amount", DataType::Boolean, true)]);
        let error = GeneratorSource::new("g", wrong, &list, 0, Clock::System).unwrap_err();
        assert!(error.to_string().contains("BOOLEAN"), "{error}");
    }

    #[tokio::test]
    async fn without_a_template_types_and_names_decide() {
        let fields = vec![
            Field::new("device_id", DataType::Int32, false),
            Field::new("user_id", DataType::Int64, true),
            Field::new("temperature", DataType::Float32, true),
            Field::new("active", DataType::Boolean, true),
            Field::new("country", DataType::Utf8, true),
            Field::new("note", DataType::Utf8, true),
            Field::new("day", DataType::Date32, true),
            Field::new("price", DataType::Decimal128(10, 2), true),
        ];
        let declared = Arc::new(Schema::new(fields));
        let list = options(&[("number_of_rows", "1000")]);
        let source =
            GeneratorSource::new("g", Some(declared.clone()), &list, 0, Clock::System).unwrap();
        let batch = read(&source, (0..8).collect(), 0..1000).await;
        assert_eq!(batch.schema(), declared);
        let nested = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
        let declared = Arc::new(Schema::new(vec![Field::new("tags", nested, true)]));
        let error = GeneratorSource::new("g", Some(declared), &list, 0, Clock::System).unwrap_err();
        assert!(error.to_string().contains("\"tags\""), "{error}");
    }

    #[tokio::test]
    async fn some_products_are_popular() {
        let source = source(&[("template", "orders")], &Clock::manual(0)).unwrap();
        let product = source.schema().index_of("product_id").unwrap();
        let batch = read(&source, vec![product], 0..50_000).await;
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let share = |id| ids.values().iter().filter(|value| **value == id).count() as f64 / 5e4;
        assert!(share(1) > 0.1 && share(100) < 0.01, "{} {}", share(1), share(100));
        assert!(ids.values().iter().all(|id| (1..=1000).contains(id)));
    }
}
