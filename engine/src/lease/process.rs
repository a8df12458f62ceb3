//! Which process holds a lease, and whether it still runs, as far as can be seen from here.

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

/// A process, told apart from a later one of the same number by its start, and
/// from one on another machine (or in another container) by where it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    host: String,
    pid: u32,
    /// Boot and process namespace; `None` where the system does not tell.
    place: Option<String>,
    /// Clock ticks from the boot to the start of the process.
    started: Option<u64>,
}

impl Process {
    pub fn this() -> Self {
        let pid = std::process::id();
        Self { host: host(), pid, place: place(), started: started(pid) }
    }

    pub fn is_ours(&self) -> bool {
        *self == Process::this()
    }

    /// Whether it runs; `None` if that can't be seen from here.
    pub fn alive(&self) -> Option<bool> {
        let here = Process::this();
        if self.place.is_none() || self.place != here.place {
            return self.is_ours().then_some(true);
        }
        Some(started(self.pid).is_some() && started(self.pid) == self.started)
    }

    #[cfg(test)]
    pub fn started_at(mut self, ticks: u64) -> Self {
        self.started = Some(ticks);
        self
    }

    #[cfg(test)]
    pub fn elsewhere() -> Self {
        Self { host: "elsewhere".into(), pid: 1, place: Some("far away".into()), started: Some(1) }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

fn host() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let named = kernel.or_else(|| std::env::var("HOSTNAME").ok());
    named.map_or_else(|| "an unknown host".into(), |name| name.trim().to_string())
}

fn place() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

/// When a running process started; `None` if there is none. A zombie does not run.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; the state and 18 numbers on, the start, follow it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then_some(())?;
    fields.nth(18)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_its_namesake_does_not() {
        let this = Process::this();
        assert_eq!(this.alive(), Some(true));
        assert!(this.is_ours());
        let namesake = this.clone().started_at(1);
        assert_eq!(namesake.alive(), Some(false));
        assert_eq!(Process::elsewhere().alive(), None);
    }
}
