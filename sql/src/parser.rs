//! From text to statements.
//!
//! Built on sqlparser with the dialect that DataFusion uses, so that every
//! query DataFusion can parse parses here. Around it: statements of our own are
//! read word by word ([`cursor`]); a few spellings that sqlparser does not know
//! are rewritten token by token first ([`rewrite`], [`windows`]); and its errors get a place
//! and a hint.

mod columns;
mod command;
mod create;
mod cursor;
mod depth;
mod options;
mod refuse;
mod rewrite;
mod tokens;
pub(crate) mod windows;
mod words;

#[cfg(test)]
mod generated;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod tests;

use std::ops::Range;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::error::{Error, Location, Result, unclosed};
use crate::statement::Statement;
use cursor::Cursor;

pub(crate) use command::SHOWN;
pub use words::KEYWORDS;

/// What DataFusion parses with when nothing else is configured.
pub(crate) static DIALECT: GenericDialect = GenericDialect {};

/// How deep expressions and queries may be nested: sqlparser's own default.
const DEPTH: usize = 50;

/// Something, and the text that it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Spanned<T> {
    pub node: T,
    /// Where it starts.
    pub start: Location,
    /// Bytes of the source text, without the semicolon and without comments around it.
    pub bytes: Range<usize>,
}

impl<T> Spanned<T> {
    /// The text it came from, given the whole that was parsed.
    pub fn text<'a>(&self, sql: &'a str) -> &'a str {
        sql.get(self.bytes.clone()).unwrap_or_default()
    }
}

/// Parses statements that semicolons separate.
///
/// Positions in the statements and in errors, of this phase and of later ones, count
/// from the start of `sql`.
///
/// # Errors
/// The first thing that is no statement, or that is one Tidemill does not have.
pub fn parse(sql: &str) -> Result<Vec<Spanned<Statement>>> {
    let lines = tokens::Lines::new(sql);
    tokens::split(tokens::tokenize(sql)?)
        .into_iter()
        .map(|tokens| {
            let (start, bytes) = lines.extent(&tokens);
            let node = depth::check(&tokens)
                .and_then(|depth| depth::with_stack(depth, || kept_statement(tokens)))
                .flatten();
            Ok(Spanned { node: node.map_err(|error| error.or_at(start))?, start, bytes })
        })
        .collect()
}

/// Parses exactly one statement; a semicolon may follow it.
///
/// # Errors
/// As [`parse`]; also if there is no statement, or more than one.
pub fn parse_one(sql: &str) -> Result<Spanned<Statement>> {
    let mut statements = parse(sql)?.into_iter();
    match (statements.next(), statements.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Error::syntax("there is no statement")),
        (Some(_), Some(second)) => Err(Error::syntax("there is more than one statement")
            .at(second.start)
            .with_hint("send one at a time")),
    }
}

/// Where the `EMIT` clause at the end of a statement stands.
pub(crate) fn emit_place(sql: &str) -> Option<Location> {
    let statement = tokens::split(tokens::tokenize(sql).ok()?).into_iter().next()?;
    tokens::split_emit(statement).ok()?.1?.1
}

/// Whether a prompt can send `sql` off: it ends in a semicolon that stands outside
/// strings, quoted names and comments. Blank text is complete too, there is nothing
/// to wait for.
pub fn is_complete(sql: &str) -> bool {
    let mut tokens = Vec::new();
    match Tokenizer::new(&DIALECT, sql).tokenize_with_location_into_buf(&mut tokens) {
        Ok(()) => {
            let mut meaning = tokens.iter().map(|token| &token.token);
            let last = meaning.rfind(|token| !matches!(token, Token::Whitespace(_)));
            last.is_none_or(|token| *token == Token::SemiColon)
        }
        // Text that can't be continued is sent off too: its error says why.
        Err(error) => unclosed(&error).is_none(),
    }
}

/// As [`statement`], and whether it can be kept.
fn kept_statement(tokens: Vec<TokenWithSpan>) -> Result<Statement> {
    let node = statement(tokens)?;
    check_prints_back(&node)?;
    Ok(node)
}

/// One statement's tokens to the statement.
fn statement(tokens: Vec<TokenWithSpan>) -> Result<Statement> {
    let tokens = windows::rewrite(rewrite::rewrite(tokens))?;
    let (tokens, emit) = tokens::split_emit(tokens)?;
    let mut cursor = Cursor::new(tokens, emit);
    let statement = cursor.statement()?;
    cursor.finish()?;
    Ok(statement)
}

/// A definition that the catalog keeps is kept as text, so it must come back from text
/// as it was. It does, but for oddities such as two quotes in a row inside a name in
/// a query, which sqlparser prints wrongly: better refused now than misread later.
fn check_prints_back(node: &Statement) -> Result<()> {
    if !node.is_kept() {
        return Ok(());
    }
    let text = node.to_string();
    let again = tokens::tokenize(&text).map(tokens::split)?;
    let again: Vec<_> = again.into_iter().map(statement).collect::<Result<_>>()?;
    match again.as_slice() {
        [again] if again == node => Ok(()),
        _ => Err(Error::refused("this statement can't be written to the catalog and read back")
            .with_hint(
                "names that hold two quotes in a row, or a quote after a backslash, can't be used \
                 inside its query",
            )),
    }
}
