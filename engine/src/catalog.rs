//! The durable catalog: named definitions, versioned.
