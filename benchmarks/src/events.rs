//! The events that are measured with: about 200 bytes of JSON each.

use std::collections::BTreeMap;
use std::fmt::Write;

use tidemill_engine::source::kafka::producer::{Producer, Record};

use crate::Result;

pub const PARTITIONS: u64 = 4;
pub const TOPIC: &str = "events";

/// Writes event `id`, made at `at_us` (microseconds since 1970), into `out`.
pub fn write(out: &mut String, id: u64, at_us: i64) {
    out.clear();
    // Writing to a String can't fail.
    let _ = write!(
        out,
        "{{\"event_id\":{id},\"user_id\":{},\"product_id\":{},\"quantity\":{},\"price\":{}.{:02},\
         \"currency\":\"EUR\",\"country\":\"de\",\"device\":\"mobile\",\
         \"url\":\"/products/{}/reviews\",\"made_at\":{at_us}}}",
        id % 100_000,
        id % 5_000,
        id % 7 + 1,
        id % 500,
        id % 100,
        id % 5_000
    );
}

/// The source over the topic.
pub fn source(bootstrap: &str) -> String {
    format!(
        "CREATE SOURCE events (event_id BIGINT, user_id BIGINT, product_id BIGINT, quantity INT, \
         price DECIMAL(12,2), currency VARCHAR, country VARCHAR, device VARCHAR, url VARCHAR, \
         made_at BIGINT) WITH (connector = 'kafka', topic = '{TOPIC}', \
         'bootstrap.servers' = '{bootstrap}', format = 'json')"
    )
}

/// Fills the topic; answers the mean bytes of a message.
pub async fn fill(bootstrap: &str, rows: u64) -> Result<f64> {
    let producer = Producer::new(bootstrap, &BTreeMap::new())?;
    let mut text = String::new();
    let mut bytes = 0;
    for id in 0..rows {
        write(&mut text, id, 1_760_000_000_000_000 + id as i64);
        bytes += text.len();
        producer.send(record(id, &text)).await?;
    }
    producer.flush().await?;
    Ok(bytes as f64 / rows as f64)
}

pub fn record(id: u64, text: &str) -> Record<'_> {
    let partition = i32::try_from(id % PARTITIONS).ok();
    Record { topic: TOPIC, partition, payload: Some(text.as_bytes()), ..Record::default() }
}
