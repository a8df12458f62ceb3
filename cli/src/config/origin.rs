//! Where a setting's value was written.

use std::fmt;
use std::path::PathBuf;

/// A value as text, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub text: String,
    pub origin: Origin,
}

/// From weak to strong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    /// With the variable's name.
    Environment(String),
    /// With the setting's key.
    Flag(&'static str),
}

impl Origin {
    /// Greater wins.
    pub fn rank(&self) -> u8 {
        match self {
            Origin::Default => 1,
            Origin::File(_) => 2,
            Origin::Environment(_) => 3,
            Origin::Flag(_) => 4,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(name) => write!(f, "{name}"),
            Origin::Flag(key) => write!(f, "--{}", key.replace('_', "-")),
        }
    }
}
