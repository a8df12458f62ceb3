//! The text as tokens: cut into statements, with places that point back.

use std::ops::Range;

use datafusion::sql::sqlparser::tokenizer::{
    Location as Position, Span, Token, TokenWithSpan, Tokenizer,
};

use super::DIALECT;
use crate::error::{Error, Location, Result, from_tokenizer};
use crate::statement::Emit;

/// All tokens of a text, whitespace and comments included.
pub fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>> {
    let mut tokens: Vec<TokenWithSpan> = Vec::new();
    let done = Tokenizer::new(&DIALECT, sql).tokenize_with_location_into_buf(&mut tokens);
    match done {
        Ok(()) => Ok(tokens),
        Err(error) => {
            // What could not be read starts where the last token ends.
            let first = Position { line: 1, column: 1 };
            let start = tokens.last().map_or(first, |token| token.span.end);
            Err(from_tokenizer(&error, start))
        }
    }
}

/// Cuts at semicolons. What is blank is left out, and so is whitespace around.
pub fn split(tokens: Vec<TokenWithSpan>) -> Vec<Vec<TokenWithSpan>> {
    tokens
        .split(|token| token.token == Token::SemiColon)
        .filter_map(|part| {
            let first = part.iter().position(is_significant)?;
            let last = part.iter().rposition(is_significant)?;
            Some(part[first..=last].to_vec())
        })
        .collect()
}

/// Whether it is more than whitespace or a comment.
pub fn is_significant(token: &TokenWithSpan) -> bool {
    !matches!(token.token, Token::Whitespace(_))
}

/// The word in capitals, if it is one and has no quotes.
pub fn word(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
        _ => None,
    }
}

/// Whether it is this word (given in capitals), without quotes.
pub fn is_word(token: &Token, expected: &str) -> bool {
    matches!(token, Token::Word(word)
        if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected))
}

/// An `EMIT` clause and where it stands.
pub type EmitClause = (Emit, Option<Location>);

/// Cuts the `EMIT` clause off the end: to sqlparser `FROM t EMIT` were an alias.
pub fn split_emit(
    mut tokens: Vec<TokenWithSpan>,
) -> Result<(Vec<TokenWithSpan>, Option<EmitClause>)> {
    let clauses: [(&[&str], Option<Emit>); 4] = [
        (&["EMIT", "CHANGES"], Some(Emit::Changes)),
        (&["EMIT", "ON", "WINDOW", "CLOSE"], Some(Emit::OnWindowClose)),
        (&["EMIT", "FINAL"], None),
        (&["EMIT", "AFTER", "WATERMARK"], None),
    ];
    for (words, emit) in clauses {
        let Some(start) = ends_in(&tokens, words) else { continue };
        let place = Location::of(tokens[start].span);
        let Some(emit) = emit else {
            let said = words.join(" ");
            return Err(Error::refused(format!("{said} is not supported"))
                .at(place)
                .with_hint("write EMIT ON WINDOW CLOSE, or EMIT CHANGES"));
        };
        tokens.truncate(start);
        return Ok((tokens, Some((emit, place))));
    }
    Ok((tokens, None))
}

/// Where these words start, if the statement ends in them and holds more than them.
fn ends_in(tokens: &[TokenWithSpan], words: &[&str]) -> Option<usize> {
    let significant: Vec<usize> =
        (0..tokens.len()).filter(|index| is_significant(&tokens[*index])).collect();
    let start = significant.len().checked_sub(words.len()).filter(|start| *start > 0)?;
    let same = significant[start..]
        .iter()
        .zip(words)
        .all(|(index, word)| is_word(&tokens[*index].token, word));
    same.then_some(significant[start])
}

/// Finds bytes by line and column.
pub struct Lines<'a> {
    sql: &'a str,
    /// Byte at which each line starts.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub fn new(sql: &'a str) -> Self {
        let breaks = sql.match_indices('\n').map(|(index, _)| index + 1);
        Self { sql, starts: std::iter::once(0).chain(breaks).collect() }
    }

    /// Where these tokens start, and the bytes that they span.
    pub fn extent(&self, tokens: &[TokenWithSpan]) -> (Location, Range<usize>) {
        let empty = Span::empty();
        let first = tokens.first().map_or(empty, |token| token.span);
        let last = tokens.last().map_or(empty, |token| token.span);
        let start = Location::of(first).unwrap_or(Location::point(1, 1));
        let (from, to) = (self.byte(first.start), self.byte(last.end));
        (start, from..to.max(from))
    }

    fn byte(&self, position: Position) -> usize {
        let index = |number: u64| usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(start) = self.starts.get(index(position.line)) else { return self.sql.len() };
        let mut chars = self.sql[*start..].char_indices();
        chars.nth(index(position.column)).map_or(self.sql.len(), |(offset, _)| start + offset)
    }
}
