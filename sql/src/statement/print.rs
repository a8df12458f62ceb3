//! Printing pieces of SQL so that they parse back to themselves.
//!
//! sqlparser prints its syntax trees well but for one thing: it leaves two
//! quotes in a row, and a quote after a backslash, as they are, taking them
//! for escaped ([`misprinted`]). The parser keeps such strings out of its trees;
//! our own names and strings are printed here altogether.

use std::fmt::{self, Display, Formatter, Write};

use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName, ObjectNamePart, Query};

use crate::parser::windows::written;

/// A name, quoted as it was.
pub fn ident(f: &mut Formatter<'_>, ident: &Ident) -> fmt::Result {
    match ident.quote_style {
        None if is_bare(&ident.value) => f.write_str(&ident.value),
        None => quoted(f, &ident.value, '"'),
        Some(quote) => quoted(f, &ident.value, quote),
    }
}

/// A qualified name.
pub fn name(f: &mut Formatter<'_>, name: &ObjectName) -> fmt::Result {
    for (index, part) in name.0.iter().enumerate() {
        if index > 0 {
            f.write_char('.')?;
        }
        match part {
            ObjectNamePart::Identifier(part) => ident(f, part)?,
            part => write!(f, "{part}")?,
        }
    }
    Ok(())
}

/// A string literal.
pub fn string(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    quoted(f, text, '\'')
}

fn quoted(f: &mut Formatter<'_>, text: &str, quote: char) -> fmt::Result {
    f.write_char(quote)?;
    for c in text.chars() {
        if c == quote {
            f.write_char(quote)?;
        }
        f.write_char(c)?;
    }
    f.write_char(quote)
}

/// Whether sqlparser would print this text wrongly between single quotes.
pub fn misprinted(text: &str) -> bool {
    text.contains("''") || text.contains("\\'")
}

/// Whether it is a word without quotes for the dialect that we parse.
fn is_bare(word: &str) -> bool {
    let starts = |c: char| c.is_alphabetic() || matches!(c, '_' | '#' | '@');
    let goes_on = |c: char| starts(c) || c.is_ascii_digit() || c == '$';
    word.starts_with(starts) && word.chars().all(goes_on)
}

/// Whether it is lower case ASCII and needs no quotes anywhere.
pub fn is_plain_word(word: &str) -> bool {
    let starts = |c: char| c.is_ascii_lowercase() || c == '_';
    word.starts_with(starts) && word.chars().all(|c| starts(c) || c.is_ascii_digit())
}

/// A query; over several lines for `{:#}`.
pub fn query(f: &mut Formatter<'_>, query: &Query) -> fmt::Result {
    let plain = written(query.to_string());
    // The indentation of `{:#}` would get into strings that hold line breaks.
    if f.alternate() && !plain.contains('\n') {
        f.write_str(&written(format!("{query:#}")))
    } else {
        f.write_str(&plain)
    }
}

/// An expression, always on one line.
pub fn expr(f: &mut Formatter<'_>, expr: &Expr) -> fmt::Result {
    write!(f, "{expr}")
}

/// `(a, b)`; an element a line for `{:#}`.
pub fn list<T: Display>(f: &mut Formatter<'_>, items: &[T]) -> fmt::Result {
    let (open, between, close) =
        if f.alternate() { ("(\n  ", ",\n  ", "\n)") } else { ("(", ", ", ")") };
    f.write_str(open)?;
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(between)?;
        }
        write!(f, "{item}")?;
    }
    f.write_str(close)
}

/// `(a, b)`, names on one line.
pub fn idents(f: &mut Formatter<'_>, names: &[Ident]) -> fmt::Result {
    f.write_char('(')?;
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        ident(f, name)?;
    }
    f.write_char(')')
}

/// What stands between two clauses.
pub fn gap(f: &mut Formatter<'_>) -> fmt::Result {
    f.write_char(if f.alternate() { '\n' } else { ' ' })
}
