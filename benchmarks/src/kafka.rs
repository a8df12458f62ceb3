//! A real broker for a run, by `scripts/kafka.sh`.

use std::path::PathBuf;
use std::process::Command;

use crate::Result;

pub struct Kafka {
    pub bootstrap: String,
    folder: String,
}

fn call(arguments: &[&str]) -> Result<String> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka.sh");
    let output = Command::new("bash").arg(script).args(arguments).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("kafka.sh {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

impl Kafka {
    pub fn start() -> Result<Self> {
        let parent = std::process::id().to_string();
        let out = call(&["start", "--parent", &parent])?;
        let value = |key: &str| {
            out.lines()
                .find_map(|line| line.strip_prefix(key).map(str::to_owned))
                .ok_or_else(|| format!("no {key} in {out}"))
        };
        Ok(Self { bootstrap: value("bootstrap=")?, folder: value("dir=")? })
    }

    pub fn create_topic(&self, name: &str, partitions: u32) -> Result<()> {
        call(&["topic", &self.folder, "create", name, &partitions.to_string()]).map(|_| ())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // Nothing is left to do if it is gone already.
        let _ = call(&["kill", &self.folder]);
        let _ = call(&["clean", &self.folder]);
    }
}
