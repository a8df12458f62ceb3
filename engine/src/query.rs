//! One continuous query.
