//! What the tests of the whole engine share.
//!
//! 1. [`world`]: what outlives an engine: a warehouse in memory, topics, a clock;
//! 2. [`directive`]: what a script may say besides SQL;
//! 3. [`driver`]: runs statements and directives, epochs stepped by hand;
//! 4. [`way`] and [`script`]: one `.slt` file, run in several ways;
//! 5. [`oracle`]: what plain DataFusion answers for the same `SELECT`;
//! 6. [`nexmark`]: the files of `queries/nexmark`; [`shop`]: topics and views for crashes;
//! 7. [`faults`] and [`delta_log`]: storage that breaks, and what the log must hold then.
//!
//! Values become text in [`values`]; errors are in [`error`]; [`flight`] is for the tests of servers.

pub mod delta_log;
pub mod directive;
pub mod driver;
pub mod error;
pub mod faults;
pub mod flight;
pub mod nexmark;
pub mod oracle;
pub mod script;
pub mod shop;
pub mod values;
pub mod way;
pub mod world;

pub use error::{Error, Result};
