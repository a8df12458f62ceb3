//! Topics in memory, for tests.
