//! How deep a statement's syntax tree will be, told from its tokens.
//!
//! `a OR b OR c …` parses in a loop, but to a tree as deep as the chain is long,
//! and whoever walks that tree (copying it, planning it) does so recursively.
//! sqlparser limits parentheses; chains are limited here, before there is a
//! tree, so that no statement overflows a thread's stack.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::{is_significant, is_word};
use crate::error::{Error, Location, Result};

/// Deepest tree. To copy one takes the most stack: without optimisation 2 MiB are used up
/// at a depth of about 450.
const DEEPEST: usize = 200;

/// A set operation takes as much stack to copy as this many operators.
const SET_OPERATION: usize = 4;

/// Words that make an expression one deeper.
const OPERATORS: [&str; 14] = [
    "NOT", "IS", "ISNULL", "NOTNULL", "IN", "BETWEEN", "LIKE", "ILIKE", "INTERVAL", "SIMILAR",
    "RLIKE", "AT", "COLLATE", "DIV",
];

/// Operators that bind least, so that what stands on both sides is side by side.
const LOGIC: [&str; 3] = ["AND", "OR", "XOR"];

const SET_OPERATORS: [&str; 4] = ["UNION", "EXCEPT", "INTERSECT", "MINUS"];

/// What sqlparser reads a second time, as a function of that name, when there is a mistake
/// inside: every level doubles the time that a mistake costs.
const RETRIED: [&str; 20] = [
    "ARRAY",
    "CAST",
    "TRY_CAST",
    "SAFE_CAST",
    "CONVERT",
    "TRY_CONVERT",
    "EXTRACT",
    "CEIL",
    "FLOOR",
    "POSITION",
    "SUBSTR",
    "SUBSTRING",
    "OVERLAY",
    "TRIM",
    "EXISTS",
    "IN",
    "NOT",
    "MATCH",
    "STRUCT",
    "MAP",
];

/// How many of them may be nested.
const MOST_RETRIED: usize = 12;

/// Words after which a new expression starts beside the one before.
const CLAUSES: [&str; 12] = [
    "SELECT", "FROM", "WHERE", "GROUP", "HAVING", "QUALIFY", "ORDER", "ON", "LIMIT", "WHEN",
    "THEN", "ELSE",
];

/// What is inside one pair of parentheses or brackets, or between `CASE` and `END`.
#[derive(Default)]
struct Level {
    is_case: bool,
    is_retried: bool,
    set_operations: usize,
    /// `AND`s and `OR`s of the expression being read.
    logic: usize,
    /// Deepest of what stood between them.
    operand: usize,
    /// Operators since the last of them.
    operators: usize,
    /// Deepest parenthesis since then.
    inner: usize,
    /// Deepest of the expressions before this one.
    deepest: usize,
}

impl Level {
    fn end_operand(&mut self) {
        self.operand = self.operand.max(self.operators + self.inner);
        (self.operators, self.inner) = (0, 0);
    }

    fn end_expression(&mut self) {
        self.end_operand();
        self.deepest = self.deepest.max(self.logic + self.operand);
        (self.logic, self.operand) = (0, 0);
    }

    fn depth(&self) -> usize {
        let operand = self.operand.max(self.operators + self.inner);
        let expressions = self.deepest.max(self.logic + operand);
        1 + expressions + self.set_operations * SET_OPERATION
    }

    /// What it surely adds to the depth of what stands inside the expression being read.
    fn outside(&self) -> usize {
        1 + self.logic + self.operators + self.set_operations * SET_OPERATION
    }
}

/// Depth up to which a statement is parsed on the caller's stack.
const SHALLOW: usize = 16;

/// Stack for deeper ones: sqlparser takes up to 60 KiB a level without optimisation.
const STACK: usize = 16 << 20;

/// Runs `work`, which recurses as deep as the statement is, on a stack that is large
/// enough. Only what is deep costs a thread.
pub fn with_stack<T: Send>(depth: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    if depth <= SHALLOW {
        return Ok(work());
    }
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("parser".into()).stack_size(STACK);
        let thread = builder
            .spawn_scoped(scope, work)
            .map_err(|error| Error::internal(format!("no thread to parse on: {error}")))?;
        thread.join().map_err(|_| Error::internal("the parser panicked"))
    })
}

/// Refuses a statement whose tree would be too deep to walk; answers how deep it is at
/// most.
pub fn check(tokens: &[TokenWithSpan]) -> Result<usize> {
    let mut reader = Reader::default();
    let mut deepest = 0;
    for token in tokens.iter().filter(|token| is_significant(token)) {
        reader.read(&token.token);
        deepest = deepest.max(reader.outside + reader.level.depth()).max(reader.dots);
        if deepest > DEEPEST || reader.retried > MOST_RETRIED {
            return Err(Error::refused("the statement is nested too deeply")
                .at(Location::of(token.span))
                .with_hint(
                    "write x IN (…) for many values of one column; split long or deep queries with \
                     views or WITH",
                ));
        }
    }
    Ok(deepest)
}

#[derive(Default)]
struct Reader {
    level: Level,
    /// The levels around it.
    around: Vec<Level>,
    /// Sum of what they add.
    outside: usize,
    /// How many of all levels are retried.
    retried: usize,
    /// Periods in the name being read.
    dots: usize,
    /// Whether an operand must follow: a keyword here is a name.
    wants_operand: bool,
    /// Whether the last word makes the level retried that may follow.
    retries: bool,
}

impl Reader {
    fn read(&mut self, token: &Token) {
        let wants_operand = std::mem::take(&mut self.wants_operand);
        let retries = std::mem::take(&mut self.retries);
        if !matches!(token, Token::Period | Token::Word(_)) {
            self.dots = 0;
        }
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                self.open(Level { is_retried: retries, ..Level::default() });
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                while self.level.is_case {
                    self.close();
                }
                self.close();
                // A subscript is an operator too.
                self.level.operators += usize::from(*token == Token::RBracket);
            }
            Token::Comma => self.level.end_expression(),
            Token::Word(_) if is_word(token, "CASE") => {
                self.open(Level { is_case: true, ..Level::default() });
            }
            Token::Word(_) if is_word(token, "END") && self.level.is_case => self.close(),
            Token::Word(_) => self.word(token, wants_operand),
            Token::Period => {
                self.dots += 1;
                self.wants_operand = true;
            }
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::Placeholder(_) => {}
            // All other symbols are operators.
            _ => {
                self.level.operators += 1;
                self.wants_operand = true;
            }
        }
    }

    fn word(&mut self, token: &Token, wants_operand: bool) {
        let any = |words: &[&str]| words.iter().any(|word| is_word(token, word));
        self.retries = any(&RETRIED);
        if any(&LOGIC) {
            self.level.end_operand();
            self.level.logic += 1;
            self.wants_operand = true;
        } else if any(&OPERATORS) {
            self.level.operators += 1;
            self.wants_operand = true;
        } else if any(&SET_OPERATORS) {
            self.level.set_operations += 1;
        } else if any(&CLAUSES) && !wants_operand {
            self.level.end_expression();
        } else {
            // `IS DISTINCT FROM` goes on with the same expression.
            self.wants_operand = is_word(token, "DISTINCT");
        }
    }

    fn open(&mut self, inside: Level) {
        self.outside += self.level.outside();
        self.retried += usize::from(inside.is_retried);
        self.around.push(std::mem::replace(&mut self.level, inside));
    }

    /// One parenthesis too many is a mistake that the parser reports.
    fn close(&mut self) {
        let Some(outer) = self.around.pop() else {
            self.level.is_case = false;
            return;
        };
        self.outside -= outer.outside();
        let inside = std::mem::replace(&mut self.level, outer);
        self.retried -= usize::from(inside.is_retried);
        self.level.inner = self.level.inner.max(inside.depth());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::tokens::tokenize;

    fn is_refused(sql: &str) -> bool {
        check(&tokenize(sql).unwrap()).is_err()
    }

    #[test]
    fn chains_add_up_through_parentheses() {
        let chain = |count: usize| format!("{}1", "1 + ".repeat(count));
        assert!(!is_refused(&format!("SELECT {}", chain(190))));
        assert!(is_refused(&format!("SELECT {}", chain(210))));
        assert!(is_refused(&format!("SELECT ({}) + {}", chain(110), chain(110))));
        assert!(is_refused(&format!("SELECT {} + ({})", chain(110), chain(110))));
        assert!(is_refused(&format!("SELECT a{}", " IS NULL".repeat(210))));
        assert!(is_refused(&format!("SELECT a{}", " IS DISTINCT FROM b".repeat(210))));
        assert!(is_refused(&format!("SELECT {}1", "1 + from + case + ".repeat(210))));
        assert!(is_refused(&"SELECT 1 UNION ALL ".repeat(60)));
        let case = "CASE WHEN a THEN b END + ";
        assert!(is_refused(&format!("SELECT {}1", case.repeat(210))));
    }

    #[test]
    fn what_stands_side_by_side_is_not_deep() {
        assert!(!is_refused(&format!("SELECT {}", "f(a + b, c), ".repeat(5000))));
        assert!(!is_refused(&format!("SELECT a IN ({}1)", "-1, ".repeat(5000))));
        assert!(!is_refused(&format!("VALUES {}(1)", "(-1, 2 * 3), ".repeat(5000))));
        let branches = "WHEN a = 1 THEN -1 ".repeat(5000);
        assert!(!is_refused(&format!("SELECT CASE {branches} ELSE 2 END, 3")));
        assert!(!is_refused(&"SELECT a + b FROM t WHERE c AND d OR e UNION ALL ".repeat(40)));
        assert!(!is_refused(&format!("SELECT a{}", " OR t.a = 1 + 2".repeat(190))));
        assert!(!is_refused(&format!("SELECT 1 FROM t {}", "JOIN u ON a = b AND c ".repeat(500))));
    }
}
