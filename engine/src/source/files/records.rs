//! Where the records of a text file end: at every line break or, where CSV fields may
//! hold line breaks, at every one outside of quotes.

use crate::decode::Format;

/// What ends a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    LineBreak,
    /// A line break behind an even number of quotes since the record's start.
    UnquotedLineBreak,
}

impl Ending {
    pub fn of(format: &Format) -> Self {
        match format {
            Format::Csv { multiline: true, .. } => Ending::UnquotedLineBreak,
            _ => Ending::LineBreak,
        }
    }

    /// Moves behind the next record; answers by how many bytes. What is left without an
    /// ending counts as a record.
    pub fn skip(self, bytes: &mut &[u8]) -> usize {
        self.next(bytes).0
    }

    /// The length of the next record, and whether it has its ending.
    fn next(self, bytes: &mut &[u8]) -> (usize, bool) {
        let (mut length, mut quoted) = (0, false);
        loop {
            let rest = *bytes;
            let line = &rest[..skip_line(bytes)];
            length += line.len();
            if self == Ending::UnquotedLineBreak {
                let quotes = line.iter().filter(|byte| **byte == b'"').count();
                quoted ^= quotes % 2 == 1;
            }
            if !line.ends_with(b"\n") {
                return (length, false);
            }
            if !quoted {
                return (length, true);
            }
        }
    }

    /// How many records there are; at least one.
    pub fn count(self, mut bytes: &[u8]) -> u64 {
        let mut records = 0;
        while self.skip(&mut bytes) > 0 {
            records += 1;
        }
        records.max(1)
    }

    /// The length of all records at the start of `bytes` that have their ending.
    pub fn whole(self, mut bytes: &[u8]) -> usize {
        if self == Ending::LineBreak {
            return memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1);
        }
        let mut whole = 0;
        loop {
            match self.next(&mut bytes) {
                (length, true) => whole += length,
                (_, false) => return whole,
            }
        }
    }
}

/// Moves behind the next line break; answers by how many bytes.
fn skip_line(bytes: &mut &[u8]) -> usize {
    let length = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
    *bytes = &bytes[length..];
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_a_record_together_if_they_are_asked_to() {
        let text = b"a,\"x\ny\"\"\n\",b\nc\n\"open\nend";
        let lengths = |ending: Ending| {
            let mut rest: &[u8] = text;
            let lengths = std::iter::from_fn(|| Some(ending.skip(&mut rest)).filter(|n| *n > 0));
            lengths.collect::<Vec<_>>()
        };
        assert_eq!(lengths(Ending::UnquotedLineBreak), [13, 2, 9]);
        assert_eq!(lengths(Ending::LineBreak), [5, 4, 4, 2, 6, 3]);
        assert_eq!(Ending::UnquotedLineBreak.whole(text), 15);
        assert_eq!(Ending::LineBreak.whole(text), 21);
        assert_eq!((Ending::LineBreak.count(text), Ending::LineBreak.count(b"")), (6, 1));
    }
}
