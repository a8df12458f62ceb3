//! Random queries over random records, cut into epochs at random.
//!
//! 1. [`stateless`]: expressions, filters and joins with tables, compared with a
//!    DataFusion of its own over a table that arrow-json read;
//! 2. [`stateful`]: every operator that keeps state, nested up to three deep;
//! 3. [`harness`]: `TIDEMILL_CASES` says how many, `TIDEMILL_SEED` which; a case that
//!    fails is made smaller, printed and kept as a script under `slt/found/`.

mod harness;
mod stateful;
mod stateless;

pub use harness::number;
