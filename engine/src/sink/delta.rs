//! Results in a Delta table.
