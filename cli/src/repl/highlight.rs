//! Colours for SQL as it is typed.

use std::borrow::Cow;

use tidemill_sql::parser::KEYWORDS;

use crate::script::{Kind, tokens};

const KEYWORD: &str = "\x1b[1;34m";
const TEXT: &str = "\x1b[32m";
const NUMBER: &str = "\x1b[36m";
const COMMENT: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// The same text with colours round its tokens.
pub fn highlight(text: &str) -> Cow<'_, str> {
    let mut painted = String::with_capacity(text.len() + 64);
    let mut any = false;
    for token in tokens(text) {
        let part = &text[token.start..token.end];
        match paint(token.kind, part) {
            Some(colour) => {
                any = true;
                painted.push_str(colour);
                painted.push_str(part);
                painted.push_str(RESET);
            }
            None => painted.push_str(part),
        }
    }
    if any { Cow::Owned(painted) } else { Cow::Borrowed(text) }
}

fn paint(kind: Kind, part: &str) -> Option<&'static str> {
    match kind {
        Kind::Word if is_keyword(part) => Some(KEYWORD),
        Kind::String => Some(TEXT),
        Kind::Number => Some(NUMBER),
        Kind::Comment => Some(COMMENT),
        _ => None,
    }
}

pub fn is_keyword(word: &str) -> bool {
    KEYWORDS.binary_search(&word.to_ascii_uppercase().as_str()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keywords_literals_and_comments_are_coloured() {
        let painted = highlight("select name, 'x' from t -- c");
        let plain: String =
            painted.split("\x1b[").enumerate().fold(String::new(), |text, (i, part)| {
                text + if i == 0 { part } else { part.split_once('m').map_or("", |(_, rest)| rest) }
            });
        assert_eq!(plain, "select name, 'x' from t -- c");
        assert!(painted.starts_with("\x1b[1;34mselect\x1b[0m name, \x1b[32m'x'\x1b[0m"));
        assert_eq!(highlight("name"), "name");
    }
}
