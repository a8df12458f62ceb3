//! Values of options that are written as text: durations, sizes, times, offsets.

use std::collections::BTreeMap;
use std::time::Duration;

use datafusion::arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;

/// Units of time in nanoseconds, with the names that people give them.
const TIME_UNITS: [(u128, &[&str]); 8] = [
    (1, &["ns", "nanosecond", "nanoseconds"]),
    (1_000, &["us", "µs", "microsecond", "microseconds"]),
    (1_000_000, &["ms", "millisecond", "milliseconds"]),
    (1_000_000_000, &["s", "sec", "secs", "second", "seconds"]),
    (60_000_000_000, &["m", "min", "mins", "minute", "minutes"]),
    (3_600_000_000_000, &["h", "hr", "hrs", "hour", "hours"]),
    (86_400_000_000_000, &["d", "day", "days"]),
    (604_800_000_000_000, &["w", "week", "weeks"]),
];

const SIZE_UNITS: [(u128, &[&str]); 9] = [
    (1, &["b", "byte", "bytes"]),
    (1_000, &["kb"]),
    (1_000_000, &["mb"]),
    (1_000_000_000, &["gb"]),
    (1_000_000_000_000, &["tb"]),
    (1 << 10, &["k", "kib"]),
    (1 << 20, &["m", "mib"]),
    (1 << 30, &["g", "gib"]),
    (1 << 40, &["t", "tib"]),
];

/// `500ms`, `1 second`, `30 days`, `1 hour 30 min`, `1.5h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let nanos = sum_of_units(text, &TIME_UNITS)?;
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    let rest = u32::try_from(nanos % 1_000_000_000).ok()?;
    Some(Duration::new(seconds, rest))
}

/// `512 MiB`, `1gb`, `1048576` (bytes).
pub fn parse_bytes(text: &str) -> Option<u64> {
    match text.trim().parse::<u64>() {
        Ok(bytes) => Some(bytes),
        Err(_) => u64::try_from(sum_of_units(text, &SIZE_UNITS)?).ok(),
    }
}

/// Milliseconds since 1970, written as such a number or as ISO-8601 (UTC unless it
/// names a zone).
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let text = text.trim();
    let millis = match text.parse::<i64>() {
        Ok(millis) => millis,
        Err(_) => string_to_timestamp_nanos(text).ok()?.div_euclid(1_000_000),
    };
    (millis >= 0).then_some(millis)
}

/// Offsets by partition: `0:42,1:300`, or as Flink writes it,
/// `partition:0,offset:42;partition:1,offset:300`.
pub fn parse_offsets(text: &str) -> Option<BTreeMap<i32, i64>> {
    let flink = text.contains("partition");
    let mut offsets = BTreeMap::new();
    for part in text.split(if flink { ';' } else { ',' }) {
        let (partition, offset) = match flink {
            true => part.split_once(',')?,
            false => part.split_once(':')?,
        };
        let number = |text: &str, label| {
            text.trim().strip_prefix(label).unwrap_or(text).trim().parse::<i64>().ok()
        };
        let partition = i32::try_from(number(partition, "partition:")?).ok()?;
        let offset = number(offset, "offset:")?;
        let fresh = offsets.insert(partition, offset).is_none();
        if !fresh || partition < 0 || offset < 0 {
            return None;
        }
    }
    Some(offsets)
}

/// Adds up `number unit` pairs; every number needs its unit.
fn sum_of_units(text: &str, units: &[(u128, &[&str])]) -> Option<u128> {
    let mut rest = text.trim();
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = unit.to_lowercase();
        let (factor, _) = units.iter().find(|(_, names)| names.contains(&unit.as_str()))?;
        total = total.checked_add(times(number, *factor)?)?;
        rest = after.trim_start_matches([' ', ',']);
    }
    (!text.trim().is_empty()).then_some(total)
}

/// `number * factor` for a decimal number, rounded down.
fn times(number: &str, factor: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 12 || fraction.contains('.') {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    Some(digits.checked_mul(factor)? / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ms = |text| parse_duration(text).map(|duration| duration.as_millis());
        assert_eq!(ms("500ms"), Some(500));
        assert_eq!(ms("1 second"), Some(1000));
        assert_eq!(ms(" 30 DAYS "), Some(30 * 86_400_000));
        assert_eq!(ms("1 hour 30 minutes"), Some(5_400_000));
        assert_eq!(ms("1h30m"), Some(5_400_000));
        assert_eq!(ms("1.5s"), Some(1500));
        assert_eq!(ms("0s"), Some(0));
        for wrong in ["", "5", "s", "1 fortnight", "-1 s", "1.2.3s", "99999999999999999999 weeks"] {
            assert_eq!(ms(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("1048576"), Some(1 << 20));
        assert_eq!(parse_bytes("512 MiB"), Some(512 << 20));
        assert_eq!(parse_bytes("1.5gb"), Some(1_500_000_000));
        assert_eq!(parse_bytes("lots"), None);
    }

    #[test]
    fn timestamps() {
        assert_eq!(parse_timestamp("1700000000000"), Some(1_700_000_000_000));
        assert_eq!(parse_timestamp("2023-11-14T22:13:20Z"), Some(1_700_000_000_000));
        assert_eq!(parse_timestamp("2023-11-14 22:13:20"), Some(1_700_000_000_000));
        assert_eq!(parse_timestamp("1969-12-31"), None);
        assert_eq!(parse_timestamp("yesterday"), None);
    }

    #[test]
    fn offsets() {
        let expected = BTreeMap::from([(0, 42), (1, 300)]);
        assert_eq!(parse_offsets("0:42,1:300"), Some(expected.clone()));
        assert_eq!(parse_offsets("partition:0,offset:42;partition:1,offset:300"), Some(expected));
        for wrong in ["", "42", "0:42,0:43", "0:-1", "a:b"] {
            assert_eq!(parse_offsets(wrong), None, "{wrong}");
        }
    }
}
