//! Figures with their units, printed, written, compared.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::machine::Machine;

#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub benchmark: String,
    pub machine: Machine,
    /// What was run: counts, rates, sizes.
    pub settings: BTreeMap<String, u64>,
    /// Name with its unit → value.
    pub figures: BTreeMap<String, f64>,
}

impl Report {
    pub fn new(benchmark: &str) -> Self {
        Self {
            benchmark: benchmark.into(),
            machine: Machine::this(),
            settings: BTreeMap::new(),
            figures: BTreeMap::new(),
        }
    }

    pub fn setting(&mut self, name: &str, value: u64) {
        self.settings.insert(name.into(), value);
    }

    pub fn figure(&mut self, name: &str, value: f64) {
        self.figures.insert(name.into(), value);
    }

    pub fn print(&self) {
        let Machine { cpu, cores, memory_mib, os, profile } = &self.machine;
        println!("{}: {cpu}, {cores} cores, {memory_mib} MiB, {os}, {profile}", self.benchmark);
        for (name, value) in &self.settings {
            println!("  {name:<48} {value:>14}");
        }
        for (name, value) in &self.figures {
            println!("  {name:<48} {value:>14.2}");
        }
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(())
    }

    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?)
    }
}

/// Prints both files' figures with the change in percent.
pub fn compare(before: &Path, after: &Path) -> Result<()> {
    let (before, after) = (Report::read(before)?, Report::read(after)?);
    if before.machine != after.machine || before.settings != after.settings {
        eprintln!("note: measured on different machines or with different settings");
    }
    println!("{:<48} {:>14} {:>14} {:>9}", "figure", "before", "after", "change");
    for (name, new) in &after.figures {
        match before.figures.get(name) {
            Some(old) if *old != 0.0 => {
                let change = (new / old - 1.0) * 100.0;
                println!("{name:<48} {old:>14.2} {new:>14.2} {change:>+8.1}%");
            }
            _ => println!("{name:<48} {:>14} {new:>14.2} {:>9}", "-", "new"),
        }
    }
    Ok(())
}

/// The middle one of several measurements.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value that `share` (0 to 1) of the measurements don't exceed.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = (last as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
