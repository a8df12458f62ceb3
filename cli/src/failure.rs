//! A statement that failed, with its place drawn under its text.

use std::fmt;

use tidemill_sql::error::Location;

use crate::script::Piece;

/// What is printed for a failed statement; the text is complete as it stands.
#[derive(Debug)]
pub struct Failure(pub String);

impl Failure {
    /// A statement's error, drawn under the statement.
    pub fn of(error: &tidemill_sql::Error, sql: &str) -> Self {
        Self(error.render(sql))
    }

    /// A statement's error, drawn under its place in a script. One that knows
    /// no place is placed at the statement's first word, if the script has a name.
    pub fn in_script(
        error: &tidemill_sql::Error,
        piece: &Piece,
        script: &str,
        name: Option<&str>,
    ) -> Self {
        let start = Location::point(piece.line as u64, piece.column as u64);
        let place = error.location().map(|inside| shifted(inside, start));
        let drawn = error.clone().at(place).render(script);
        let place = place.unwrap_or(start);
        match name {
            Some(name) => Self(format!("{name}:{}:{}: {drawn}", place.line, place.column)),
            None => Self(drawn),
        }
    }
}

/// A place inside a statement as a place in the text that the statement starts in at `start`.
fn shifted(inside: Location, start: Location) -> Location {
    let column = if inside.line == 1 { inside.column + start.column - 1 } else { inside.column };
    Location { line: inside.line + start.line - 1, column, width: inside.width }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim_end())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::split;

    #[test]
    fn a_place_inside_a_statement_becomes_a_place_in_the_file() {
        let script = "select 1;\n  select\n nonsense;";
        let piece = &split(script)[1];
        let error = tidemill_sql::Error::syntax("no").at(Location::point(1, 3));
        let failure = Failure::in_script(&error, piece, script, Some("a.sql"));
        assert!(failure.0.starts_with("a.sql:2:5: error: no"), "{failure}");
        let error = tidemill_sql::Error::syntax("no").at(Location::point(2, 2));
        let failure = Failure::in_script(&error, piece, script, Some("a.sql"));
        assert!(failure.0.starts_with("a.sql:3:2: error: no"), "{failure}");
        let error = tidemill_sql::Error::syntax("no");
        let failure = Failure::in_script(&error, piece, script, Some("a.sql"));
        assert!(failure.0.starts_with("a.sql:2:3: error: no"), "{failure}");
    }
}
