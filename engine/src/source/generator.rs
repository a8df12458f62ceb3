//! A seeded generator of events as a source.
