//! Text of Nexmark: cut from a pool of random letters, which costs no more than copying.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};

use super::part;
use crate::error::{Error, Result};
use crate::source::generator::random::Stream;

/// Places in a pool where a text can start.
const STARTS: usize = 1 << 16;
/// The longest text.
const LONGEST: usize = 1024;
/// The shortest text, as published.
const SHORTEST: u64 = 3;

/// Random letters, and random letters with a blank every thirteenth time.
pub struct Text {
    letters: Vec<u8>,
    words: Vec<u8>,
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Text")
    }
}

impl Text {
    pub fn new(stream: Stream) -> Self {
        let drawn = || (0..).map(|index| stream.draw(index)).take(STARTS + LONGEST);
        let letter = |drawn: u64| b'a' + part(drawn, 26) as u8;
        let letters: Vec<u8> = drawn().map(letter).collect();
        let blank = |drawn: u64| part(drawn.rotate_left(32), 13) == 0;
        let words = drawn().map(|drawn| if blank(drawn) { b' ' } else { letter(drawn) }).collect();
        Self { letters, words }
    }

    /// Letters, from 3 to below `longest`.
    pub fn letters(&self, drawn: u64, longest: u64) -> &[u8] {
        cut(&self.letters, drawn, SHORTEST + part(drawn, longest - SHORTEST))
    }

    /// Words without a blank around them, from 3 to below `longest`.
    pub fn words(&self, drawn: u64, longest: u64) -> &[u8] {
        cut(&self.words, drawn, SHORTEST + part(drawn, longest - SHORTEST)).trim_ascii()
    }

    /// What makes an event of `used` bytes about `average` bytes large, give or take a fifth.
    pub fn extra(&self, drawn: u64, average: usize, used: usize) -> &[u8] {
        let Some(missing) = average.checked_sub(used) else { return b"" };
        let delta = (missing + 2) / 5;
        let length = (missing - delta) as u64 + part(drawn, 2 * delta as u64);
        cut(&self.letters, drawn, length)
    }
}

/// `length` bytes of a pool; where they start, low bits say, which nothing else depends on.
fn cut(pool: &[u8], drawn: u64, length: u64) -> &[u8] {
    let start = drawn as usize % STARTS;
    &pool[start..start + (length as usize).min(LONGEST)]
}

/// Sixteen digits in groups of four.
pub fn digits(drawn: u64) -> [u8; 19] {
    let mut text = *b"0000 0000 0000 0000";
    let mut rest = drawn;
    for digit in text.iter_mut().filter(|byte| **byte != b' ') {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    text
}

const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const CHANNELS: u64 = 10_000;

/// Where bids come from: four large channels that bring half of them, and ten thousand others.
#[derive(Debug)]
pub struct Channels {
    names: Vec<Box<[u8]>>,
    urls: Vec<Box<[u8]>>,
}

impl Channels {
    pub fn new(stream: Stream, text: &Text) -> Self {
        let mut channels = Self { names: Vec::new(), urls: Vec::new() };
        for (index, name) in (0..).zip(HOT_CHANNELS) {
            channels.add(name.to_string(), base_url(text, stream.draw(!index)));
        }
        for (index, channel) in (0..CHANNELS as i64).zip(0u32..) {
            let drawn = stream.draw(index);
            let mut url = base_url(text, drawn);
            if part(drawn.rotate_left(40), 10) > 0 {
                let id = channel.reverse_bits().cast_signed().unsigned_abs();
                url.push_str(&format!("&channel_id={id}"));
            }
            channels.add(format!("channel-{channel}"), url);
        }
        channels
    }

    fn add(&mut self, name: String, url: String) {
        self.names.push(name.into_bytes().into());
        self.urls.push(url.into_bytes().into());
    }

    pub fn name(&self, drawn: u64) -> &[u8] {
        &self.names[channel(drawn)]
    }

    pub fn url(&self, drawn: u64) -> &[u8] {
        &self.urls[channel(drawn)]
    }
}

fn channel(drawn: u64) -> usize {
    let hot = HOT_CHANNELS.len();
    match drawn & 1 {
        1 => part(drawn, hot as u64) as usize,
        _ => hot + part(drawn, CHANNELS) as usize,
    }
}

fn base_url(text: &Text, drawn: u64) -> String {
    let folder = |turn| String::from_utf8_lossy(text.letters(drawn.rotate_left(turn), 5));
    format!("https://www.nexmark.com/{}/{}/{}/item.htm?query=1", folder(0), folder(17), folder(34))
}

/// Builds a column of strings from pieces of bytes.
pub struct Texts {
    offsets: Vec<i32>,
    bytes: Vec<u8>,
}

impl Texts {
    pub fn new(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { offsets, bytes: Vec::with_capacity(rows * 64) }
    }

    /// Appends one text.
    #[inline]
    pub fn push(&mut self, pieces: &[&[u8]]) -> Result<()> {
        pieces.iter().for_each(|piece| self.bytes.extend_from_slice(piece));
        let end = i32::try_from(self.bytes.len())
            .map_err(|_| Error::invalid("too many rows of text at a time"))?;
        self.offsets.push(end);
        Ok(())
    }

    pub fn finish(self) -> Result<ArrayRef> {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        Ok(Arc::new(StringArray::try_new(offsets, Buffer::from_vec(self.bytes), None)?))
    }
}
