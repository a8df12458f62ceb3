//! Counters of the engine.
