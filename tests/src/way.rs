//! The ways in which a script runs. What its views hold in the end is the same in all.

/// One way of cutting a script's input into epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `STEP` is one epoch of each query.
    AsWritten,
    /// Every epoch takes one row.
    OneRow,
    /// Nothing is stepped before the last `RUN`.
    OneEpoch,
    /// The engine is dropped and recovers after every epoch.
    Restarts,
    /// Records are dealt out over three partitions, one after the other.
    ThreePartitions,
    /// `RUN` reads an epoch while the one before is executed and the one before that is
    /// committed, as a running engine does; two rows an epoch.
    Overlapped,
}

impl Way {
    pub const ALL: [Way; 6] = [
        Way::AsWritten,
        Way::OneRow,
        Way::OneEpoch,
        Way::Restarts,
        Way::ThreePartitions,
        Way::Overlapped,
    ];

    /// As `onlyif`, `skipif` and `# ways:` spell it.
    pub fn label(self) -> &'static str {
        match self {
            Way::AsWritten => "as-written",
            Way::OneRow => "one-row",
            Way::OneEpoch => "one-epoch",
            Way::Restarts => "restarts",
            Way::ThreePartitions => "three-partitions",
            Way::Overlapped => "overlapped",
        }
    }

    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.label() == label)
    }
}
