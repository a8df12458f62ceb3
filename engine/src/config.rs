//! Settings of an engine, with their defaults.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Folder or URL (`s3://bucket/path`) that holds the tables and the engine's own files.
    pub warehouse: String,
    /// Options of the object store behind `warehouse`, as `object_store` names them.
    pub storage_options: HashMap<String, String>,
    /// How often a query looks for new rows, unless its `trigger_interval` says otherwise.
    pub trigger_interval: Duration,
    /// Most rows that an epoch takes from a source, unless the source says otherwise.
    pub max_rows_per_epoch: u64,
    /// Bytes of payload that an epoch of a backlog aims at: rows per epoch follow from
    /// the measured size of a row.
    pub epoch_bytes: u64,
    /// Partitions of DataFusion plans; 0 takes the machine's cores.
    pub target_partitions: usize,
    /// Most bytes that queries and the state of their operators may take together, as
    /// DataFusion's memory pool counts them; 0 has no limit.
    pub memory_limit: u64,
    /// How long a lease lives without renewal before another engine may take over.
    pub lease_duration: Duration,
    /// How often the state of stateful queries is saved.
    pub snapshot_interval: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            warehouse: "./tidemill-data".into(),
            storage_options: HashMap::new(),
            trigger_interval: Duration::from_secs(1),
            max_rows_per_epoch: 1_000_000,
            epoch_bytes: 64 << 20,
            target_partitions: 0,
            memory_limit: 0,
            lease_duration: Duration::from_secs(15),
            snapshot_interval: Duration::from_secs(10),
        }
    }
}
