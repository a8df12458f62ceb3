//! Numbers: integers, floats and decimals, exact where the type is exact.
//!
//! A number may stand bare or in quotes (many producers quote what is too long
//! for a double). What a type can't hold is refused, never bent: `1.5` is not a
//! BIGINT (`1.0` and `1e3` are), `1e999` is not a DOUBLE. Only a DECIMAL with more
//! digits behind the point than its scale is rounded, half away from zero, as
//! `CAST` rounds. No number takes the way over a float unless its column is one.

use std::str::FromStr;

use arrow::array::ArrowNativeTypeOp;
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};

use crate::decode::value::{
    Column, Fault, Kind, Label, NOT_A, OUT_OF_RANGE, PrimitiveColumn, Span, unsupported,
};
use crate::decode::words::last_digits;
use crate::error::Result;

const FRACTION: Fault = "has a fraction and is not a valid";

pub(crate) fn integer_column(label: Label) -> Result<Box<dyn Column>> {
    Ok(match label.data_type {
        DataType::Int8 => Box::new(PrimitiveColumn::<Int8Type, _>::new(label, integer)),
        DataType::Int16 => Box::new(PrimitiveColumn::<Int16Type, _>::new(label, integer)),
        DataType::Int32 => Box::new(PrimitiveColumn::<Int32Type, _>::new(label, integer)),
        DataType::Int64 => Box::new(PrimitiveColumn::<Int64Type, _>::new(label, integer)),
        DataType::UInt8 => Box::new(PrimitiveColumn::<UInt8Type, _>::new(label, integer)),
        DataType::UInt16 => Box::new(PrimitiveColumn::<UInt16Type, _>::new(label, integer)),
        DataType::UInt32 => Box::new(PrimitiveColumn::<UInt32Type, _>::new(label, integer)),
        DataType::UInt64 => Box::new(PrimitiveColumn::<UInt64Type, _>::new(label, integer)),
        _ => return Err(unsupported(&label)),
    })
}

pub(crate) fn float_column(label: Label) -> Result<Box<dyn Column>> {
    Ok(match label.data_type {
        DataType::Float32 => Box::new(PrimitiveColumn::<Float32Type, _>::new(label, float)),
        DataType::Float64 => Box::new(PrimitiveColumn::<Float64Type, _>::new(label, float)),
        _ => return Err(unsupported(&label)),
    })
}

pub(crate) fn decimal_column(label: Label) -> Result<Box<dyn Column>> {
    fn typed<T: DecimalType>(label: Label, precision: u8, scale: i8) -> Box<dyn Column> {
        let parse = move |text: &str, span: Span| decimal::<T>(text, span, precision, scale);
        Box::new(PrimitiveColumn::<T, _>::new(label, parse))
    }
    Ok(match label.data_type {
        DataType::Decimal32(p, s) => typed::<Decimal32Type>(label, p, s),
        DataType::Decimal64(p, s) => typed::<Decimal64Type>(label, p, s),
        DataType::Decimal128(p, s) => typed::<Decimal128Type>(label, p, s),
        DataType::Decimal256(p, s) => typed::<Decimal256Type>(label, p, s),
        _ => return Err(unsupported(&label)),
    })
}

/// The digits of a number, quoted or not.
pub(crate) fn digits(text: &str, span: Span) -> Result<&str, Fault> {
    match span.kind {
        Kind::Number | Kind::Text => Ok(span.of(text)),
        _ => Err(NOT_A),
    }
}

pub(crate) fn integer<N>(text: &str, span: Span) -> Result<N, Fault>
where
    N: TryFrom<i64> + TryFrom<i128>,
{
    let digits = digits(text, span)?;
    let before = text.as_bytes().get(..span.end as usize).unwrap_or_default();
    match short_integer(digits.as_bytes(), before) {
        Some(value) => N::try_from(value).map_err(|_| OUT_OF_RANGE),
        None => N::try_from(scaled::<i128>(digits, 0, Excess::Refuse)?).map_err(|_| OUT_OF_RANGE),
    }
}

/// An integer of up to 18 digits and nothing else. `before` is the text up to its end.
#[inline]
fn short_integer(bytes: &[u8], before: &[u8]) -> Option<i64> {
    let (negative, digits) = sign(bytes);
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    if let (1..=8, Some(last)) = (digits.len(), before.last_chunk::<8>()) {
        let value = last_digits(*last, digits.len())?;
        return Some(if negative { -value } else { value });
    }
    let mut value = 0_i64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

#[inline]
fn sign(bytes: &[u8]) -> (bool, &[u8]) {
    match bytes {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, bytes),
    }
}

fn float<F>(text: &str, span: Span) -> Result<F, Fault>
where
    F: FromStr + Into<f64> + Copy,
{
    let value: F = digits(text, span)?.parse().map_err(|_| NOT_A)?;
    let wide: f64 = value.into();
    let spelled_out = || span.of(text).bytes().any(|byte| byte.eq_ignore_ascii_case(&b'n'));
    if wide.is_infinite() && !spelled_out() { Err(OUT_OF_RANGE) } else { Ok(value) }
}

fn decimal<T: DecimalType>(
    text: &str,
    span: Span,
    precision: u8,
    scale: i8,
) -> Result<T::Native, Fault> {
    let digits = digits(text, span)?;
    let value = match short_decimal(digits.as_bytes(), scale) {
        Some((negative, value)) => {
            let value = native::<T::Native>(value)?;
            if negative { value.neg_wrapping() } else { value }
        }
        None => scaled::<T::Native>(digits, i32::from(scale), Excess::Round)?,
    };
    if T::is_valid_decimal_precision(value, precision) { Ok(value) } else { Err(OUT_OF_RANGE) }
}

/// `value` in a decimal's own integer type, if it has room.
fn native<N: ArrowNativeTypeOp>(value: u64) -> Result<N, Fault> {
    let native = N::usize_as(value as usize);
    if native.to_usize() == Some(value as usize) { Ok(native) } else { Err(OUT_OF_RANGE) }
}

/// Sign and magnitude of a plain decimal that, with `scale` digits behind the point,
/// has at most 18 digits and loses none.
#[inline]
fn short_decimal(bytes: &[u8], scale: i8) -> Option<(bool, u64)> {
    let (negative, digits) = sign(bytes);
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let (mut value, mut behind) = (0_u64, None);
    for byte in digits {
        match byte.wrapping_sub(b'0') {
            digit @ 0..=9 => {
                value = value * 10 + u64::from(digit);
                behind = behind.map(|n: u32| n + 1);
            }
            _ if *byte == b'.' && behind.is_none() => behind = Some(0),
            _ => return None,
        }
    }
    let missing = u32::try_from(scale).ok()?.checked_sub(behind.unwrap_or(0))?;
    if behind == Some(0) || digits.len() as u32 + missing > 18 {
        return None;
    }
    Some((negative, value * 10_u64.pow(missing)))
}

/// What becomes of digits behind the last one that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// Half away from zero.
    Round,
    Truncate,
    /// Unless they are zeros.
    Refuse,
}

/// `text` × 10^`scale`, exactly: `-12.34e1` with scale 2 is -12340.
pub(crate) fn scaled<N: ArrowNativeTypeOp>(
    text: &str,
    scale: i32,
    excess: Excess,
) -> Result<N, Fault> {
    let (negative, whole, fraction, exponent) = parts(text).ok_or(NOT_A)?;
    let (ten, last) = (N::usize_as(10), -i64::from(scale));
    let mut value = N::ZERO;
    let (mut half, mut lost) = (false, false);
    // The power of ten that the next digit counts.
    let mut power = whole.len() as i64 - 1 + exponent;
    for byte in whole.iter().chain(fraction) {
        let digit = usize::from(byte - b'0');
        if power >= last {
            value = push(value, ten, digit)?;
        } else {
            half |= power == last - 1 && digit >= 5;
            lost |= digit != 0;
        }
        power -= 1;
    }
    if lost && excess == Excess::Refuse {
        return Err(FRACTION);
    }
    if !value.is_zero() {
        // A value that needs more than these has overflowed on the way.
        for _ in 0..(power + 1 - last).clamp(0, 100) {
            value = push(value, ten, 0)?;
        }
    }
    if half && excess == Excess::Round {
        value = value.add_checked(N::ONE).map_err(|_| OUT_OF_RANGE)?;
    }
    Ok(if negative { value.neg_wrapping() } else { value })
}

#[inline]
fn push<N: ArrowNativeTypeOp>(value: N, ten: N, digit: usize) -> Result<N, Fault> {
    value
        .mul_checked(ten)
        .and_then(|value| value.add_checked(N::usize_as(digit)))
        .map_err(|_| OUT_OF_RANGE)
}

/// Sign, digits before and behind the point, exponent.
fn parts(text: &str) -> Option<(bool, &[u8], &[u8], i64)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        None => (text, 0),
        Some((mantissa, exponent)) => (mantissa, exponent_of(exponent)?),
    };
    let (negative, digits) = match mantissa.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        digits => (false, digits),
    };
    let point = digits.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        None => (digits, &digits[..0]),
        Some(at) => (&digits[..at], &digits[at + 1..]),
    };
    let numeric = |digits: &[u8]| digits.iter().all(u8::is_ascii_digit);
    let some = !(whole.is_empty() && fraction.is_empty());
    (some && numeric(whole) && numeric(fraction)).then_some((negative, whole, fraction, exponent))
}

/// An exponent; one that no number can bear is cut to a million.
fn exponent_of(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let size = digits.parse().unwrap_or(1_000_000_i64).min(1_000_000);
    Some(if text.starts_with('-') { -size } else { size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::i256;

    fn span(text: &str) -> Span {
        Span { start: 0, end: text.len() as u32, kind: Kind::Text }
    }

    #[test]
    fn integers_are_exact() {
        let int = |text: &str| integer::<i64>(text, span(text));
        for (text, value) in [
            ("0", 0),
            ("-7", -7),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("1.0", 1),
            ("1e3", 1000),
            ("1.5e1", 15),
            ("100e-2", 1),
            ("+4", 4),
        ] {
            assert_eq!(int(text), Ok(value), "{text}");
        }
        assert_eq!(int("1.5"), Err(FRACTION));
        assert_eq!(int("9223372036854775808"), Err(OUT_OF_RANGE));
        assert_eq!(int("1e400"), Err(OUT_OF_RANGE));
        assert_eq!(int(&"9".repeat(1000)), Err(OUT_OF_RANGE));
        for text in ["", "-", "abc", "1 ", "0x1", "1e", "e1", ".", "1.2.3", "--1"] {
            assert_eq!(int(text), Err(NOT_A), "{text:?}");
        }
        assert_eq!(integer::<i8>("128", span("128")), Err(OUT_OF_RANGE));
        assert_eq!(integer::<u64>("-1", span("-1")), Err(OUT_OF_RANGE));
        let max = u64::MAX.to_string();
        assert_eq!(integer::<u64>(&max, span(&max)), Ok(u64::MAX));
    }

    #[test]
    fn integers_are_read_where_they_stand() {
        let text = format!("{{\"id\":{}}}", "0123456789".repeat(3));
        for start in 6..text.len() {
            for end in start..text.len() {
                let at = Span { start: start as u32, end: end as u32, kind: Kind::Number };
                let parsed: Option<i64> = text[start..end].parse().ok();
                assert_eq!(integer::<i64>(&text, at).ok(), parsed, "{}", at.of(&text));
            }
        }
    }

    #[test]
    fn decimals_take_no_way_over_floats() {
        let dec = |text: &str, p, s| decimal::<Decimal128Type>(text, span(text), p, s);
        for (text, value) in [
            ("12.10", 1210),
            ("12.1", 1210),
            ("-0.01", -1),
            ("1e2", 10000),
            ("0.125e1", 125),
            ("12.345", 1235),
            ("-12.345", -1235),
            ("12.3449999", 1234),
            ("0.004", 0),
            ("0.005", 1),
            ("9999999999.99", 999_999_999_999),
            ("12.", 1200),
            (".5", 50),
        ] {
            assert_eq!(dec(text, 12, 2), Ok(value), "{text}");
        }
        assert_eq!(dec("10000000000", 12, 2), Err(OUT_OF_RANGE));
        assert_eq!(dec("9999999999.995", 12, 2), Err(OUT_OF_RANGE));
        assert_eq!(dec("1e1000000000", 12, 2), Err(OUT_OF_RANGE));
        assert_eq!(dec("0e1000000000", 12, 2), Ok(0));
        assert_eq!(dec("1e-1000000000", 12, 2), Ok(0));
        assert_eq!(dec(&format!("1.{}", "0".repeat(400)), 12, 2), Ok(100));
        assert_eq!(dec(&"9".repeat(38), 38, 0), Ok(10_i128.pow(38) - 1));
        assert_eq!(dec("1234567", 5, -2), Ok(12346));
        let wide = decimal::<Decimal256Type>("1e40", span("1e40"), 50, 2);
        assert_eq!(wide, Ok(i256::from_i128(10).wrapping_pow(42)));
        assert_eq!(
            decimal::<Decimal32Type>("99999999999", span("99999999999"), 9, 0),
            Err(OUT_OF_RANGE)
        );
    }

    #[test]
    fn floats_refuse_what_overflows() {
        let double = |text: &str, kind| float::<f64>(text, Span { kind, ..span(text) });
        assert_eq!(double("1e308", Kind::Number), Ok(1e308));
        assert_eq!(double("1e999", Kind::Number), Err(OUT_OF_RANGE));
        assert_eq!(double("-Infinity", Kind::Text), Ok(f64::NEG_INFINITY));
        assert!(double("NaN", Kind::Text).unwrap().is_nan());
        assert_eq!(double("x", Kind::Text), Err(NOT_A));
        assert_eq!(double("true", Kind::True), Err(NOT_A));
        assert_eq!(float::<f32>("1e39", span("1e39")), Err(OUT_OF_RANGE));
    }
}
