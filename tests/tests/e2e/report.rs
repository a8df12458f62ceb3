//! Results of the long forms, one JSON line each, for `scripts/long.sh`.

use std::io::Write;
use std::time::Instant;

/// Appends a result to the file that `TIDEMILL_RESULTS` names, if it names one.
pub fn passed(name: &str, what: &str, since: Instant) {
    let Ok(path) = std::env::var("TIDEMILL_RESULTS") else { return };
    let line = serde_json::json!({
        "name": name,
        "ok": true,
        "seconds": (since.elapsed().as_secs_f64() * 10.0).round() / 10.0,
        "what": what,
    });
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    let written = file.and_then(|mut file| writeln!(file, "{line}"));
    written.unwrap_or_else(|error| panic!("{path}: {error}"));
}
