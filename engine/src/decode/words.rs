//! Eight bytes at a time: where a string or a number ends, and what its digits are.

const ONES: u64 = u64::from_le_bytes([0x01; 8]);
const HIGH: u64 = u64::from_le_bytes([0x80; 8]);

/// How many of the bytes are digits before the first that is none.
#[inline]
pub fn digit_prefix(chunk: [u8; 8]) -> usize {
    let word = u64::from_le_bytes(chunk) ^ (ONES * b'0' as u64);
    above_nine(word).trailing_zeros() as usize / 8
}

/// The high bit of the first byte above 9 is set, and of none before it: it was, or comes up by
/// the sum, whose carry goes into bytes behind.
#[inline]
fn above_nine(word: u64) -> u64 {
    (word.wrapping_add(ONES * (0x80 - 10)) | word) & HIGH
}

/// What ends a stretch of plain characters in a string.
#[inline]
fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

/// How many bytes come before the first quote, backslash or control character: eight
/// bytes at a time, and many where the compiler has vectors for it.
#[inline]
pub fn plain_prefix(bytes: &[u8]) -> usize {
    const BLOCK: usize = 32;
    let mut at = 0;
    // Whether the end is in the next block.
    let mut near = false;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let marks = special_marks(*chunk);
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
        while !near && let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            let block: &[u8; BLOCK] = block;
            near = block.iter().fold(false, |found, byte| found | is_special(*byte));
            at += if near { 0 } else { BLOCK };
        }
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| is_special(*byte)).unwrap_or(rest.len())
}

/// The high bit of the first special byte is set, and of none before it. (Mycroft's test for
/// a zero byte: a borrow can only mark bytes behind one that is truly marked.)
#[inline]
fn special_marks(chunk: [u8; 8]) -> u64 {
    let word = u64::from_le_bytes(chunk);
    let quote = word ^ (ONES * b'"' as u64);
    let slash = word ^ (ONES * b'\\' as u64);
    let marks = (quote.wrapping_sub(ONES) & !quote)
        | (slash.wrapping_sub(ONES) & !slash)
        | (word.wrapping_sub(ONES * 0x20) & !word);
    marks & HIGH
}

/// What the last `count` of eight bytes, 1 to 8, are as decimal digits. Neighbours are added
/// up first, then pairs, then fours: three multiplications for all eight.
#[inline]
pub fn last_digits(bytes: [u8; 8], count: usize) -> Option<i64> {
    // The last byte is the highest: what comes before the digits is shifted out, as zeros.
    let shift = 8 * (8 - count as u32);
    let word = (u64::from_le_bytes(bytes) ^ (ONES * b'0' as u64)) >> shift << shift;
    if above_nine(word) != 0 {
        return None;
    }
    let pairs = (word.wrapping_mul(10) + (word >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    let all = fours.wrapping_mul(10_000) + (fours >> 32);
    Some(i64::from(all as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_special_byte_ends_a_stretch() {
        for length in 0..100 {
            for at in 0..=length {
                for special in [b'"', b'\\', 0, 0x1f, b'\n'] {
                    let mut bytes = vec![b'a'; length];
                    bytes.splice(at.., [special]);
                    bytes.extend(std::iter::repeat_n(b'"', length - at));
                    assert_eq!(plain_prefix(&bytes), at, "{bytes:?}");
                    // Bytes beyond ASCII and the one after control characters are plain.
                    bytes[..at].fill(if at % 2 == 0 { 0xff } else { 0x20 });
                    assert_eq!(plain_prefix(&bytes), at, "{bytes:?}");
                }
            }
        }
        for count in 0..=8 {
            for other in [b'0' - 1, b'9' + 1, 0, 0xff, 0xb5] {
                let mut chunk = [b'5'; 8];
                chunk[count..].fill(other);
                assert_eq!(digit_prefix(chunk), count);
            }
        }
    }
}
