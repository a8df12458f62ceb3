//! The engine: runs continuous queries over DataFusion logical plans.
//!
//! A continuous query advances in *epochs*. The walk of one epoch, in the
//! order in which the modules read:
//!
//! 1. [`epoch`]: plan what to read: a range of offsets per source partition
//!    and the timestamp that `now()` answers;
//! 2. [`progress`]: record that plan durably, before anything is read;
//! 3. [`source`] and [`decode`]: read the ranges and decode them to Arrow, only
//!    the columns that the query uses; what can't be decoded goes to the
//!    [`dead_letter`] table;
//! 4. [`plan`]: execute the same physical plan again over the new rows; what needs
//!    memory of earlier rows is an [`operator`] of ours over keyed [`state`], and
//!    what it yields is a [`changelog`]; event-time windows are made of [`function`]s;
//! 5. [`sink`]: stage the result's files, then one Delta commit that carries
//!    the files and the epoch's number: the one commit point;
//! 6. [`query`] strings these together and pipelines them; [`runtime`] runs
//!    many queries, retries and stops them; [`lease`] keeps two engines off
//!    one warehouse.
//!
//! The engine takes plans and sources, never SQL text.

pub mod broker;
pub mod catalog;
pub mod changelog;
pub mod clock;
pub mod config;
pub mod dead_letter;
pub mod decode;
pub mod epoch;
pub mod error;
pub mod function;
pub mod heap;
pub mod lake;
mod leaf_node;
pub mod lease;
pub mod metrics;
pub mod operator;
pub mod plan;
pub mod progress;
pub mod query;
pub mod runtime;
pub mod sink;
pub mod source;
pub mod state;
pub mod storage;

pub use error::{Error, Kind, Result};
