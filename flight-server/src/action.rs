//! Actions beside those of statements: sessions, cancelling, completion.
//!
//! The messages of session management are not in arrow-flight yet, so they are declared
//! here as Flight.proto has them. Their bodies are the bare messages; those of Flight
//! SQL's own actions are wrapped in `Any`.

use std::collections::HashMap;

use arrow_flight::ActionType;
use prost::Message;
use tidemill_sql::session::{CATALOG, SCHEMA};

use crate::error::{Error, Result};
use crate::session::ClientSession;

pub(crate) const CREATE_PREPARED_STATEMENT: &str = "CreatePreparedStatement";
pub(crate) const CLOSE_PREPARED_STATEMENT: &str = "ClosePreparedStatement";
pub(crate) const CANCEL_QUERY: &str = "CancelQuery";
pub(crate) const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
pub(crate) const CLOSE_SESSION: &str = "CloseSession";
pub(crate) const SET_SESSION_OPTIONS: &str = "SetSessionOptions";
pub(crate) const GET_SESSION_OPTIONS: &str = "GetSessionOptions";
/// Our own: the body is the text before the cursor, the result a word a line.
pub(crate) const COMPLETE: &str = "tidemill.Complete";

const ALL: [(&str, &str); 8] = [
    (CREATE_PREPARED_STATEMENT, "Plans a statement that can be executed many times."),
    (CLOSE_PREPARED_STATEMENT, "Forgets a prepared statement."),
    (CANCEL_QUERY, "Cancels a query (deprecated: CancelFlightInfo)."),
    (CANCEL_FLIGHT_INFO, "Cancels the query behind a FlightInfo."),
    (CLOSE_SESSION, "Ends the session: its token and its prepared statements."),
    (SET_SESSION_OPTIONS, "Sets options of the session, as SET does."),
    (GET_SESSION_OPTIONS, "Answers the options that were set."),
    (COMPLETE, "Answers the words that can stand at the end of the body's text, one a line."),
];

pub(crate) fn list() -> Vec<ActionType> {
    let action = |(name, description): (&str, &str)| ActionType {
        r#type: name.to_owned(),
        description: description.to_owned(),
    };
    ALL.into_iter().map(action).collect()
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SetSessionOptionsRequest {
    #[prost(map = "string, message", tag = "1")]
    pub session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub errors: HashMap<String, OptionError>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SessionOptionValue {
    /// None takes the option back.
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    pub value: Option<OptionValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum OptionValue {
    #[prost(string, tag = "1")]
    String(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int64(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    StringList(StringList),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StringList {
    #[prost(string, repeated, tag = "1")]
    pub values: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct OptionError {
    #[prost(enumeration = "OptionErrorValue", tag = "1")]
    pub value: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum OptionErrorValue {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
    Error = 3,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct CloseSessionResult {
    #[prost(enumeration = "CloseSessionStatus", tag = "1")]
    pub status: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum CloseSessionStatus {
    Unspecified = 0,
    Closed = 1,
    Closing = 2,
    NotCloseable = 3,
}

impl From<&str> for SessionOptionValue {
    fn from(text: &str) -> Self {
        Self { value: Some(OptionValue::String(text.to_owned())) }
    }
}

/// Sets the options one by one; those that can't be set are in the answer.
pub(crate) async fn set_options(session: &ClientSession, body: &[u8]) -> Result<Vec<u8>> {
    let request = SetSessionOptionsRequest::decode(body)
        .map_err(|error| Error::request(format!("SetSessionOptions: {error}")))?;
    let mut errors = HashMap::new();
    for (name, value) in request.session_options {
        if let Err(error) = set_option(session, &name, value.value).await {
            errors.insert(name, OptionError { value: error as i32 });
        }
    }
    Ok(SetSessionOptionsResult { errors }.encode_to_vec())
}

async fn set_option(
    session: &ClientSession,
    name: &str,
    value: Option<OptionValue>,
) -> Result<(), OptionErrorValue> {
    let value = match value {
        None => None,
        Some(value) => Some(as_text(value).ok_or(OptionErrorValue::InvalidValue)?),
    };
    // There is one catalog, with one schema: choosing them changes nothing.
    if let Some(only) = fixed(name) {
        let chosen = value.is_none_or(|value| value == only);
        return if chosen { Ok(()) } else { Err(OptionErrorValue::InvalidValue) };
    }
    let sql = statement(name, value.as_deref()).ok_or(OptionErrorValue::InvalidName)?;
    if let Err(error) = session.sql.execute(&sql).await {
        tracing::debug!(%error, option = name, "a session option was refused");
        return Err(OptionErrorValue::InvalidValue);
    }
    let mut options = session.options.lock();
    match value {
        Some(value) => options.insert(name.to_owned(), value),
        None => options.remove(name),
    };
    Ok(())
}

fn fixed(name: &str) -> Option<&'static str> {
    match name {
        "catalog" => Some(CATALOG),
        "schema" => Some(SCHEMA),
        _ => None,
    }
}

/// `SET name = 'value'`, for names that need no quotes.
fn statement(name: &str, value: Option<&str>) -> Option<String> {
    let part = |part: &str| {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        part.chars().all(word) && part.chars().next().is_some_and(|c| !c.is_ascii_digit())
    };
    name.split('.').all(part).then(|| match value {
        Some(value) => format!("SET {name} = '{}'", value.replace('\'', "''")),
        None => format!("RESET {name}"),
    })
}

fn as_text(value: OptionValue) -> Option<String> {
    match value {
        OptionValue::String(text) => Some(text),
        OptionValue::Bool(value) => Some(value.to_string()),
        OptionValue::Int64(value) => Some(value.to_string()),
        OptionValue::Double(value) => Some(value.to_string()),
        OptionValue::StringList(_) => None,
    }
}

pub(crate) fn get_options(session: &ClientSession) -> Vec<u8> {
    let set = session.options.lock();
    let set = set.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
    let fixed = [("catalog", CATALOG), ("schema", SCHEMA)];
    let fixed = fixed.map(|(name, value)| (name.to_owned(), value.into()));
    GetSessionOptionsResult { session_options: set.chain(fixed).collect() }.encode_to_vec()
}

pub(crate) fn closed() -> Vec<u8> {
    CloseSessionResult { status: CloseSessionStatus::Closed as i32 }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_becomes_one_harmless_statement() {
        let sql = statement("datafusion.execution.batch_size", Some("100")).unwrap();
        assert_eq!(sql, "SET datafusion.execution.batch_size = '100'");
        assert_eq!(statement("a", Some("x'; DROP")).unwrap(), "SET a = 'x''; DROP'");
        assert_eq!(statement("a.b", None).unwrap(), "RESET a.b");
        for name in ["", "a b", "a;b", "a..b", "1a", "a=1 --", "\"a\""] {
            assert!(statement(name, Some("1")).is_none(), "{name}");
        }
    }

    #[test]
    fn options_have_the_wire_form_of_flight() {
        let value = SessionOptionValue { value: Some(OptionValue::Int64(1)) };
        assert_eq!(value.encode_to_vec(), [0x19, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(closed(), [0x08, 0x01]);
        assert_eq!(as_text(OptionValue::Bool(true)).as_deref(), Some("true"));
        assert_eq!(as_text(OptionValue::StringList(StringList::default())), None);
    }
}
