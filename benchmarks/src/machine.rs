//! What a figure was measured on, and how much memory this process has taken.

use serde::{Deserialize, Serialize};

/// The machine, as far as it matters to a figure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub os: String,
    /// `release` or `dev`.
    pub profile: String,
}

impl Machine {
    pub fn this() -> Self {
        let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into());
        let memory = field("/proc/meminfo", "MemTotal").as_deref().and_then(kib).unwrap_or(0);
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory / 1024,
            os: format!("{} {}", std::env::consts::OS, release.trim()),
            profile: if cfg!(debug_assertions) { "dev" } else { "release" }.into(),
        }
    }
}

/// Forgets the peak that [`peak_memory_mib`] knows, where the kernel lets us.
pub fn reset_peak_memory() {
    // Refused in some containers; the peak then covers the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The most resident memory since the last reset, in MiB.
pub fn peak_memory_mib() -> u64 {
    field("/proc/self/status", "VmHWM").as_deref().and_then(kib).unwrap_or(0) / 1024
}

fn kib(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
