//! Events with known sums, so that every figure can be told beforehand.

use std::collections::BTreeMap;

use tidemill_engine::source::kafka::producer::{Producer, Record};

/// Countries, dealt out by number.
const COUNTRIES: [&str; 4] = ["de", "fr", "it", "pl"];
/// Each hundredth message is no JSON, where broken ones are asked for.
const BROKEN: u64 = 100;

/// What a view over the events `range` must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    pub rows: i64,
    pub ids: i64,
    pub cents: i64,
}

/// The payload of event `id`, about 200 bytes.
pub fn payload(id: u64) -> String {
    let country = COUNTRIES[(id % 4) as usize];
    let cents = id % 1000;
    format!(
        "{{\"id\":{id},\"user_id\":{},\"country\":\"{country}\",\"amount\":\"{}.{:02}\",\
         \"at\":{},\"note\":\"a note that nobody reads but that has to be carried along, \
         as in every shop\",\"tags\":[\"a\",\"b\"]}}",
        id % 5000,
        cents / 100,
        cents % 100,
        1_760_000_000_000 + id
    )
}

fn is_broken(id: u64) -> bool {
    id % BROKEN == BROKEN - 1
}

/// Sums over the events of `range`; the broken ones left out if there are any.
pub fn sums(range: std::ops::Range<u64>, broken: bool) -> Sums {
    let whole = range.filter(|id| !broken || !is_broken(*id));
    whole.fold(Sums::default(), |sums, id| Sums {
        rows: sums.rows + 1,
        ids: sums.ids + id as i64,
        cents: sums.cents + (id % 1000) as i64,
    })
}

/// Sends the events of `range` and waits until Kafka has them all.
pub async fn produce(
    bootstrap: &str,
    topic: &str,
    partitions: u64,
    range: std::ops::Range<u64>,
    broken: bool,
) {
    // A broker that has just started may take a while to hand out producer ids.
    let patient = BTreeMap::from([("message.timeout.ms".to_owned(), "180000".to_owned())]);
    let producer = Producer::new(bootstrap, &patient).unwrap();
    for id in range {
        let payload = match broken && is_broken(id) {
            true => format!("{{\"id\": {id}, truncated"),
            false => payload(id),
        };
        let partition = Some((id % partitions) as i32);
        let record =
            Record { topic, partition, payload: Some(payload.as_bytes()), ..Record::default() };
        producer.send(record).await.unwrap();
    }
    producer.flush().await.unwrap();
}

/// The source over a topic of events.
pub fn source(name: &str, bootstrap: &str, topic: &str) -> String {
    format!(
        "CREATE SOURCE {name} (id BIGINT NOT NULL, user_id BIGINT, country VARCHAR, \
         amount DECIMAL(12,2), at TIMESTAMP, partition INT METADATA, \"offset\" BIGINT METADATA) \
         WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{bootstrap}', \
         format = 'json', 'properties.topic.metadata.refresh.interval.ms' = 500)"
    )
}
