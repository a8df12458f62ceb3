//! Every statement by its first word, and those that create nothing.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::refuse;
use crate::error::{Error, Result};
use crate::options::OptionValue;
use crate::statement::{
    Alter, AlterAction, AsOf, Describe, DropObjects, Explain, ExplainMode, ObjectKind, Set, Show,
    ShowCreate, ShowWhat, Statement, Subscribe, Target, Transaction,
};

/// What `SHOW` lists, for whoever mistyped one.
pub const SHOWN: [&str; 11] = [
    "SOURCES",
    "TABLES",
    "VIEWS",
    "MATERIALIZED VIEWS",
    "SINKS",
    "QUERIES",
    "SCHEMAS",
    "FUNCTIONS",
    "COLUMNS FROM",
    "CREATE",
    "ALL",
];

impl Cursor {
    /// A statement, up to where it ends.
    pub fn statement(&mut self) -> Result<Statement> {
        if self.at_query() {
            return Ok(Statement::Query(self.query()?));
        }
        let first = self.word().unwrap_or_default();
        let place = self.here();
        if !refuse::VERBS.contains(&first.as_str()) {
            return Err(refuse::statement(self));
        }
        self.advance();
        match first.as_str() {
            "CREATE" => self.create(),
            "INSERT" => self.insert(),
            "SUBSCRIBE" => self.subscribe(),
            "SHOW" => self.show(),
            "DESCRIBE" | "DESC" => self.describe(),
            "EXPLAIN" => self.explain(),
            "ALTER" => self.alter(),
            "DROP" => self.drop_objects(),
            "SET" => self.set(),
            "RESET" if self.eat("ALL") => Ok(Statement::Reset(None)),
            "RESET" => Ok(Statement::Reset(Some(self.setting_name()?))),
            "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" => self.transaction(&first),
            "DISCARD" | "DEALLOCATE" | "CLOSE" | "UNLISTEN" => self.discard(&first),
            _ => Err(Error::internal(format!("no parser for {first}")).at(place)),
        }
    }

    fn subscribe(&mut self) -> Result<Statement> {
        self.eat("TO");
        let target = self.target()?;
        let as_of = if self.eat("AS OF") { Some(self.as_of()?) } else { None };
        Ok(Statement::Subscribe(Subscribe { target, as_of }))
    }

    /// A query, in parentheses or not, or a name, after the kind of object or not.
    fn target(&mut self) -> Result<Target> {
        if self.at_query() {
            let parenthesis = self.eat_token(&Token::LParen);
            let query = self.query()?;
            if parenthesis {
                self.expect_token(&Token::RParen)?;
            }
            return Ok(Target::Query(query));
        }
        // `DESCRIBE table` may mean a relation of that name.
        if matches!(self.peek_nth(1), Token::Word(_)) && !self.is_kind_with_clause() {
            self.object_kind();
        }
        Ok(Target::Relation(self.name()?))
    }

    /// `SUBSCRIBE TO source AS OF 3`: a relation named like a kind, then a clause.
    fn is_kind_with_clause(&self) -> bool {
        super::tokens::is_word(self.peek_nth(1), "AS")
    }

    fn as_of(&mut self) -> Result<AsOf> {
        if let Token::Number(number, _) = self.peek()
            && let Ok(version) = number.parse()
        {
            self.advance();
            return Ok(AsOf::Version(version));
        }
        self.eat("TIMESTAMP");
        match self.at_string() {
            true => Ok(AsOf::Timestamp(self.string()?)),
            false => self.expected("a version number or a timestamp in single quotes"),
        }
    }

    fn show(&mut self) -> Result<Statement> {
        if self.eat("CREATE") {
            let kind = match self.object_kind() {
                Some(kind) => kind,
                None => return self.expected(refuse::KINDS),
            };
            return Ok(Statement::ShowCreate(ShowCreate { kind, name: self.name()? }));
        }
        let what = self.show_what()?;
        let is_list = !matches!(what, ShowWhat::Setting(_));
        let has_schema = is_list && what != ShowWhat::All;
        let from = match has_schema && self.eat_one(&["FROM", "IN"]).is_some() {
            true => Some(self.name()?),
            false => None,
        };
        let like = if is_list && self.eat("LIKE") { Some(self.string()?) } else { None };
        Ok(Statement::Show(Show { what, from, like }))
    }

    fn show_what(&mut self) -> Result<ShowWhat> {
        let lists = [
            ("SOURCES", ShowWhat::Sources),
            ("TABLES", ShowWhat::Tables),
            ("VIEWS", ShowWhat::Views),
            ("MATERIALIZED VIEWS", ShowWhat::MaterializedViews),
            ("SINKS", ShowWhat::Sinks),
            ("QUERIES", ShowWhat::Queries),
            ("JOBS", ShowWhat::Queries),
            ("SCHEMAS", ShowWhat::Schemas),
            ("DATABASES", ShowWhat::Schemas),
            ("FUNCTIONS", ShowWhat::Functions),
            ("ALL", ShowWhat::All),
        ];
        if let Some((_, what)) = lists.into_iter().find(|(words, _)| self.eat(words)) {
            return Ok(what);
        }
        if self.eat("COLUMNS") {
            if self.eat_one(&["FROM", "IN"]).is_none() {
                return self.expected("FROM");
            }
            return Ok(ShowWhat::Columns(self.name()?));
        }
        Ok(ShowWhat::Setting(self.setting_name()?))
    }

    /// The name of a setting; some have a spelling of several words.
    fn setting_name(&mut self) -> Result<ObjectName> {
        let spelled = [
            ("TIME ZONE", "timezone"),
            ("TRANSACTION ISOLATION LEVEL", "transaction_isolation"),
            ("SESSION AUTHORIZATION", "session_authorization"),
        ];
        match spelled.iter().find(|(words, _)| self.eat(words)) {
            Some((_, name)) => Ok(ObjectName::from(vec![Ident::new(*name)])),
            None => self.name(),
        }
    }

    fn describe(&mut self) -> Result<Statement> {
        Ok(Statement::Describe(Describe { target: self.target()? }))
    }

    fn explain(&mut self) -> Result<Statement> {
        let mut explain = Explain {
            mode: ExplainMode::Plan,
            verbose: false,
            format: None,
            statement: Box::new(Statement::Discard),
        };
        if *self.peek() == Token::LParen && !self.at_query() {
            self.advance();
            while !self.eat_token(&Token::RParen) {
                if !self.explain_option(&mut explain)? {
                    return self.expected("ANALYZE, INCREMENTAL, VERBOSE or FORMAT");
                }
                self.eat_token(&Token::Comma);
            }
        } else {
            while self.explain_option(&mut explain)? {}
        }
        let place = self.here();
        if self.at("EXPLAIN") {
            return Err(Error::syntax("EXPLAIN can't explain itself").at(place));
        }
        *explain.statement = self.statement()?;
        match *explain.statement {
            Statement::Query(_)
            | Statement::Insert(_)
            | Statement::CreateView(_)
            | Statement::CreateMaterializedView(_)
            | Statement::CreateSink(_) => Ok(Statement::Explain(explain)),
            Statement::CreateTable(ref table) if table.query.is_some() => {
                Ok(Statement::Explain(explain))
            }
            ref other => Err(Error::refused(format!("there is no plan for {}", other.tag()))
                .at(place)
                .with_hint("EXPLAIN takes a query, or a statement that holds one")),
        }
    }

    /// One word between `EXPLAIN` and the statement; false if there is none.
    fn explain_option(&mut self, explain: &mut Explain) -> Result<bool> {
        let place = self.here();
        let mode = match self.eat_one(&["ANALYZE", "INCREMENTAL", "VERBOSE", "FORMAT"]) {
            Some("ANALYZE") => ExplainMode::Analyze,
            Some("INCREMENTAL") => ExplainMode::Incremental,
            Some("VERBOSE") => {
                explain.verbose = true;
                return Ok(true);
            }
            Some(_) => {
                explain.format = Some(match self.peek() {
                    Token::Word(_) => self.ident()?.value,
                    _ => self.string()?,
                });
                return Ok(true);
            }
            None => return Ok(false),
        };
        if explain.mode != ExplainMode::Plan && explain.mode != mode {
            return Err(Error::syntax("ANALYZE and INCREMENTAL exclude each other").at(place));
        }
        explain.mode = mode;
        Ok(true)
    }

    fn alter(&mut self) -> Result<Statement> {
        let place = self.here();
        let Some(kind) = self.object_kind() else {
            return self.expected("MATERIALIZED VIEW, SINK or QUERY");
        };
        let if_exists = self.if_exists();
        let name = self.name()?;
        let action = match self.eat_one(&["PAUSE", "RESUME"]) {
            Some("PAUSE") => AlterAction::Pause,
            Some(_) => AlterAction::Resume,
            None => return Err(refuse::alter(self, kind)),
        };
        if matches!(kind, ObjectKind::Source | ObjectKind::Table | ObjectKind::View) {
            return Err(Error::refused(format!("a {kind} does not run, so it can't be paused"))
                .at(place)
                .with_hint("pause the materialized views, sinks or queries that read it"));
        }
        Ok(Statement::Alter(Alter { kind, if_exists, name, action }))
    }

    fn drop_objects(&mut self) -> Result<Statement> {
        let Some(kind) = self.object_kind() else {
            return self.expected(refuse::KINDS);
        };
        let if_exists = self.if_exists();
        let mut names = vec![self.name()?];
        while self.eat_token(&Token::Comma) {
            names.push(self.name()?);
        }
        let cascade = self.eat_one(&["CASCADE", "RESTRICT"]) == Some("CASCADE");
        Ok(Statement::Drop(DropObjects { kind, if_exists, names, cascade }))
    }

    fn set(&mut self) -> Result<Statement> {
        if self.eat_one(&["TRANSACTION", "SESSION CHARACTERISTICS AS TRANSACTION"]).is_some() {
            self.transaction_modes()?;
            return Ok(Statement::Transaction(Transaction::Characteristics));
        }
        let is_scope =
            matches!(self.peek_nth(1), Token::Word(_)) && !self.at("SESSION AUTHORIZATION");
        if is_scope && !super::tokens::is_word(self.peek_nth(1), "TO") {
            self.eat_one(&["SESSION", "LOCAL"]);
        }
        if self.eat("NAMES") {
            return self.set_values(ObjectName::from(vec![Ident::new("client_encoding")]));
        }
        // These have no equals sign.
        let bare = self.at("TIME ZONE") || self.at("SESSION AUTHORIZATION");
        let name = self.setting_name()?;
        if !self.eat_token(&Token::Eq) && !self.eat("TO") && !bare {
            return self.expected("= or TO");
        }
        self.set_values(name)
    }

    fn set_values(&mut self, name: ObjectName) -> Result<Statement> {
        if self.eat("DEFAULT") {
            return Ok(Statement::Reset(Some(name)));
        }
        let mut values = vec![self.setting_value()?];
        while self.eat_token(&Token::Comma) {
            values.push(self.setting_value()?);
        }
        Ok(Statement::Set(Set { name, values }))
    }

    /// As an option's value, and names in quotes (`SET search_path = "Mine"`).
    fn setting_value(&mut self) -> Result<OptionValue> {
        if let Token::Word(word) = self.peek()
            && word.quote_style.is_some()
        {
            let text = word.value.clone();
            self.advance();
            return Ok(OptionValue::String(text));
        }
        Ok(self.option_value()?.0)
    }

    fn transaction(&mut self, verb: &str) -> Result<Statement> {
        self.eat_one(&["TRANSACTION", "WORK"]);
        let transaction = match verb {
            "BEGIN" | "START" => {
                self.transaction_modes()?;
                Transaction::Begin
            }
            "COMMIT" | "END" => Transaction::Commit,
            _ if self.at("TO") => return Err(refuse::savepoint(self.here())),
            _ => Transaction::Rollback,
        };
        self.eat_one(&["AND NO CHAIN", "AND CHAIN"]);
        Ok(Statement::Transaction(transaction))
    }

    /// `DISCARD ALL`, `DEALLOCATE ALL`, `CLOSE ALL`, `UNLISTEN *`.
    fn discard(&mut self, verb: &str) -> Result<Statement> {
        self.eat("PREPARE");
        let all = self.eat_one(&["ALL", "PLANS", "SEQUENCES", "TEMPORARY", "TEMP"]).is_some();
        if all || self.eat_token(&Token::Mul) {
            return Ok(Statement::Discard);
        }
        Err(Error::refused(format!("{verb} of a single name is not supported"))
            .at(self.here())
            .with_hint("prepared statements and cursors belong to the client's protocol"))
    }

    fn transaction_modes(&mut self) -> Result<()> {
        let modes = [
            "READ ONLY",
            "READ WRITE",
            "NOT DEFERRABLE",
            "DEFERRABLE",
            "ISOLATION LEVEL SERIALIZABLE",
            "ISOLATION LEVEL REPEATABLE READ",
            "ISOLATION LEVEL READ COMMITTED",
            "ISOLATION LEVEL READ UNCOMMITTED",
        ];
        while self.eat_one(&modes).is_some() {
            self.eat_token(&Token::Comma);
        }
        Ok(())
    }
}
