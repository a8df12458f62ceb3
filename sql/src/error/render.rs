//! Drawing an error under the text it came from.

use std::fmt::Write;

use super::{Error, Location};

/// Longest part of a source line that is shown; longer lines are cut around the place.
const WINDOW: usize = 100;

impl Error {
    /// Draws the error for a terminal, pointing into `sql`, the text that was parsed:
    ///
    /// ```text
    /// error: unknown option "topik" for connector kafka
    ///   --> line 3, column 9
    ///    |
    ///  3 |   WITH (topik = 'orders')
    ///    |         ^^^^^
    ///    hint: did you mean "topic"?
    /// ```
    ///
    /// Ends without a line break.
    pub fn render(&self, sql: &str) -> String {
        let mut out = format!("error: {}", self.message());
        let margin = match self.location() {
            Some(location) => draw(&mut out, location, sql),
            None => 2,
        };
        if let Some(hint) = self.hint() {
            let hint = hint.replace('\n', &format!("\n{:margin$}       ", ""));
            // Writing to a String does not fail.
            let _ = write!(out, "\n{:margin$} hint: {hint}", "");
        }
        out
    }
}

/// Appends place, source line and caret; answers the width of the margin.
fn draw(out: &mut String, location: Location, sql: &str) -> usize {
    let number = location.line.to_string();
    let margin = number.len() + 1;
    let _ = write!(out, "\n{:margin$}--> {location}", "");
    let line = usize::try_from(location.line.saturating_sub(1))
        .ok()
        .and_then(|index| sql.split('\n').nth(index));
    let Some(line) = line else { return margin };
    let excerpt = Excerpt::new(line.trim_end_matches('\r'), location);
    let _ = write!(out, "\n{:margin$} |", "");
    let _ = write!(out, "\n {number} | {}", excerpt.text);
    let _ = write!(out, "\n{:margin$} | {}{}", "", excerpt.indent, "^".repeat(excerpt.width));
    margin
}

/// The part of a line that is shown, and where the caret goes under it.
struct Excerpt {
    text: String,
    /// As wide as what stands before the place: tabs are kept, so that the caret
    /// stays under its character.
    indent: String,
    width: usize,
}

impl Excerpt {
    fn new(line: &str, location: Location) -> Self {
        let chars: Vec<char> = line.chars().collect();
        let column = usize::try_from(location.column.saturating_sub(1))
            .unwrap_or(usize::MAX)
            .min(chars.len());
        let rest = (chars.len() - column).max(1);
        let width = usize::try_from(location.width).unwrap_or(usize::MAX).clamp(1, rest);
        let start = if column < WINDOW * 3 / 4 { 0 } else { column - WINDOW / 4 };
        let end = chars.len().min(start + WINDOW);
        let (before, after) = (dots(start > 0), dots(end < chars.len()));
        let shown: String = chars[start..end].iter().collect();
        let blank = |c: &char| if *c == '\t' { '\t' } else { ' ' };
        let skipped: String = chars[start..column].iter().map(blank).collect();
        Self {
            text: format!("{before}{shown}{after}").trim_end().to_owned(),
            indent: format!("{:1$}{skipped}", "", before.chars().count()),
            width: width.min(end.saturating_sub(column).max(1)),
        }
    }
}

fn dots(cut: bool) -> &'static str {
    if cut { "…" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Error {
        Error::option("unknown option \"topik\" for connector kafka")
            .at(Location { line: 3, column: 9, width: 5 })
            .with_hint("did you mean \"topic\"?")
    }

    #[test]
    fn draws_the_place_under_its_line() {
        let sql = "CREATE SOURCE orders\n  (id INT)\n  WITH (topik = 'orders')";
        insta::assert_snapshot!(sample().render(sql), @r#"
        error: unknown option "topik" for connector kafka
          --> line 3, column 9
           |
         3 |   WITH (topik = 'orders')
           |         ^^^^^
           hint: did you mean "topic"?
        "#);
    }

    #[test]
    fn says_it_in_one_line() {
        assert_eq!(
            sample().to_string(),
            "unknown option \"topik\" for connector kafka (line 3, column 9); \
             hint: did you mean \"topic\"?"
        );
    }

    #[test]
    fn a_place_outside_the_text_is_no_panic() {
        for (line, column) in [(1, 1), (1, 400), (2, 1), (900, 900), (u64::MAX, u64::MAX)] {
            let error = Error::syntax("x").at(Location { line, column, width: u64::MAX });
            for sql in ["", "\n", "ü\r\n", "SELECT 'ü'"] {
                assert!(error.render(sql).starts_with("error: x"));
            }
        }
    }

    #[test]
    fn tabs_and_wide_margins_keep_the_caret_in_place() {
        let sql = format!("{}\tSELECT\tx", "\n".repeat(11));
        let error = Error::syntax("no").at(Location::point(12, 9));
        insta::assert_snapshot!(error.render(&sql), @"
        error: no
           --> line 12, column 9
            |
         12 | \tSELECT\tx
            | \t      \t^
        ");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let sql = format!("SELECT {} FROM t", "a, ".repeat(200));
        let drawn = Error::syntax("no").at(Location::point(1, 300)).render(&sql);
        let lines: Vec<&str> = drawn.lines().collect();
        let caret = lines[4].chars().position(|c| c == '^').unwrap();
        assert!(lines[3].chars().count() < 120);
        assert_eq!(lines[3].chars().nth(caret), sql.chars().nth(299));
    }
}
