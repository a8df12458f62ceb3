//! From a logical plan to what an epoch executes.
