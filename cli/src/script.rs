//! Text to statements: where one ends, where it stands, and what its words are.
//!
//! The parser of `tidemill-sql` decides what a statement means; here only the
//! shape matters: quotes, comments and the `;` between statements, so that a
//! file can be run statement by statement with each error placed at its line,
//! and so that the REPL can colour what is being typed, complete or not.

/// What a stretch of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Space,
    Comment,
    /// `'…'` and `$$…$$`.
    String,
    /// A name or a keyword.
    Word,
    /// `"…"`.
    QuotedName,
    Number,
    Semicolon,
    Other,
}

/// A stretch of text; `end` is exclusive, both are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
    /// Whether its closing quote or `*/` is there.
    pub closed: bool,
}

/// Cuts text into tokens; they cover it without gaps.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let token = token(text, start);
        start = token.end;
        tokens.push(token);
    }
    tokens
}

fn token(text: &str, start: usize) -> Token {
    let rest = &text[start..];
    let first = rest.chars().next().unwrap_or(' ');
    let (kind, length, closed) = match first {
        c if c.is_whitespace() => (Kind::Space, run(rest, char::is_whitespace), true),
        '-' if rest.starts_with("--") => {
            (Kind::Comment, rest.find('\n').unwrap_or(rest.len()), true)
        }
        '/' if rest.starts_with("/*") => {
            let (length, closed) = block_comment(rest);
            (Kind::Comment, length, closed)
        }
        '\'' => quoted(rest, '\'', Kind::String),
        '"' => quoted(rest, '"', Kind::QuotedName),
        '$' if rest.starts_with("$$") => match rest[2..].find("$$") {
            Some(end) => (Kind::String, end + 4, true),
            None => (Kind::String, rest.len(), false),
        },
        '0'..='9' => (Kind::Number, number(rest), true),
        c if c.is_alphabetic() || c == '_' => {
            (Kind::Word, run(rest, |c| c.is_alphanumeric() || c == '_' || c == '$'), true)
        }
        ';' => (Kind::Semicolon, 1, true),
        c => (Kind::Other, c.len_utf8(), true),
    };
    Token { kind, start, end: start + length, closed }
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// Digits, a fraction, an exponent.
fn number(text: &str) -> usize {
    let mut end = run(text, |c| c.is_ascii_digit() || c == '.' || c == '_');
    let exponent = &text[end..];
    if exponent.starts_with(['e', 'E']) {
        let sign = usize::from(exponent[1..].starts_with(['+', '-']));
        let digits = run(&exponent[1 + sign..], |c| c.is_ascii_digit());
        if digits > 0 {
            end += 1 + sign + digits;
        }
    }
    end
}

/// A quote that is doubled inside stands for itself, which needs no care here:
/// `'a''b'` is cut into two tokens that touch.
fn quoted(text: &str, quote: char, kind: Kind) -> (Kind, usize, bool) {
    match text[1..].find(quote) {
        Some(end) => (kind, end + 2, true),
        None => (kind, text.len(), false),
    }
}

/// Block comments nest.
fn block_comment(text: &str) -> (usize, bool) {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return (at, true);
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    (text.len(), false)
}

/// One statement, or one meta-command, of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// From its first word on; no `;` at the end.
    pub text: String,
    /// Where its first word stands; lines and columns count from 1, columns in characters.
    pub line: usize,
    pub column: usize,
    /// Starts with `\`: a command of the REPL, to the end of its line.
    pub meta: bool,
}

/// Cuts a script into its statements and meta-commands. Comments before a
/// statement belong to no statement; comments inside it stay.
pub fn split(script: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(start) = first_word(script, at) {
        let meta = script[start..].starts_with('\\');
        let (end, next) = if meta { line_end(script, start) } else { statement_end(script, start) };
        let text = script[start..end].trim_end();
        if !text.is_empty() {
            let (line, column) = position(script, start);
            pieces.push(Piece { text: text.to_string(), line, column, meta });
        }
        at = next;
    }
    pieces
}

/// Line and column, from 1, of a byte of the text.
pub fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn first_word(text: &str, from: usize) -> Option<usize> {
    let mut at = from;
    while at < text.len() {
        let token = token(text, at);
        if !matches!(token.kind, Kind::Space | Kind::Comment | Kind::Semicolon) {
            return Some(at);
        }
        at = token.end;
    }
    None
}

fn line_end(text: &str, start: usize) -> (usize, usize) {
    let end = text[start..].find('\n').map_or(text.len(), |length| start + length);
    (end, end)
}

fn statement_end(text: &str, start: usize) -> (usize, usize) {
    let mut at = start;
    while at < text.len() {
        let token = token(text, at);
        if token.kind == Kind::Semicolon {
            return (at, token.end);
        }
        at = token.end;
    }
    (text.len(), text.len())
}

/// The first `count` words of a statement in upper case, for looking at what it is.
pub fn leading_words(statement: &str, count: usize) -> Vec<String> {
    tokens(statement)
        .into_iter()
        .filter(|token| !matches!(token.kind, Kind::Space | Kind::Comment))
        .take(count)
        .map(|token| statement[token.start..token.end].to_ascii_uppercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(script: &str) -> Vec<String> {
        split(script).into_iter().map(|piece| piece.text).collect()
    }

    #[test]
    fn statements_end_at_semicolons_outside_quotes_and_comments() {
        let script = "select ';' as \"a;b\"; -- no; end\nselect 2 /* ; /* ; */ */;;\nselect $$;$$";
        assert_eq!(
            texts(script),
            ["select ';' as \"a;b\"", "select 2 /* ; /* ; */ */", "select $$;$$"]
        );
    }

    #[test]
    fn positions_count_lines_and_characters() {
        let pieces = split("-- ä comment\n\n  ä; select 1;\n\\dt\nselect 2");
        let places: Vec<_> = pieces.iter().map(|p| (p.line, p.column, p.meta)).collect();
        assert_eq!(places, [(3, 3, false), (3, 6, false), (4, 1, true), (5, 1, false)]);
    }

    #[test]
    fn tokens_cover_any_text() {
        for text in ["'open", "\"öpen", "1.5e-3x", "$$", "a''b", "ä;ö", "1e", "/*", "$", "\\x"] {
            let tokens = tokens(text);
            assert_eq!(tokens.first().map(|t| t.start), Some(0));
            assert_eq!(tokens.last().map(|t| t.end), Some(text.len()), "{text}");
        }
    }
}
