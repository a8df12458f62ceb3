//! `WITH (name = value, …)`.

use datafusion::sql::sqlparser::tokenizer::{Span, Token};

use super::cursor::Cursor;
use crate::error::Result;
use crate::options::{OptionEntry, OptionValue, Options};

const QUOTE_IT: &str = "text that is no single word goes in single quotes: name = 'value'";

impl Cursor {
    /// `WITH (…)`, or nothing.
    pub fn with_options(&mut self) -> Result<Options> {
        let mut options = Options::default();
        // `WITH name AS` starts a query.
        if !self.at("WITH") || *self.peek_nth(1) != Token::LParen {
            return Ok(options);
        }
        self.advance();
        self.advance();
        if self.eat_token(&Token::RParen) {
            return Ok(options);
        }
        loop {
            options.push(self.option()?);
            if self.eat_token(&Token::RParen) {
                return Ok(options);
            }
            if !self.eat_token(&Token::Comma) {
                let error = self.unexpected(", or )");
                return Err(if self.at_end() { error } else { error.with_hint(QUOTE_IT) });
            }
        }
    }

    fn option(&mut self) -> Result<OptionEntry> {
        let start = self.span();
        let (name, name_span) = self.option_name(start)?;
        if !self.eat_token(&Token::Eq) {
            return Err(self.unexpected("=").with_hint("an option is written name = 'value'"));
        }
        let start = self.span();
        let (value, end) = self.option_value()?;
        Ok(OptionEntry { name, value, name_span, value_span: start.union(&end) })
    }

    /// `word`, `several.words`, `'any.text'`.
    fn option_name(&mut self, start: Span) -> Result<(String, Span)> {
        if self.at_string() {
            return Ok((self.string()?, start));
        }
        let (mut name, mut span) = (String::new(), start);
        loop {
            let Token::Word(word) = self.peek() else {
                return self.expected("the name of an option");
            };
            match word.quote_style {
                None => name.push_str(&word.value.to_lowercase()),
                Some(_) => name.push_str(&word.value),
            }
            span = span.union(&self.advance().span);
            if !self.eat_token(&Token::Period) {
                return Ok((name, span));
            }
            name.push('.');
        }
    }

    /// A string, a number, true or false, or a single word; and the place of its end.
    pub fn option_value(&mut self) -> Result<(OptionValue, Span)> {
        if self.at_string() {
            let span = self.span();
            return Ok((OptionValue::String(self.string()?), span));
        }
        let value = match self.peek().clone() {
            Token::Number(number, _) => OptionValue::Number(number),
            Token::Minus | Token::Plus => return self.signed(),
            Token::Word(word) if word.quote_style.is_none() => {
                match word.value.to_ascii_lowercase().as_str() {
                    "true" => OptionValue::Boolean(true),
                    "false" => OptionValue::Boolean(false),
                    "interval" => {
                        return Err(self
                            .unexpected("a value")
                            .with_hint("a duration is written '1 second', without INTERVAL"));
                    }
                    _ => OptionValue::String(word.value),
                }
            }
            _ => return Err(self.unexpected("a value").with_hint(QUOTE_IT)),
        };
        Ok((value, self.advance().span))
    }

    fn signed(&mut self) -> Result<(OptionValue, Span)> {
        let minus = self.advance().token == Token::Minus;
        match self.peek().clone() {
            Token::Number(number, _) => {
                let sign = if minus { "-" } else { "" };
                Ok((OptionValue::Number(format!("{sign}{number}")), self.advance().span))
            }
            _ => self.expected("a number"),
        }
    }
}
