//! Syntax errors of sqlparser, in our words.
//!
//! sqlparser reports text: `Expected: X, found: Y at Line: 1, Column: 5`. The
//! place is cut out of it, the rest reworded, and a hint added where a mistake
//! is a typical one.

use datafusion::sql::sqlparser::keywords::{
    RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_IDENTIFIER, RESERVED_FOR_TABLE_ALIAS,
};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{self, TokenizerError};

use super::{Error, Location};

/// Longest piece of the statement that is quoted in a message.
const LONGEST_TOKEN: usize = 40;

/// Rewords a parser's error. `place` finds the token at a line and column;
/// without them it says where the parser stands, or where the statement ends.
pub(crate) fn from_parser(
    error: ParserError,
    place: impl FnOnce(Option<(u64, u64)>) -> Option<Location>,
) -> Error {
    let text = match error {
        ParserError::RecursionLimitExceeded => {
            return Error::refused("the statement is nested too deeply")
                .with_hint("split it with views, or with common table expressions (WITH)")
                .at(place(None));
        }
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
    };
    let (text, position) = split_position(&text);
    let error = match split_expectation(text) {
        Some((expected, found)) => expectation(expected, found),
        None => Error::syntax(uncapitalized(text)),
    };
    error.at(place(position))
}

/// "expected X, found Y", with a hint if Y is a keyword that may be meant as a name.
pub(crate) fn expectation(expected: &str, found: &str) -> Error {
    let expected = if expected == "identifier" { "a name" } else { expected };
    let error = match found {
        "EOF" => Error::syntax(format!("expected {expected}, but the statement ends here")),
        found => Error::syntax(format!("expected {expected}, found {}", shortened(found))),
    };
    if !names_something(expected) || !is_reserved(found) {
        return error;
    }
    let name = found.to_lowercase();
    error.with_hint(format!("{} is a keyword; if it is a name, write \"{name}\"", upper(found)))
}

/// Rewords a tokenizer's error about the token that starts at `start`.
pub(crate) fn from_tokenizer(error: &TokenizerError, start: tokenizer::Location) -> Error {
    let (what, hint) = match unclosed(error) {
        Some(Unclosed::String) => (
            "this string is not closed",
            "close it with '; a quote inside a string is written twice: ''",
        ),
        Some(Unclosed::DollarString) => {
            ("this dollar-quoted string is not closed", "close it with the same $tag$ again")
        }
        Some(Unclosed::Name) => (
            "this quoted name is not closed",
            "close it with the quote that opened it; inside a name a quote is written twice",
        ),
        Some(Unclosed::Comment) => ("this comment is not closed", "close it with */"),
        None => {
            return Error::syntax(uncapitalized(&error.message)).at(place(error.location));
        }
    };
    Error::syntax(what).with_hint(hint).at(place(start))
}

/// What a text left open at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unclosed {
    String,
    DollarString,
    Name,
    Comment,
}

/// Whether more text could mend this error.
pub(crate) fn unclosed(error: &TokenizerError) -> Option<Unclosed> {
    match error.message.as_str() {
        text if text.starts_with("Unterminated dollar") => Some(Unclosed::DollarString),
        text if text.starts_with("Unterminated") => Some(Unclosed::String),
        text if text.starts_with("Expected close delimiter") => Some(Unclosed::Name),
        text if text.contains("multi-line comment") => Some(Unclosed::Comment),
        _ => None,
    }
}

fn place(location: tokenizer::Location) -> Location {
    Location::point(location.line, location.column)
}

/// Cuts ` at Line: 1, Column: 5` off.
fn split_position(text: &str) -> (&str, Option<(u64, u64)>) {
    let Some((before, place)) = text.rsplit_once(" at Line: ") else { return (text, None) };
    let numbers = place.split_once(", Column: ").and_then(|(line, column)| {
        let digits = column.bytes().take_while(u8::is_ascii_digit).count();
        Some((line.parse().ok()?, column[..digits].parse().ok()?))
    });
    match numbers {
        Some(position) => (before, Some(position)),
        None => (text, None),
    }
}

fn split_expectation(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("Expected: ")?.rsplit_once(", found: ")
}

fn names_something(expected: &str) -> bool {
    ["identifier", "expression", "name"].iter().any(|word| expected.contains(word))
}

fn is_reserved(found: &str) -> bool {
    let found = upper(found);
    [RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_TABLE_ALIAS, RESERVED_FOR_IDENTIFIER]
        .into_iter()
        .flatten()
        .any(|keyword| format!("{keyword:?}") == found)
}

fn upper(word: &str) -> String {
    word.to_ascii_uppercase()
}

fn shortened(token: &str) -> String {
    let mut chars = token.chars();
    let start: String = chars.by_ref().take(LONGEST_TOKEN).collect();
    if chars.next().is_some() { format!("{start}…") } else { start }
}

/// Error messages start small.
pub(super) fn uncapitalized(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reword(text: &str) -> Error {
        from_parser(ParserError::ParserError(text.into()), |at| {
            at.map(|(line, column)| Location::point(line, column))
        })
    }

    #[test]
    fn rewords_what_was_expected() {
        let error = reword("Expected: identifier, found: ( at Line: 2, Column: 15");
        assert_eq!(error.to_string(), "expected a name, found ( (line 2, column 15)");
        let error = reword("Expected: an expression, found: EOF");
        assert_eq!(error.to_string(), "expected an expression, but the statement ends here");
    }

    #[test]
    fn a_keyword_as_a_name_wants_quotes() {
        let error = reword("Expected: identifier, found: Select at Line: 1, Column: 1");
        assert_eq!(
            error.hint().as_deref(),
            Some("SELECT is a keyword; if it is a name, write \"select\"")
        );
    }

    #[test]
    fn text_that_only_looks_like_a_place_stays() {
        let error = reword("Odd at Line: x, Column: y");
        assert_eq!(error.to_string(), "odd at Line: x, Column: y");
    }
}
