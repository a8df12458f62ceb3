//! The shop's topics on a broker, and what its views must hold.

use std::sync::Arc;

use tidemill_engine::source::kafka::producer::{Producer, Record};
use tidemill_sql::Database;
use tidemill_tests::oracle;
use tidemill_tests::shop::{Order, statements};

use crate::database::numbers;
use crate::kafka::Kafka;

const PARTITIONS: u64 = 4;

pub fn create_topics(kafka: &Kafka) {
    for topic in ["orders", "payments", "latest"] {
        kafka.create_topic(topic, PARTITIONS as u32);
    }
}

/// The sources, and the views over them, many small epochs each.
pub fn script(bootstrap: &str) -> String {
    let options = |topic: &str| {
        format!(
            "connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{bootstrap}', \
             format = 'json', max_rows_per_epoch = 300"
        )
    };
    statements(options, "WITH (trigger_interval = '20ms')").join(";\n") + ";\n"
}

/// Sends the orders `range`, a payment each, and what is known of their users then.
pub async fn produce(bootstrap: &str, range: std::ops::Range<u64>) {
    let producer = Producer::new(bootstrap, &Default::default()).unwrap();
    let send = async |topic: &str, partition: u64, payload: &str| {
        let partition = Some((partition % PARTITIONS) as i32);
        let payload = Some(payload.as_bytes());
        producer.send(Record { topic, partition, payload, ..Record::default() }).await.unwrap();
    };
    for id in range {
        let order = Order::new(id);
        send("orders", id, &order.order).await;
        send("payments", id / 3, &order.payment).await;
        // A key belongs to one partition.
        send("latest", order.user_id, &order.latest).await;
    }
    producer.flush().await.unwrap();
}

/// Every view holds what its query answers as a batch over the topics, in which so many
/// orders lie.
pub async fn check(database: &Arc<Database>, orders: u64) {
    oracle::check(&database.session(), &[]).await.unwrap();
    let counted = "SELECT sum(orders) FROM aggregate UNION ALL SELECT sum(orders) FROM sessions \
                   UNION ALL SELECT count(*) FROM joined";
    assert_eq!(numbers(database, counted).await, [orders as i64; 3]);
    assert_eq!(numbers(database, "SELECT count(*) FROM best").await, [15]);
}
