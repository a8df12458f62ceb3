//! Reading a statement word by word.
//!
//! A [`Cursor`] wraps sqlparser's parser over the tokens of one statement. Many
//! of our words (`SOURCE`, `WATERMARK`, `SUBSCRIBE`) are no keywords of
//! sqlparser, so words are compared as text; quoted ones never match.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    DataType, Expr, Ident, ObjectName, Query, Select, SetExpr, Visit, Visitor,
};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::tokens::{EmitClause, is_word, word};
use super::{DEPTH, DIALECT};
use crate::error::{Error, Location, Result, expectation, from_parser};
use crate::statement::{Emit, ObjectKind};

pub struct Cursor {
    parser: Parser<'static>,
    /// One past the last token.
    end: Location,
    /// The `EMIT` clause that stood at the end, until a statement takes it.
    emit: Option<EmitClause>,
}

impl Cursor {
    pub fn new(tokens: Vec<TokenWithSpan>, emit: Option<EmitClause>) -> Self {
        let end =
            tokens.last().map_or((1, 1), |token| (token.span.end.line, token.span.end.column));
        let parser =
            Parser::new(&DIALECT).with_tokens_with_locations(tokens).with_recursion_limit(DEPTH);
        Self { parser, end: Location::point(end.0.max(1), end.1.max(1)), emit }
    }

    /// The statement must end here.
    pub fn finish(mut self) -> Result<()> {
        if *self.peek() != Token::EOF {
            return self.expected("the end of the statement");
        }
        match self.emit.take() {
            Some((_, place)) => Err(Error::refused(
                "EMIT belongs to a continuous query: CREATE MATERIALIZED VIEW, CREATE SINK, INSERT",
            )
            .at(place)
            .with_hint("SELECT answers once; to follow changes, write SUBSCRIBE TO view")),
            None => Ok(()),
        }
    }

    /// The statement's `EMIT` clause.
    pub fn take_emit(&mut self) -> Emit {
        self.emit.take().map(|(emit, _)| emit).unwrap_or_default()
    }

    pub fn peek(&self) -> &Token {
        &self.parser.peek_token_ref().token
    }

    pub fn peek_nth(&self, n: usize) -> &Token {
        &self.parser.peek_nth_token_ref(n).token
    }

    /// The next token's place in the text.
    pub fn span(&self) -> Span {
        self.parser.peek_token_ref().span
    }

    /// As [`Self::span`], for an error; past the last token the end.
    pub fn here(&self) -> Location {
        Location::of(self.span()).unwrap_or(self.end)
    }

    pub fn advance(&mut self) -> TokenWithSpan {
        self.parser.next_token()
    }

    pub fn at_end(&self) -> bool {
        *self.peek() == Token::EOF
    }

    /// The next word in capitals, if it is one and has no quotes.
    pub fn word(&self) -> Option<String> {
        word(self.peek())
    }

    /// Whether these words (in capitals, blanks between) come next.
    pub fn at(&self, words: &str) -> bool {
        words.split(' ').enumerate().all(|(n, word)| is_word(self.peek_nth(n), word))
    }

    /// Takes these words, all or none.
    pub fn eat(&mut self, words: &str) -> bool {
        let there = self.at(words);
        if there {
            words.split(' ').for_each(|_| self.parser.advance_token());
        }
        there
    }

    /// Takes one of these (several words each), and answers which.
    pub fn eat_one<'a>(&mut self, choices: &[&'a str]) -> Option<&'a str> {
        choices.iter().find(|words| self.eat(words)).copied()
    }

    pub fn expect(&mut self, words: &str) -> Result<()> {
        if self.eat(words) { Ok(()) } else { self.expected(words) }
    }

    pub fn eat_token(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    pub fn expect_token(&mut self, token: &Token) -> Result<()> {
        if self.eat_token(token) { Ok(()) } else { self.expected(&token.to_string()) }
    }

    /// The error that something else was expected here.
    pub fn expected<T>(&self, what: &str) -> Result<T> {
        Err(self.unexpected(what))
    }

    pub fn unexpected(&self, what: &str) -> Error {
        let found = self.peek().to_string();
        let error = match self.emit {
            // What was cut off the end is what stands here.
            Some((emit, place)) if self.at_end() => expectation(what, emit.keyword()).or_at(place),
            _ => expectation(what, &found),
        };
        error.or_at(self.here())
    }

    pub fn ident(&mut self) -> Result<Ident> {
        let parsed = self.parser.parse_identifier();
        self.lift(parsed)
    }

    pub fn name(&mut self) -> Result<ObjectName> {
        let parsed = self.parser.parse_object_name(false);
        self.lift(parsed)
    }

    pub fn data_type(&mut self) -> Result<DataType> {
        let parsed = self.parser.parse_data_type();
        self.lift(parsed)
    }

    pub fn expr(&mut self) -> Result<Expr> {
        let parsed = self.parser.parse_expr();
        self.lift(parsed)
    }

    /// A string literal.
    pub fn string(&mut self) -> Result<String> {
        let text = match self.peek() {
            Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text.clone(),
            Token::DollarQuotedString(text) => text.value.clone(),
            _ => return self.expected("a string in single quotes"),
        };
        self.advance();
        Ok(text)
    }

    pub fn at_string(&self) -> bool {
        matches!(
            self.peek(),
            Token::SingleQuotedString(_)
                | Token::EscapedStringLiteral(_)
                | Token::DollarQuotedString(_)
        )
    }

    /// A query that only reads.
    pub fn query(&mut self) -> Result<Box<Query>> {
        let place = self.here();
        let parsed = self.parser.parse_query();
        let query = self.lift(parsed)?;
        match query.visit(&mut Writes) {
            ControlFlow::Break(error) => Err((*error).or_at(place)),
            ControlFlow::Continue(()) => Ok(query),
        }
    }

    /// Whether a query starts here.
    pub fn at_query(&self) -> bool {
        let starts = |token: &Token| {
            ["SELECT", "WITH", "VALUES", "FROM"].iter().any(|word| is_word(token, word))
        };
        let mut n = 0;
        while *self.peek_nth(n) == Token::LParen {
            n += 1;
        }
        starts(self.peek_nth(n))
    }

    /// Names in parentheses.
    pub fn idents(&mut self) -> Result<Vec<Ident>> {
        self.expect_token(&Token::LParen)?;
        let mut names = vec![self.ident()?];
        while self.eat_token(&Token::Comma) {
            names.push(self.ident()?);
        }
        if *self.peek() != Token::RParen {
            return self.expected(", or )");
        }
        self.advance();
        Ok(names)
    }

    pub fn if_exists(&mut self) -> bool {
        self.eat("IF EXISTS")
    }

    /// The kind of object named next, if one is.
    pub fn object_kind(&mut self) -> Option<ObjectKind> {
        ObjectKind::ALL.into_iter().find(|kind| self.eat(kind.keyword()))
    }

    /// An error of sqlparser, with the place of the token that it names.
    fn lift<T>(&self, parsed: Result<T, ParserError>) -> Result<T> {
        parsed.map_err(|error| {
            from_parser(error, |position| {
                Some(match position {
                    Some((0, 0)) => self.end,
                    Some((line, column)) => self.token_at(line, column),
                    None => self.here(),
                })
            })
        })
    }

    /// The whole token that starts here.
    fn token_at(&self, line: u64, column: u64) -> Location {
        (0..)
            .map(|index| self.parser.token_at(index))
            .take_while(|token| token.token != Token::EOF)
            .find(|token| (token.span.start.line, token.span.start.column) == (line, column))
            .and_then(|token| Location::of(token.span))
            .unwrap_or(Location::point(line, column))
    }
}

/// Refuses what sqlparser takes for a query although it writes.
struct Writes;

impl Visitor for Writes {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Box<Error>> {
        let verb = match query.body.as_ref() {
            SetExpr::Insert(_) => "INSERT",
            SetExpr::Update(_) => "UPDATE",
            SetExpr::Delete(_) => "DELETE",
            SetExpr::Merge(_) => "MERGE",
            _ => return ControlFlow::Continue(()),
        };
        ControlFlow::Break(Box::new(
            Error::refused(format!("{verb} can't stand inside a query")).with_hint(
                "write INSERT INTO table WITH … SELECT …; other changes are not supported",
            ),
        ))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Box<Error>> {
        if select.into.is_none() {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(Box::new(
            Error::refused("SELECT INTO is not supported")
                .with_hint("write CREATE TABLE name AS SELECT …"),
        ))
    }
}
