//! The engine and the language as a whole, in memory and stepped by hand.

// All of this is test code, though not all of it stands in test functions.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash;
mod nexmark;
mod plans;
mod random;
mod scripts;
mod simulation;
mod state;
mod tidy;
