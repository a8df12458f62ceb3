//! Many continuous queries.
