//! Dates, times and timestamps.
//!
//! As text: ISO 8601, `2024-05-01`, `2024-05-01T12:30:00.123456Z`, with `T` or a blank,
//! seconds and their fraction optional, and with or without a zone (`Z`, `UTC`,
//! `+02`, `+0200`, `+02:00`). Without a zone it is UTC; with one it is taken to UTC,
//! also for a TIMESTAMP without time zone. Digits beyond the column's unit are cut.
//!
//! As a number, bare or in quotes: a TIMESTAMP counts [`TimestampUnit`]s since
//! 1970-01-01 UTC (a fraction keeps its digits), a DATE counts days, a TIME counts
//! units since midnight. Years outside 1–9999 are refused: they are units mistaken.

use arrow::array::ArrowPrimitiveType;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};

use crate::decode::TimestampUnit;
use crate::decode::number::{Excess, digits, integer, scaled};
use crate::decode::value::{
    Column, Fault, Kind, Label, NOT_A, OUT_OF_RANGE, PrimitiveColumn, Span, unsupported,
};
use crate::error::Result;

const DAY: i64 = 86_400;
const NANOS: i64 = 1_000_000_000;
/// 0001-01-01 and 10000-01-01, in seconds since 1970.
const FIRST: i64 = -62_135_596_800;
const END: i64 = 253_402_300_800;

pub(crate) fn time_column(label: Label, unit: TimestampUnit) -> Result<Box<dyn Column>> {
    fn of<T, F>(label: Label, parse: F) -> Box<dyn Column>
    where
        T: ArrowPrimitiveType,
        F: Fn(&str, Span) -> Result<T::Native, Fault> + Send + 'static,
    {
        Box::new(PrimitiveColumn::<T, F>::new(label, parse))
    }
    Ok(match label.data_type {
        DataType::Date32 => of::<Date32Type, _>(label, date),
        DataType::Date64 => {
            of::<Date64Type, _>(label, |t, s| Ok(i64::from(date(t, s)?) * DAY * 1000))
        }
        DataType::Timestamp(TimeUnit::Second, _) => {
            of::<TimestampSecondType, _>(label, move |t, s| Ok(timestamp(t, s, unit)?.0))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            of::<TimestampMillisecondType, _>(label, move |t, s| {
                in_unit(timestamp(t, s, unit)?, 1000)
            })
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            of::<TimestampMicrosecondType, _>(label, move |t, s| {
                in_unit(timestamp(t, s, unit)?, 1_000_000)
            })
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            of::<TimestampNanosecondType, _>(label, move |t, s| {
                in_unit(timestamp(t, s, unit)?, NANOS)
            })
        }
        DataType::Time32(TimeUnit::Second) => {
            of::<Time32SecondType, _>(label, move |t, s| Ok((time(t, s, unit)? / NANOS) as i32))
        }
        DataType::Time32(TimeUnit::Millisecond) => {
            of::<Time32MillisecondType, _>(label, move |t, s| {
                Ok((time(t, s, unit)? / 1_000_000) as i32)
            })
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            of::<Time64MicrosecondType, _>(label, move |t, s| Ok(time(t, s, unit)? / 1000))
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            of::<Time64NanosecondType, _>(label, move |t, s| time(t, s, unit))
        }
        _ => return Err(unsupported(&label)),
    })
}

/// An instant: seconds since 1970 and nanoseconds of the second.
type Instant = (i64, i64);

fn in_unit((seconds, nanos): Instant, per_second: i64) -> Result<i64, Fault> {
    let whole = seconds.checked_mul(per_second).ok_or(OUT_OF_RANGE)?;
    whole.checked_add(nanos / (NANOS / per_second)).ok_or(OUT_OF_RANGE)
}

fn timestamp(text: &str, span: Span, unit: TimestampUnit) -> Result<Instant, Fault> {
    let value = digits(text, span)?;
    let instant = match span.kind {
        Kind::Text if !is_number(value) => iso(value.as_bytes()).ok_or(NOT_A)?,
        _ => counted(value, span, unit)?,
    };
    if (FIRST..END).contains(&instant.0) { Ok(instant) } else { Err(OUT_OF_RANGE) }
}

/// Whether a text is a count and no date: digits, with at most a sign before and a point between.
fn is_number(value: &str) -> bool {
    let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// A count of units since 1970.
fn counted(value: &str, span: Span, unit: TimestampUnit) -> Result<Instant, Fault> {
    let (per_second, scale) = match unit {
        TimestampUnit::Second => (1, 9),
        TimestampUnit::Millisecond => (1000, 6),
        TimestampUnit::Microsecond => (1_000_000, 3),
        TimestampUnit::Nanosecond => (NANOS, 0),
    };
    let whole = Span { start: 0, end: span.end - span.start, kind: Kind::Number };
    if let Ok(count) = integer::<i64>(value, whole) {
        let rest = count.rem_euclid(per_second);
        return Ok((count.div_euclid(per_second), rest * (NANOS / per_second)));
    }
    let nanos = scaled::<i128>(value, scale, Excess::Truncate)?;
    let seconds = nanos.div_euclid(i128::from(NANOS));
    let rest = nanos.rem_euclid(i128::from(NANOS));
    Ok((i64::try_from(seconds).map_err(|_| OUT_OF_RANGE)?, rest as i64))
}

/// Days since 1970.
fn date(text: &str, span: Span) -> Result<i32, Fault> {
    let value = digits(text, span)?;
    let days = match span.kind {
        Kind::Text if !is_number(value) => iso(value.as_bytes()).ok_or(NOT_A)?.0.div_euclid(DAY),
        _ => integer::<i64>(text, span)?,
    };
    let seconds = days.checked_mul(DAY).ok_or(OUT_OF_RANGE)?;
    if !(FIRST..END).contains(&seconds) {
        return Err(OUT_OF_RANGE);
    }
    i32::try_from(days).map_err(|_| OUT_OF_RANGE)
}

/// Nanoseconds since midnight.
fn time(text: &str, span: Span, unit: TimestampUnit) -> Result<i64, Fault> {
    let value = digits(text, span)?;
    let (seconds, nanos) = match span.kind {
        Kind::Text if !is_number(value) => match clock(value.as_bytes()).ok_or(NOT_A)? {
            (seconds, nanos, []) => (seconds, nanos),
            _ => return Err(NOT_A),
        },
        _ => counted(value, span, unit)?,
    };
    if (0..DAY).contains(&seconds) { Ok(seconds * NANOS + nanos) } else { Err(OUT_OF_RANGE) }
}

/// An ISO 8601 text as microseconds since 1970, for options.
pub(crate) fn parse_timestamp_us(text: &str) -> Option<i64> {
    let instant = iso(text.as_bytes())?;
    (FIRST..END).contains(&instant.0).then(|| in_unit(instant, 1_000_000).ok())?
}

/// A date, a date and a time, or both with a zone.
fn iso(text: &[u8]) -> Option<Instant> {
    let (date, rest) = text.split_at_checked(10)?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = date else { return None };
    let year = two(*y0, *y1)? * 100 + two(*y2, *y3)?;
    let days = days(year, two(*m0, *m1)?, two(*d0, *d1)?)?;
    let [separator, rest @ ..] = rest else { return Some((days * DAY, 0)) };
    if !matches!(separator, b'T' | b't' | b' ') {
        return None;
    }
    let (seconds, nanos, rest) = clock(rest)?;
    Some((days * DAY + seconds - zone(rest)?, nanos))
}

/// Days since 1970 of a date in the Gregorian calendar. Years are counted from March, so
/// that the leap day comes last.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days_before = (153 * month + 2) / 5;
    // Day 0 is 1970-01-01: 719,468 days after 0000-03-01.
    Some(year * 365 + leap_days + days_before + day - 1 - 719_468)
}

/// `HH:MM[:SS[.fraction]]`: seconds, nanoseconds and what follows.
fn clock(text: &[u8]) -> Option<(i64, i64, &[u8])> {
    let [h0, h1, b':', m0, m1, rest @ ..] = text else { return None };
    let (hours, minutes) = (two(*h0, *h1)?, two(*m0, *m1)?);
    let (seconds, rest) = match rest {
        [b':', s0, s1, rest @ ..] => (two(*s0, *s1)?, rest),
        _ => (0, rest),
    };
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let (nanos, rest) = match rest {
        [b'.' | b',', rest @ ..] => fraction(rest)?,
        _ => (0, rest),
    };
    Some((hours * 3600 + minutes * 60 + seconds, nanos, rest))
}

/// Digits behind the point, as nanoseconds; the tenth and later ones are cut.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let count = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(count)?;
    let mut nanos = 0;
    for nth in 0..9 {
        nanos = nanos * 10 + digits.get(nth).map_or(0, |digit| i64::from(digit - b'0'));
    }
    (count > 0).then_some((nanos, rest))
}

/// Seconds east of UTC.
fn zone(text: &[u8]) -> Option<i64> {
    let text = text.strip_prefix(b" ").unwrap_or(text);
    let (sign, digits) = match text {
        [] | [b'Z' | b'z'] | b"UTC" => return Some(0),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits {
        [h0, h1] => (two(*h0, *h1)?, 0),
        [h0, h1, m0, m1] | [h0, h1, b':', m0, m1] => (two(*h0, *h1)?, two(*m0, *m1)?),
        _ => return None,
    };
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

#[inline]
fn two(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| i64::from(tens) * 10 + i64::from(ones))
}

#[cfg(test)]
mod tests {
    use chrono::Datelike;

    use super::*;

    fn text(text: &str) -> Span {
        Span { start: 0, end: text.len() as u32, kind: Kind::Text }
    }

    fn micros(value: &str, unit: TimestampUnit) -> Result<i64, Fault> {
        in_unit(timestamp(value, text(value), unit)?, 1_000_000)
    }

    #[test]
    fn iso_texts_keep_microseconds() {
        const NOON: i64 = 1_714_564_800_000_000; // 2024-05-01T12:00:00Z
        for (value, wanted) in [
            ("2024-05-01T12:00:00Z", NOON),
            ("2024-05-01 12:00:00", NOON),
            ("2024-05-01T12:00", NOON),
            ("2024-05-01T12:00:00.123456Z", NOON + 123_456),
            ("2024-05-01T12:00:00,5", NOON + 500_000),
            ("2024-05-01T12:00:00.123456789123+00:00", NOON + 123_456),
            ("2024-05-01T14:00:00+02:00", NOON),
            ("2024-05-01T14:00:00+0200", NOON),
            ("2024-05-01 07:00:00 -05", NOON),
            ("2024-05-01 12:00:00 UTC", NOON),
            ("2024-05-01", NOON - 43_200_000_000),
            ("1969-12-31T23:59:59.999999Z", -1),
        ] {
            assert_eq!(micros(value, TimestampUnit::Millisecond), Ok(wanted), "{value}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for value in [
            "",
            "x",
            "2024-13-01",
            "2024-02-30",
            "2024-5-1",
            "2024-05-01T",
            "2024-05-01T25:00",
            "2024-05-01T12:00:60Z",
            "2024-05-01T12:00:00.Z",
            "2024-05-01X12:00",
            "2024-05-01T12:00:00+25:00",
            "2024-05-01T12:00:00 PST",
            "é024-05-01",
            "2024-05-01T12:00é",
            "true",
        ] {
            assert_eq!(micros(value, TimestampUnit::Millisecond), Err(NOT_A), "{value}");
        }
        assert_eq!(micros("0000-05-01", TimestampUnit::Second), Err(OUT_OF_RANGE));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let first = chrono::NaiveDate::from_ymd_opt(1, 1, 1).unwrap();
        for at in (0..3_652_059).step_by(13) {
            let date = first + chrono::Days::new(at);
            let [year, month, day] = [date.year(), date.month() as i32, date.day() as i32];
            let since = date.signed_duration_since(chrono::NaiveDate::default()).num_days();
            assert_eq!(days(year.into(), month.into(), day.into()), Some(since), "{date}");
        }
        assert_eq!((days(1900, 2, 29), days(2023, 4, 31), days(2024, 0, 1)), (None, None, None));
    }

    #[test]
    fn numbers_count_units() {
        use TimestampUnit::*;
        for (value, unit, wanted) in [
            ("1714564800", Second, Ok(1_714_564_800_000_000)),
            ("1714564800.123456", Second, Ok(1_714_564_800_123_456)),
            ("1714564800123", Millisecond, Ok(1_714_564_800_123_000)),
            ("1714564800123456", Microsecond, Ok(1_714_564_800_123_456)),
            ("1714564800123456789", Nanosecond, Ok(1_714_564_800_123_456)),
            ("-1", Millisecond, Ok(-1000)),
            ("-0.5", Second, Ok(-500_000)),
            ("1714564800123", Second, Err(OUT_OF_RANGE)),
            ("99999999999999999999999", Nanosecond, Err(OUT_OF_RANGE)),
        ] {
            assert_eq!(micros(value, unit), wanted, "{value}");
        }
        let number = Span { kind: Kind::Number, ..text("1.7145648e12") };
        let seconds = timestamp("1.7145648e12", number, Millisecond).map(|instant| instant.0);
        assert_eq!(seconds, Ok(1_714_564_800));
    }

    #[test]
    fn dates_and_times() {
        assert_eq!(date("1970-01-02", text("1970-01-02")), Ok(1));
        assert_eq!(date("1969-12-31T23:00:00Z", text("1969-12-31T23:00:00Z")), Ok(-1));
        assert_eq!(date("19844", text("19844")), Ok(19844));
        assert_eq!(date("1e9", text("1e9")), Err(NOT_A));
        let unit = TimestampUnit::Millisecond;
        assert_eq!(time("23:59:59.5", text("23:59:59.5"), unit), Ok(86_399_500_000_000));
        assert_eq!(time("00:01", text("00:01"), unit), Ok(60 * NANOS));
        assert_eq!(time("1000", text("1000"), unit), Ok(NANOS));
        assert_eq!(time("24:00:00", text("24:00:00"), unit), Err(NOT_A));
        assert_eq!(time("86400000", text("86400000"), unit), Err(OUT_OF_RANGE));
        assert_eq!(time("12:00Z", text("12:00Z"), unit), Err(NOT_A));
    }
}
