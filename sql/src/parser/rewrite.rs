//! Spellings that sqlparser does not know, put into ones that it does.
//!
//! | written | parsed as |
//! |---|---|
//! | `TUMBLE(TABLE t, …)`, also inside `TABLE(…)` | `TUMBLE(t, …)` |
//! | `TUMBLE(TABLE (SELECT …), …)` | `TUMBLE((SELECT …), …)` |
//! | `TABLE t`, as a query | `SELECT * FROM t` |
//! | `CREATE SINK s FROM t …` | `CREATE SINK s … AS SELECT * FROM t` |
//! | `CREATE SINK s AS query WITH (…)` | `CREATE SINK s WITH (…) AS query` |
//! | `'two '''' quotes'`, which it would print wrongly | `$q$two '' quotes$q$` |
//!
//! The tokens keep their places, so errors point at what was written.

use datafusion::sql::sqlparser::ast::DollarQuotedString;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Whitespace};

use super::tokens::{is_significant, is_word, word};
use crate::statement::print;
use crate::window_tvf::WINDOW_FUNCTIONS;

/// Applies the rewritings.
pub fn rewrite(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let tokens = match created(&tokens).as_deref() {
        Some("SINK") => options_first(sink_from(tokens)),
        Some("MATERIALIZED") => options_first(tokens),
        _ => tokens,
    };
    let mut tokens = table_keyword(tokens);
    tokens.iter_mut().for_each(dollar_quoted);
    tokens
}

/// A string that sqlparser could not print back becomes one that it can.
fn dollar_quoted(token: &mut TokenWithSpan) {
    if let Token::SingleQuotedString(text) = &mut token.token
        && print::misprinted(text)
    {
        let mut tag = "q".to_owned();
        while text.contains(&format!("${tag}")) {
            tag.push('q');
        }
        let value = std::mem::take(text);
        token.token = Token::DollarQuotedString(DollarQuotedString { value, tag: Some(tag) });
    }
}

/// What a `CREATE` statement creates.
fn created(tokens: &[TokenWithSpan]) -> Option<String> {
    let mut words = tokens.iter().filter(|token| is_significant(token)).map(|t| word(&t.token));
    let mut next = || words.next().flatten();
    match (next()?.as_str(), next()?) {
        ("CREATE", or) if or == "OR" => next().and_then(|_| next()),
        ("CREATE", what) => Some(what),
        _ => None,
    }
}

/// `FROM t` of a sink without a query becomes `AS SELECT * FROM t`.
fn sink_from(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let at = top_level(&tokens, |token| is_word(token, "FROM") || is_word(token, "AS"));
    if let Some(index) = at.filter(|index| is_word(&tokens[*index].token, "FROM")) {
        let span = tokens[index].span;
        tokens.splice(index..=index, spelled(&["AS", "SELECT", "*", "FROM"], span));
    }
    tokens
}

/// Moves `WITH (name = …)` from behind the query to before its `AS`.
fn options_first(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let Some(start) = trailing_options(&tokens) else { return tokens };
    let query = top_level(&tokens, |token| is_word(token, "AS"));
    let Some(query) = query.filter(|query| *query < start) else { return tokens };
    let mut options = tokens.split_off(start);
    options.push(blank(tokens[query].span));
    tokens.splice(query..query, options);
    tokens
}

/// Where the `WITH` of options at the very end stands.
fn trailing_options(tokens: &[TokenWithSpan]) -> Option<usize> {
    let mut depth = 0usize;
    let mut backwards = tokens.iter().enumerate().rev().filter(|(_, t)| is_significant(t));
    let (open, _) = backwards.by_ref().find(|(_, token)| {
        match token.token {
            Token::RParen => depth += 1,
            Token::LParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    })?;
    let (with, token) = backwards.next()?;
    let options = is_word(&token.token, "WITH") && starts_with_option(&tokens[open + 1..]);
    options.then_some(with)
}

/// Whether the tokens read `name =` or `name.name… =`.
fn starts_with_option(tokens: &[TokenWithSpan]) -> bool {
    tokens
        .iter()
        .filter(|token| is_significant(token))
        .find(|token| {
            !matches!(token.token, Token::Word(_) | Token::Period | Token::SingleQuotedString(_))
        })
        .is_some_and(|token| token.token == Token::Eq)
}

/// The first token outside parentheses that is wanted.
fn top_level(tokens: &[TokenWithSpan], wanted: impl Fn(&Token) -> bool) -> Option<usize> {
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            token if depth == 0 && wanted(token) => return Some(index),
            _ => {}
        }
    }
    None
}

/// Takes the keyword `TABLE` away before names: inside window functions, and where it
/// stands for `SELECT * FROM`.
fn table_keyword(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let significant: Vec<usize> =
        (0..tokens.len()).filter(|index| is_significant(&tokens[*index])).collect();
    let meaning: Vec<&Token> = significant.iter().map(|index| &tokens[*index].token).collect();
    // The query of a CREATE follows its AS; before it stand column definitions.
    let query = match created(&tokens) {
        Some(_) => {
            top_level(&tokens, |token| is_word(token, "AS")).map_or(tokens.len(), |index| index + 1)
        }
        None => 0,
    };
    let first = significant.partition_point(|index| *index < query);
    // Backwards, so that the places still to be rewritten do not move.
    let mut out = tokens.clone();
    for (at, place) in table_keywords(&meaning, first).into_iter().rev() {
        let index = significant[at];
        let span = tokens[index].span;
        match place {
            Place::WindowArgument => out[index].token = Token::Whitespace(Whitespace::Space),
            Place::Query => {
                out.splice(index..=index, spelled(&["SELECT", "*", "FROM"], span));
            }
        }
    }
    out
}

/// What the word `TABLE` means where it is no plain name.
enum Place {
    /// A table handed to a window function.
    WindowArgument,
    /// A query.
    Query,
}

/// The words `TABLE` from `first` on that stand before a name, and what they mean.
fn table_keywords(meaning: &[&Token], first: usize) -> Vec<(usize, Place)> {
    let mut found = Vec::new();
    // For each open parenthesis, whether it holds a window function's arguments.
    let mut open = Vec::new();
    for (at, token) in meaning.iter().enumerate() {
        let before = &meaning[..at];
        match token {
            Token::LParen => open.push(before.last().is_some_and(|name| is_window_function(name))),
            Token::RParen => drop(open.pop()),
            _ => {}
        }
        let in_window = open.last().copied().unwrap_or(false);
        let named = match meaning.get(at + 1) {
            Some(Token::Word(_)) => true,
            // A query handed to a window function.
            Some(Token::LParen) => in_window,
            _ => false,
        };
        if at < first || !named || !is_word(token, "TABLE") {
            continue;
        }
        match before.last() {
            Some(Token::LParen | Token::Comma | Token::RArrow) if in_window => {
                found.push((at, Place::WindowArgument));
            }
            _ if at == first => found.push((at, Place::Query)),
            Some(Token::LParen) => found.push((at, Place::Query)),
            _ if after_set_operator(before) => found.push((at, Place::Query)),
            _ if open.is_empty() && is_first_of_query(before) => found.push((at, Place::Query)),
            _ => {}
        }
    }
    found
}

pub(super) fn is_window_function(name: &Token) -> bool {
    word(name).is_some_and(|name| WINDOW_FUNCTIONS.contains(&name.as_str()))
}

/// Whether these tokens of an `EXPLAIN` or an `INSERT` are followed by its query.
fn is_first_of_query(before: &[&Token]) -> bool {
    let last_is = |words: &[&str]| {
        before.last().is_some_and(|last| words.iter().any(|word| is_word(last, word)))
    };
    let inside_query = || {
        let starts = ["SELECT", "WITH", "VALUES", "FROM"];
        before.iter().any(|token| starts.iter().any(|word| is_word(token, word)))
    };
    match before.first().and_then(|first| word(first)).as_deref() {
        Some("EXPLAIN") => last_is(&["EXPLAIN", "ANALYZE", "VERBOSE", "INCREMENTAL"]),
        Some("INSERT") => !last_is(&["INSERT", "INTO"]) && !inside_query(),
        _ => false,
    }
}

/// Whether the tokens end in `UNION`, `UNION ALL` and so on.
fn after_set_operator(before: &[&Token]) -> bool {
    let operator = |token: &Token| {
        ["UNION", "EXCEPT", "INTERSECT", "MINUS"].iter().any(|word| is_word(token, word))
    };
    match before {
        [.., last] if operator(last) => true,
        [.., operation, last] => {
            operator(operation) && (is_word(last, "ALL") || is_word(last, "DISTINCT"))
        }
        _ => false,
    }
}

/// Tokens for these words, with blanks between, all in one place.
pub(super) fn spelled(words: &[&str], span: Span) -> Vec<TokenWithSpan> {
    let mut tokens = Vec::new();
    for (index, text) in words.iter().enumerate() {
        if index > 0 {
            tokens.push(blank(span));
        }
        let token = if *text == "*" { Token::Mul } else { Token::make_word(text, None) };
        tokens.push(TokenWithSpan { token, span });
    }
    tokens
}

pub(super) fn blank(span: Span) -> TokenWithSpan {
    TokenWithSpan { token: Token::Whitespace(Whitespace::Space), span }
}
