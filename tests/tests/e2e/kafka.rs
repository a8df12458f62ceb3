//! A real broker for a test, by `scripts/kafka.sh`.

use std::path::PathBuf;
use std::process::{Command, Output};

/// One Apache Kafka broker, stopped and removed when dropped.
pub struct Kafka {
    pub bootstrap: String,
    folder: String,
}

fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka.sh")
}

fn call(arguments: &[&str]) -> Output {
    let output = Command::new("bash").arg(script()).args(arguments).output();
    output.expect("bash runs scripts/kafka.sh")
}

impl Kafka {
    /// Starts a broker; `None` where there can be none.
    ///
    /// # Panics
    /// If it should be there (`TIDEMILL_REQUIRE_ALL=1`), or fails to start.
    pub fn start() -> Option<Self> {
        let parent = std::process::id().to_string();
        let output = call(&["start", "--parent", &parent]);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() == Some(77) {
            let required = std::env::var("TIDEMILL_REQUIRE_ALL").is_ok_and(|value| value == "1");
            assert!(!required, "Apache Kafka is required here: {talk}");
            eprintln!("SKIPPED: no Apache Kafka on this machine: {talk}");
            return None;
        }
        assert!(output.status.success(), "scripts/kafka.sh start: {out}{talk}");
        let value = |key: &str| {
            let line = out.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_else(|| panic!("no {key} in {out}")).to_owned()
        };
        Some(Self { bootstrap: value("bootstrap="), folder: value("dir=") })
    }

    fn must(&self, arguments: &[&str]) {
        let output = call(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    pub fn create_topic(&self, name: &str, partitions: u32) {
        self.must(&["topic", &self.folder, "create", name, &partitions.to_string()]);
    }

    pub fn grow_topic(&self, name: &str, partitions: u32) {
        self.must(&["topic", &self.folder, "alter", name, &partitions.to_string()]);
    }

    /// Kills the broker where it stands.
    pub fn kill(&self) {
        self.must(&["kill", &self.folder]);
    }

    /// Starts it again with its data and its port.
    pub fn restart(&self) {
        self.must(&["restart", &self.folder]);
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        call(&["kill", &self.folder]);
        call(&["clean", &self.folder]);
    }
}
