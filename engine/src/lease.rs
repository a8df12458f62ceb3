//! The lease on a warehouse, with growing fencing tokens.
