//! What outlives an engine: storage, topics and the time.
//!
//! A test drops the engine whenever it likes and opens another one over the
//! same world, as a process does that was killed and started again.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use tidemill_engine::clock::Clock;
use tidemill_engine::config::EngineConfig;
use tidemill_engine::runtime::Parts;
use tidemill_engine::source::memory::MemoryBroker;
use tidemill_engine::storage::Warehouse;
use tidemill_sql::{Access, Database};
use url::Url;

use crate::error::{Error, Result};

/// 2024-01-01 00:00:00 UTC, in microseconds: when every script begins.
pub const BEGINNING_US: i64 = 1_704_067_200_000_000;

/// Storage, topics and a clock that a test moves.
#[derive(Debug, Clone)]
pub struct World {
    pub store: Arc<dyn ObjectStore>,
    pub clock: Clock,
    pub broker: MemoryBroker,
    pub config: EngineConfig,
}

impl Default for World {
    fn default() -> Self {
        let clock = Clock::manual(BEGINNING_US);
        // State is saved with every epoch: a restart reads it back, and replays no more
        // than what a crash has kept from being saved.
        let snapshot_interval = Duration::ZERO;
        let config =
            EngineConfig { target_partitions: 2, snapshot_interval, ..EngineConfig::default() };
        Self {
            store: Arc::new(InMemory::new()),
            broker: MemoryBroker::with_clock(clock.clone()),
            clock,
            config,
        }
    }
}

impl World {
    /// Opens an engine whose epochs are stepped by the caller.
    pub async fn open(&self) -> Result<Arc<Database>> {
        self.open_over(Arc::clone(&self.store)).await
    }

    /// Opens over another way to the same storage, one that breaks for example.
    pub async fn open_over(&self, store: Arc<dyn ObjectStore>) -> Result<Arc<Database>> {
        let parts = Parts {
            clock: self.clock.clone(),
            memory: self.broker.clone(),
            warehouse: Some(Warehouse::with_store(url()?, store)),
            checked: true,
        };
        Ok(Database::open_with(self.config.clone(), Access::Step, parts).await?)
    }
}

fn url() -> Result<Url> {
    Url::parse("memory:///warehouse").map_err(|error| Error::script(error.to_string()))
}
