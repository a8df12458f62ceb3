//! Strict JSON in one pass: checks a record and notes where its values lie.
//!
//! The scanner copies nothing and builds nothing: of an object it notes the
//! [`Span`] of each wanted value, and of everything else only that it is well
//! formed (RFC 8259, no deeper than [`MAX_DEPTH`]). What a record is worth
//! therefore never depends on its neighbours in the batch, which a decoder that
//! fails for a whole chunk can't promise. It never recurses: no record, however
//! deep, can overflow the stack.
//!
//! Keys are guessed: producers write the keys of a topic in one order and one style, so
//! what stands before the n-th value of an object, comma, key and colon, is first compared
//! as a whole with what stood there in the object before.

use std::collections::HashMap;

use crate::decode::value::{Kind, Span};
use crate::decode::words::{digit_prefix, plain_prefix};

/// Deepest nesting of arrays and objects that a record may have.
pub(crate) const MAX_DEPTH: u32 = 128;

/// Guesses are kept for this many keys of an object.
const MAX_GUESSES: usize = 512;

/// Where and why a record is no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Syntax {
    /// Position in the buffer.
    pub at: usize,
    pub expected: &'static str,
}

type Scanned<T> = Result<T, Syntax>;

/// The wanted keys of an object and which column each belongs to.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    columns: HashMap<String, usize>,
    guesses: Vec<Guess>,
}

/// What stands between two values: `, "key": `, without escapes in the key.
#[derive(Debug)]
struct Guess {
    lead: Vec<u8>,
    column: Option<usize>,
}

impl Keys {
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut columns = HashMap::new();
        for (column, name) in names.into_iter().enumerate() {
            columns.entry(name.to_string()).or_insert(column);
        }
        Self { columns, guesses: Vec::new() }
    }

    fn learn(&mut self, nth: usize, key: &[u8], lead: &[u8]) -> Option<usize> {
        let column = std::str::from_utf8(key).ok().and_then(|key| self.columns.get(key).copied());
        let known = self.guesses.len();
        match self.guesses.get_mut(nth) {
            Some(held) => {
                held.lead.clear();
                held.lead.extend_from_slice(lead);
                held.column = column;
            }
            None if nth == known && nth < MAX_GUESSES => {
                self.guesses.push(Guess { lead: lead.to_vec(), column });
            }
            None => {}
        }
        column
    }

    fn find_escaped(&self, key: &[u8]) -> Option<usize> {
        let key = std::str::from_utf8(key).ok()?;
        let mut plain = Vec::with_capacity(key.len());
        unescape(key, &mut plain).ok()?;
        self.columns.get(std::str::from_utf8(&plain).ok()?).copied()
    }
}

/// Walks over `bytes`, which end where the record ends.
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Scanner<'a> {
    /// Starts at `pos`; spans count from the start of `bytes`.
    pub fn new(bytes: &'a [u8], pos: usize) -> Self {
        Self { bytes, pos }
    }

    /// A record: one object and nothing else. A byte order mark before it is passed over.
    pub fn record(&mut self, keys: &mut Keys, set: impl FnMut(usize, Span)) -> Scanned<()> {
        if self.bytes.get(self.pos..).is_some_and(|rest| rest.starts_with(b"\xEF\xBB\xBF")) {
            self.pos += 3;
        }
        self.space();
        self.object(keys, set)?;
        self.space();
        if self.pos < self.bytes.len() {
            return self.fail("nothing after the object");
        }
        Ok(())
    }

    /// One string in quotes and nothing else.
    pub fn quoted(&mut self) -> Scanned<Span> {
        self.expect(b'"', "a string")?;
        let span = self.string()?;
        if self.pos < self.bytes.len() {
            return self.fail("nothing after the string");
        }
        Ok(span)
    }

    /// An object, of which `set` learns the values of the wanted keys. A key that comes
    /// twice is set twice.
    pub fn object(&mut self, keys: &mut Keys, mut set: impl FnMut(usize, Span)) -> Scanned<()> {
        for nth in 0.. {
            let column = match self.guessed(keys, nth) {
                Some(column) => column,
                None => match self.spelled(keys, nth)? {
                    Some(column) => column,
                    None => break,
                },
            };
            let span = self.value()?;
            if let Some(column) = column {
                set(column, span);
            }
            if self.take(b'}') {
                break;
            }
        }
        Ok(())
    }

    /// An object, of which `entry` learns every key and value.
    pub fn entries(&mut self, mut entry: impl FnMut(Span, Span)) -> Scanned<()> {
        self.expect(b'{', "an object")?;
        self.space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.expect(b'"', "a key")?;
            let key = self.string()?;
            self.colon()?;
            entry(key, self.value()?);
            self.space();
            if !self.take(b',') {
                return self.expect(b'}', "',' or '}'");
            }
            self.space();
        }
    }

    /// An array, of which `element` learns every element.
    pub fn elements(&mut self, mut element: impl FnMut(Span)) -> Scanned<()> {
        self.expect(b'[', "an array")?;
        self.space();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            element(self.value()?);
            self.space();
            if !self.take(b',') {
                return self.expect(b']', "',' or ']'");
            }
            self.space();
        }
    }

    /// Goes to the n-th value of an object, if its key is the one that is guessed; answers
    /// the key's column.
    #[inline]
    fn guessed(&mut self, keys: &Keys, nth: usize) -> Option<Option<usize>> {
        let guess = keys.guesses.get(nth)?;
        if !self.bytes.get(self.pos..)?.starts_with(&guess.lead) {
            return None;
        }
        self.pos += guess.lead.len();
        self.space();
        Some(guess.column)
    }

    /// The same for any key; None at the end of the object.
    #[inline(never)]
    fn spelled(&mut self, keys: &mut Keys, nth: usize) -> Scanned<Option<Option<usize>>> {
        let start = self.pos;
        if nth == 0 {
            self.expect(b'{', "an object")?;
        }
        self.space();
        if self.take(b'}') {
            return Ok(None);
        }
        if nth > 0 {
            self.expect(b',', "',' or '}'")?;
            self.space();
        }
        self.expect(b'"', "a key")?;
        let span = self.string()?;
        self.colon()?;
        let key = &self.bytes[span.start as usize..span.end as usize];
        Ok(Some(match span.kind {
            Kind::Escaped => keys.find_escaped(key),
            _ => keys.learn(nth, key, &self.bytes[start..self.pos]),
        }))
    }

    fn colon(&mut self) -> Scanned<()> {
        self.space();
        self.expect(b':', "':'")?;
        self.space();
        Ok(())
    }

    #[inline]
    fn value(&mut self) -> Scanned<Span> {
        match self.peek() {
            b'{' | b'[' => self.container(),
            _ => self.scalar(),
        }
    }

    fn scalar(&mut self) -> Scanned<Span> {
        match self.peek() {
            b'"' => {
                self.pos += 1;
                self.string()
            }
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal(b"true", Kind::True),
            b'f' => self.literal(b"false", Kind::False),
            b'n' => self.literal(b"null", Kind::Null),
            _ => self.fail("a value"),
        }
    }

    /// Walks over an array or an object. `open` holds a bit for each level that is
    /// open, the innermost lowest: 1 is an object.
    fn container(&mut self) -> Scanned<Span> {
        let start = self.pos;
        let kind = if self.peek() == b'{' { Kind::Object } else { Kind::Array };
        let (mut open, mut depth) = (0_u128, 0_u32);
        loop {
            let opened = match self.peek() {
                byte @ (b'{' | b'[') => {
                    if depth == MAX_DEPTH {
                        return self.fail("no nesting deeper than 128 levels");
                    }
                    self.pos += 1;
                    depth += 1;
                    open = open << 1 | u128::from(byte == b'{');
                    self.space();
                    true
                }
                _ => {
                    self.scalar()?;
                    false
                }
            };
            let empty = opened && matches!((self.peek(), open & 1), (b'}', 1) | (b']', 0));
            if !opened || empty {
                self.close(&mut open, &mut depth)?;
            }
            if depth == 0 {
                return Ok(self.span(start, kind));
            }
            if open & 1 == 1 {
                self.expect(b'"', "a key")?;
                self.string()?;
                self.colon()?;
            }
        }
    }

    /// After a value: closes what ends here, up to the next comma.
    fn close(&mut self, open: &mut u128, depth: &mut u32) -> Scanned<()> {
        while *depth > 0 {
            self.space();
            match (self.peek(), *open & 1) {
                (b',', _) => {
                    self.pos += 1;
                    self.space();
                    return Ok(());
                }
                (b'}', 1) | (b']', 0) => {
                    self.pos += 1;
                    *depth -= 1;
                    *open >>= 1;
                }
                (_, 1) => return self.fail("',' or '}'"),
                _ => return self.fail("',' or ']'"),
            }
        }
        Ok(())
    }

    /// The rest of a string whose opening quote is behind us; the span is without quotes.
    fn string(&mut self) -> Scanned<Span> {
        let start = self.pos;
        let mut kind = Kind::Text;
        loop {
            self.pos += plain_prefix(&self.bytes[self.pos..]);
            match self.bytes.get(self.pos) {
                Some(b'"') => {
                    let span = self.span(start, kind);
                    self.pos += 1;
                    return Ok(span);
                }
                Some(b'\\') => {
                    kind = Kind::Escaped;
                    self.escape()?;
                }
                Some(_) => return self.fail("no control character in a string"),
                None => return self.fail("the end of a string"),
            }
        }
    }

    fn escape(&mut self) -> Scanned<()> {
        let length = match self.bytes.get(self.pos + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => match self.bytes.get(self.pos + 2..self.pos + 6) {
                Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => 6,
                _ => return self.fail("four hexadecimal digits after '\\u'"),
            },
            _ => return self.fail("a known escape after '\\'"),
        };
        self.pos += length;
        Ok(())
    }

    fn number(&mut self) -> Scanned<Span> {
        let start = self.pos;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(self.span(start, Kind::Number))
    }

    #[inline]
    fn digits(&mut self) -> Scanned<()> {
        let start = self.pos;
        loop {
            match self.bytes.get(self.pos..).and_then(|rest| rest.first_chunk::<8>()) {
                Some(chunk) => {
                    let count = digit_prefix(*chunk);
                    self.pos += count;
                    if count < 8 {
                        break;
                    }
                }
                None if self.peek().is_ascii_digit() => self.pos += 1,
                None => break,
            }
        }
        if self.pos == start { self.fail("a digit") } else { Ok(()) }
    }

    fn literal(&mut self, word: &'static [u8], kind: Kind) -> Scanned<Span> {
        let start = self.pos;
        if !self.bytes[start..].starts_with(word) {
            return self.fail("a value");
        }
        self.pos += word.len();
        Ok(self.span(start, kind))
    }

    /// The byte here, 0 at the end: outside of strings JSON has no zero byte.
    #[inline]
    fn peek(&self) -> u8 {
        self.bytes.get(self.pos).copied().unwrap_or(0)
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.pos) == Some(&byte);
        self.pos += usize::from(found);
        found
    }

    #[inline]
    fn expect(&mut self, byte: u8, expected: &'static str) -> Scanned<()> {
        if self.take(byte) { Ok(()) } else { self.fail(expected) }
    }

    #[inline]
    fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.pos += 1;
        }
    }

    fn span(&self, start: usize, kind: Kind) -> Span {
        Span { start: start as u32, end: self.pos as u32, kind }
    }

    #[cold]
    fn fail<T>(&self, expected: &'static str) -> Scanned<T> {
        Err(Syntax { at: self.pos, expected })
    }
}

/// The keys of a record in the order in which they come; none if it is no JSON object.
pub(crate) fn key_order(record: &[u8]) -> Vec<String> {
    let mut keys = Vec::new();
    let mut scanner = Scanner::new(record, 0);
    scanner.space();
    let whole = scanner.entries(|key, _| {
        let mut plain = Vec::new();
        let text = record.get(key.start as usize..key.end as usize).map(String::from_utf8_lossy);
        if unescape(&text.unwrap_or_default(), &mut plain).is_ok() {
            keys.push(String::from_utf8_lossy(&plain).into_owned());
        }
    });
    if whole.is_ok() { keys } else { Vec::new() }
}

/// Appends `text`, a scanned string with escapes, as the characters it stands for.
///
/// # Errors
/// What is wrong with it: half of a surrogate pair.
pub(crate) fn unescape(text: &str, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b == b'\\') {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let Some((&escape, after)) = rest.split_first() else { break };
        rest = after;
        match escape {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let (character, used) = unicode(rest)?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[used..];
            }
            other => out.push(other),
        }
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// The character after `\u` and how many bytes it takes.
fn unicode(rest: &[u8]) -> Result<(char, usize), &'static str> {
    const HALF: &str = "holds half of a surrogate pair, no";
    let unit = |from: usize| {
        let digits = std::str::from_utf8(rest.get(from..from + 4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let first = unit(0).ok_or(HALF)?;
    if let Some(character) = char::from_u32(first) {
        return Ok((character, 4));
    }
    let second = rest.get(4..6).filter(|e| *e == b"\\u").and_then(|_| unit(6)).ok_or(HALF)?;
    match (first, second) {
        (0xD800..0xDC00, 0xDC00..0xE000) => {
            let code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            char::from_u32(code).map(|character| (character, 10)).ok_or(HALF)
        }
        _ => Err(HALF),
    }
}

#[cfg(test)]
mod tests;
