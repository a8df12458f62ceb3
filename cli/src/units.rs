//! Quantities as people type them: `500ms`, `2000/s`, `2%`, `10k`.
//!
//! One place for flags, environment, configuration file and meta-commands, so
//! that they all take the same words and refuse with the same hint.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};

/// `500ms`, `1s`, `1.5 minutes`, `2h`, `1 day`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration> {
    let (number, unit) = split(text);
    let scale = match unit.to_ascii_lowercase().as_str() {
        "us" | "µs" | "microsecond" | "microseconds" => 1e-6,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "" | "s" | "sec" | "second" | "seconds" => 1.0,
        "m" | "min" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86400.0,
        _ => bail!("\"{text}\" is not a duration; write 100ms, 1s, 5m or 2h"),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| anyhow!("\"{text}\" is not a duration; write 100ms, 1s, 5m or 2h"))?;
    Duration::try_from_secs_f64(number * scale)
        .map_err(|_| anyhow!("\"{text}\" is out of range for a duration"))
}

/// `10`, `10_000`, `10k`, `1.5M`, `1G`.
pub fn count(text: &str) -> Result<u64> {
    scaled(text, &[("", 1.0), ("k", 1e3), ("m", 1e6), ("g", 1e9), ("b", 1e9)])
        .ok_or_else(|| anyhow!("\"{text}\" is not a count; write 10000, 10_000, 10k or 1M"))
}

/// `64MiB`, `64MB`, `1 GiB`; a bare number is bytes.
pub fn bytes(text: &str) -> Result<u64> {
    let units = [
        ("", 1.0),
        ("b", 1.0),
        ("kb", 1e3),
        ("mb", 1e6),
        ("gb", 1e9),
        ("kib", 1024.0),
        ("mib", 1_048_576.0),
        ("gib", 1_073_741_824.0),
    ];
    scaled(text, &units)
        .ok_or_else(|| anyhow!("\"{text}\" is not a size; write 64MiB, 64MB or 67108864"))
}

/// Rows a second: `50/s`, `3k/s`, `100/m`, a bare number is a second; `max` is no limit.
pub fn rate(text: &str) -> Result<f64> {
    let refuse = || anyhow!("\"{text}\" is not a rate; write 50/s, 3k/s, 100/m or max");
    if text.eq_ignore_ascii_case("max") {
        return Ok(f64::INFINITY);
    }
    let (number, per) = text.split_once('/').unwrap_or((text, "s"));
    let seconds = match per.trim() {
        "s" | "sec" | "second" => 1.0,
        "m" | "min" | "minute" => 60.0,
        "h" | "hour" => 3600.0,
        _ => return Err(refuse()),
    };
    let rate = fraction(number, &[("", 1.0), ("k", 1e3), ("m", 1e6)]).ok_or_else(refuse)?;
    if rate <= 0.0 { Err(refuse()) } else { Ok(rate / seconds) }
}

/// A share of one: `2%`, `0.1 %`, `0.02`.
pub fn share(text: &str) -> Result<f64> {
    let refuse = || anyhow!("\"{text}\" is not a share; write 2% or 0.02");
    let value = fraction(text, &[("%", 0.01), ("", 1.0)]).ok_or_else(refuse)?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(refuse()) }
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let value = fraction(text, units)?;
    // Every count up to 2^53 is exact, and nobody types more.
    ((0.0..9e15).contains(&value) && value.fract() == 0.0).then_some(value as u64)
}

fn fraction(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, unit) = split(text);
    let (_, scale) = units.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name))?;
    number.replace('_', "").parse::<f64>().ok().map(|value| value * scale)
}

/// The number at the start, and the unit after it.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '_')).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

/// `1,234,567`: a count as people read it.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `12 ms`, `1.2 s`, `3 min 20 s`: a duration as people read it.
pub fn brief(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.001 {
        format!("{} µs", duration.as_micros())
    } else if seconds < 1.0 {
        format!("{} ms", duration.as_millis())
    } else if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else if seconds < 3600.0 {
        format!("{} min {} s", duration.as_secs() / 60, duration.as_secs() % 60)
    } else {
        format!("{} h {} min", duration.as_secs() / 3600, duration.as_secs() % 3600 / 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("100ms").unwrap(), Duration::from_millis(100));
        assert_eq!(duration("1 second").unwrap(), Duration::from_secs(1));
        assert_eq!(duration("1.5m").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("30").unwrap(), Duration::from_secs(30));
        assert!(duration("soon").unwrap_err().to_string().contains("write 100ms"));
        assert!(duration("-1s").is_err());
    }

    #[test]
    fn rates_counts_and_shares() {
        assert_eq!(rate("50/s").unwrap(), 50.0);
        assert_eq!(rate("3k/s").unwrap(), 3000.0);
        assert_eq!(rate("120/m").unwrap(), 2.0);
        assert_eq!(rate("max").unwrap(), f64::INFINITY);
        assert!(rate("0/s").is_err() && rate("5/year").is_err());
        assert_eq!(count("1_000k").unwrap(), 1_000_000);
        assert!(count("1.5").is_err() && count("-3").is_err());
        assert_eq!(bytes("64MiB").unwrap(), 64 << 20);
        assert_eq!(share("2%").unwrap(), 0.02);
        assert!(share("200%").is_err());
    }

    #[test]
    fn as_people_read_them() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(7), "7");
        assert_eq!(brief(Duration::from_millis(12)), "12 ms");
        assert_eq!(brief(Duration::from_secs(200)), "3 min 20 s");
    }
}
