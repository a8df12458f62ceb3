//! Dead letters: records that could not become rows, each kept once.
