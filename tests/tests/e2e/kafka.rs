//! A real broker for a test, by `scripts/kafka.sh`.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

/// One Apache Kafka broker, stopped and removed when dropped.
pub struct Kafka {
    pub bootstrap: String,
    /// Of the listener with TLS and a password, where there is one.
    pub secure: Option<Secure>,
    folder: String,
}

/// How to get in through TLS.
pub struct Secure {
    pub bootstrap: String,
    pub user: String,
    pub password: String,
    /// File with the certificate authority.
    pub ca: String,
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
        Self::start_with(&[])
    }

    /// The broker of the tests that only need topics of their own; with the secure
    /// listener, and a cleaner that does not wait. It ends with this process.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Kafka>> = OnceLock::new();
        let start = || Self::start_with(&["--sasl", "--set", "log.cleaner.backoff.ms=100"]);
        SHARED.get_or_init(start).as_ref()
    }

    fn start_with(more: &[&str]) -> Option<Self> {
        let parent = std::process::id().to_string();
        let output = call(&[&["start", "--parent", &parent], more].concat());
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() == Some(77) {
            let required = std::env::var("TIDEMILL_REQUIRE_ALL").is_ok_and(|value| value == "1");
            assert!(!required, "Apache Kafka is required here: {talk}");
            eprintln!("SKIPPED: no Apache Kafka on this machine: {talk}");
            return None;
        }
        assert!(output.status.success(), "scripts/kafka.sh start: {out}{talk}");
        let optional =
            |key: &str| out.lines().find_map(|line| line.strip_prefix(key)).map(ToOwned::to_owned);
        let value = |key: &str| optional(key).unwrap_or_else(|| panic!("no {key} in {out}"));
        let secure = optional("sasl_bootstrap=").map(|bootstrap| Secure {
            bootstrap,
            user: value("sasl_user="),
            password: value("sasl_password="),
            ca: value("ssl_ca="),
        });
        Some(Self { bootstrap: value("bootstrap="), secure, folder: value("dir=") })
    }

    fn must(&self, arguments: &[&str]) {
        let output = call(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    pub fn create_topic(&self, name: &str, partitions: u32) {
        self.must(&["topic", &self.folder, "create", name, &partitions.to_string()]);
    }

    /// With settings such as `cleanup.policy=compact`.
    pub fn create_topic_with(&self, name: &str, settings: &[&str]) {
        self.must(&[&["topic", &self.folder, "create", name], settings].concat());
    }

    /// Deletes what is before `offset`, as retention would.
    pub fn trim(&self, topic: &str, partition: u32, offset: u64) {
        let (partition, offset) = (partition.to_string(), offset.to_string());
        self.must(&["trim", &self.folder, topic, &partition, &offset]);
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
