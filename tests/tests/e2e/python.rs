//! Python programs beside the tests, by `scripts/python.sh`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The interpreter of an environment; `None` where Python is missing.
///
/// # Panics
/// If it should be there (`TIDEMILL_REQUIRE_ALL=1`), or can't be made.
pub fn interpreter(environment: &str) -> Option<PathBuf> {
    let mut script = Command::new(root().join("scripts/python.sh"));
    let output = script.arg(environment).stderr(Stdio::inherit()).output().unwrap();
    if output.status.code() == Some(77) {
        let required = std::env::var("TIDEMILL_REQUIRE_ALL").is_ok_and(|value| value == "1");
        assert!(!required, "Python is required here, for {environment}");
        eprintln!("SKIPPED: no Python for {environment} on this machine");
        return None;
    }
    assert!(output.status.success(), "scripts/python.sh {environment}: {output:?}");
    let answer = String::from_utf8(output.stdout).unwrap();
    Some(answer.trim().strip_prefix(&format!("{environment}=")).unwrap().into())
}
