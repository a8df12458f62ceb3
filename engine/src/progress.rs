//! Recorded epoch plans.
