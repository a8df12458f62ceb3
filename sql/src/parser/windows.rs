//! Spellings of windows and of joins with a table as of now, put into ones that sqlparser knows.
//!
//! | written | parsed as |
//! |---|---|
//! | `SESSION(t PARTITION BY a, b, …)` | `SESSION(t, PARTITION_BY => (a, b), …)` |
//! | `t FOR SYSTEM_TIME AS OF now() AS x` | `SYSTEM_TIME_AS_OF(t) AS x` |

use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::rewrite::{blank, is_window_function};
use super::tokens::{Lines, is_significant, is_word, tokenize};
use crate::error::{Error, Location, Result};
use crate::window_tvf::{PARTITION_BY, SYSTEM_TIME_AS_OF};

/// Applies both.
pub fn rewrite(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let significant: Vec<_> = tokens.iter().filter(|token| is_significant(token)).collect();
    let has = |words: [&str; 2]| {
        let pair = |pair: &[&TokenWithSpan]| {
            is_word(&pair[0].token, words[0]) && is_word(&pair[1].token, words[1])
        };
        significant.windows(2).any(pair)
    };
    let (partitioned, timed) = (has(["PARTITION", "BY"]), has(["FOR", "SYSTEM_TIME"]));
    let tokens = if partitioned { partition_by(tokens) } else { tokens };
    if timed { system_time(tokens) } else { Ok(tokens) }
}

/// A printed query as it was written: undoes [`rewrite`].
pub fn written(text: String) -> String {
    if !text.contains(PARTITION_BY) && !text.contains(SYSTEM_TIME_AS_OF) {
        return text;
    }
    let Ok(tokens) = tokenize(&text) else { return text };
    let significant: Vec<&TokenWithSpan> = tokens.iter().filter(|t| is_significant(t)).collect();
    let meaning: Vec<Token> = significant.iter().map(|token| token.token.clone()).collect();
    let lines = Lines::new(&text);
    let bytes = |at: usize| lines.extent(std::slice::from_ref(significant[at])).1;
    let word_at = |at: usize, word: &str| meaning.get(at).is_some_and(|t| is_word(t, word));
    let mut edits = Vec::new();
    let mut open = Vec::new();
    for (at, token) in meaning.iter().enumerate() {
        match token {
            Token::LParen => {
                open.push(at.checked_sub(1).is_some_and(|at| is_window_function(&meaning[at])));
            }
            Token::RParen => drop(open.pop()),
            Token::Comma
                if open.last() == Some(&true)
                    && word_at(at + 1, PARTITION_BY)
                    && meaning.get(at + 2) == Some(&Token::RArrow) =>
            {
                edits.push((bytes(at).start..bytes(at + 2).end, " PARTITION BY"));
            }
            _ => {}
        }
        if word_at(at, SYSTEM_TIME_AS_OF)
            && meaning.get(at + 1) == Some(&Token::LParen)
            && let Some(close) = closing(&meaning, at + 1)
        {
            edits.push((bytes(at).start..bytes(at + 1).end, ""));
            edits.push((bytes(close), " FOR SYSTEM_TIME AS OF now()"));
        }
    }
    let mut out = text.clone();
    edits.sort_by_key(|(range, _)| range.start);
    edits.into_iter().rev().for_each(|(range, with)| out.replace_range(range, with));
    out
}

/// Something put in the place of significant tokens `at..at + len`.
struct Edit {
    at: usize,
    len: usize,
    tokens: Vec<Token>,
}

/// Applies edits, which must not overlap; what is put in bears the place of what it replaces.
fn edited(tokens: Vec<TokenWithSpan>, mut edits: Vec<Edit>) -> Vec<TokenWithSpan> {
    let places: Vec<usize> =
        (0..tokens.len()).filter(|index| is_significant(&tokens[*index])).collect();
    edits.sort_by_key(|edit| edit.at);
    let mut out = tokens;
    for edit in edits.into_iter().rev() {
        let end = out.len();
        let index = |at: usize| places.get(at).copied().unwrap_or(end);
        let from = index(edit.at);
        let to = if edit.len == 0 { from } else { index(edit.at + edit.len - 1) + 1 };
        let near = from.min(end.saturating_sub(1));
        let span = out.get(near).map_or(Span::empty(), |token| token.span);
        let put = edit.tokens.into_iter().map(|token| TokenWithSpan { token, span });
        // Words must not grow together with what stands around them.
        let put: Vec<_> = std::iter::once(blank(span)).chain(put).chain([blank(span)]).collect();
        out.splice(from..to, put);
    }
    out
}

fn word(text: &str) -> Token {
    Token::make_word(text, None)
}

/// `PARTITION BY` inside the arguments of a window function.
fn partition_by(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let meaning: Vec<Token> =
        tokens.iter().filter(|t| is_significant(t)).map(|t| t.token.clone()).collect();
    let mut edits = Vec::new();
    // For each open parenthesis: whether it holds a window function's arguments, and the
    // commas seen in it.
    let mut open: Vec<(bool, usize)> = Vec::new();
    for (at, token) in meaning.iter().enumerate() {
        match token {
            Token::LParen => {
                let windows = at.checked_sub(1).is_some_and(|at| is_window_function(&meaning[at]));
                open.push((windows, 0));
            }
            Token::RParen => drop(open.pop()),
            Token::Comma => {
                if let Some((_, commas)) = open.last_mut() {
                    *commas += 1;
                }
            }
            _ => {}
        }
        let Some((true, commas)) = open.last() else { continue };
        let follows = meaning.get(at + 1).is_some_and(|next| is_word(next, "BY"));
        if !is_word(token, "PARTITION") || !follows {
            continue;
        }
        let separated = at > 0 && matches!(meaning[at - 1], Token::Comma | Token::LParen);
        let mut head = if separated { Vec::new() } else { vec![Token::Comma] };
        head.extend([word(PARTITION_BY), Token::RArrow]);
        let (end, parenthesized) = keys_end(&meaning, at + 2, *commas);
        if !parenthesized {
            head.push(Token::LParen);
            edits.push(Edit { at: end, len: 0, tokens: vec![Token::RParen] });
        }
        edits.push(Edit { at, len: 2, tokens: head });
    }
    edited(tokens, edits)
}

/// One past the last token of the keys that start at `from`, and whether they stand in
/// parentheses of their own. `commas` stand before them in the call.
fn keys_end(meaning: &[Token], from: usize, commas: usize) -> (usize, bool) {
    let mut depth = 0usize;
    let mut ends = Vec::new();
    let mut end = meaning.len();
    for (at, token) in meaning.iter().enumerate().skip(from) {
        match token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => {
                end = at;
                break;
            }
            Token::RParen => depth -= 1,
            Token::Comma if depth == 0 => ends.push(at),
            _ => {}
        }
    }
    let next = |comma: &usize, n: usize| meaning.get(comma + n);
    let argument = |comma: &&usize| match (next(comma, 1), next(comma, 2)) {
        (Some(name), Some(Token::LParen)) => is_word(name, "DESCRIPTOR"),
        (Some(Token::Word(_)), Some(Token::RArrow)) => true,
        _ => false,
    };
    // Behind the keys stand what is left of the time and the gap.
    let stop = match ends.iter().find(argument) {
        Some(comma) => *comma,
        None if commas >= 2 => end,
        None => {
            ends.len().checked_sub(2 - commas).and_then(|at| ends.get(at)).copied().unwrap_or(end)
        }
    };
    let parenthesized =
        meaning.get(from) == Some(&Token::LParen) && closing(meaning, from) == stop.checked_sub(1);
    (stop, parenthesized)
}

/// Where the parenthesis that opens at `from` closes.
fn closing(meaning: &[Token], from: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, token) in meaning.iter().enumerate().skip(from) {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// `FOR SYSTEM_TIME AS OF` behind a table's name, or behind its alias.
fn system_time(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let significant: Vec<&TokenWithSpan> = tokens.iter().filter(|t| is_significant(t)).collect();
    let meaning: Vec<&Token> = significant.iter().map(|token| &token.token).collect();
    let at_words = |from: usize, words: &[&str]| {
        words
            .iter()
            .enumerate()
            .all(|(n, word)| meaning.get(from + n).is_some_and(|token| is_word(token, word)))
    };
    let mut edits = Vec::new();
    for at in 0..meaning.len() {
        if !at_words(at, &["FOR", "SYSTEM_TIME"]) {
            continue;
        }
        let place = Location::of(significant[at].span);
        if !at_words(at + 2, &["AS", "OF"]) {
            return Err(Error::syntax("expected FOR SYSTEM_TIME AS OF now()").at(place));
        }
        let Some(len) = now(&meaning[at + 4..]) else {
            let place = significant.get(at + 4).and_then(|token| Location::of(token.span));
            return Err(Error::refused("a table can be joined as of now() only")
                .at(place)
                .with_hint(
                    "write FOR SYSTEM_TIME AS OF now(): each epoch reads the table as it is then",
                ));
        };
        let Some(name) = table_name(&meaning[..at]) else {
            return Err(
                Error::syntax("FOR SYSTEM_TIME AS OF stands behind a table's name").at(place)
            );
        };
        edits.push(Edit {
            at: name.start,
            len: 0,
            tokens: vec![word(SYSTEM_TIME_AS_OF), Token::LParen],
        });
        edits.push(Edit { at: name.end, len: 0, tokens: vec![Token::RParen] });
        edits.push(Edit { at, len: 4 + len, tokens: Vec::new() });
    }
    Ok(edited(tokens, edits))
}

/// How many tokens `now()` or one of its synonyms takes.
fn now(tokens: &[&Token]) -> Option<usize> {
    let called = matches!(tokens.get(1..3), Some([Token::LParen, Token::RParen]));
    let first = tokens.first()?;
    let named = |names: &[&str]| names.iter().any(|name| is_word(first, name));
    match called {
        true => named(&["NOW", "PROCTIME", "CURRENT_TIMESTAMP"]).then_some(3),
        false => named(&["CURRENT_TIMESTAMP", "LOCALTIMESTAMP"]).then_some(1),
    }
}

/// Where the table's name stands that these tokens end in, with or without an alias.
fn table_name(before: &[&Token]) -> Option<std::ops::Range<usize>> {
    let is_name = |at: usize| matches!(before[at], Token::Word(_));
    let keyword = |at: usize, word: &str| is_word(before[at], word);
    let mut end = before.len();
    let last = end.checked_sub(1).filter(|at| is_name(*at))?;
    // `t AS x`, or `t x`.
    if last >= 2 && keyword(last - 1, "AS") && is_name(last - 2) {
        end = last - 1;
    } else if last >= 1
        && is_name(last - 1)
        && !keyword(last - 1, "JOIN")
        && !keyword(last - 1, "FROM")
    {
        end = last;
    }
    let mut start = end.checked_sub(1)?;
    while start >= 2 && before[start - 1] == &Token::Period && is_name(start - 2) {
        start -= 2;
    }
    Some(start..end)
}
