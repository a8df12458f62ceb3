//! Errors of DataFusion, cleaned up.
//!
//! DataFusion wraps an error in layers (context, diagnostics, sharing) and
//! prefixes ("Error during planning: "). Here the layers come off: the message
//! that a person needs stays, a diagnostic's span becomes the location, its
//! help the hint, and an error of ours that travelled through a DataFusion
//! stream comes out as itself.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::error::ArrowError;
use datafusion::common::{Column, Diagnostic, SchemaError};
use datafusion::error::DataFusionError;
use tidemill_engine::Kind;

use super::syntax::uncapitalized;
use super::{Cause, Error, Location, from_parser, nearest};

impl From<tidemill_engine::Error> for Error {
    fn from(error: tidemill_engine::Error) -> Self {
        match error {
            tidemill_engine::Error::DataFusion(inner) => Error::from(*inner),
            own => Cause::Engine(own).into(),
        }
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::ExternalError(inner) => from_generic(inner),
            other => reported(other.to_string(), Kind::User),
        }
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::Context(_, inner) => Error::from(*inner),
            DataFusionError::Diagnostic(diagnostic, inner) => {
                diagnosed(Error::from(*inner), &diagnostic)
            }
            DataFusionError::Collection(errors) => match errors.into_iter().next() {
                Some(first) => Error::from(first),
                None => Error::internal("an empty collection of errors"),
            },
            DataFusionError::Shared(shared) => match Arc::try_unwrap(shared) {
                Ok(own) => Error::from(own),
                Err(shared) => from_shared(&shared),
            },
            DataFusionError::External(inner) => from_generic(inner),
            DataFusionError::ArrowError(inner, _) => Error::from(*inner),
            DataFusionError::SQL(inner, _) => from_parser(*inner, |position| {
                position.map(|(line, column)| Location::point(line, column))
            }),
            DataFusionError::SchemaError(inner, _) => from_schema(&inner),
            other => from_leaf(&other),
        }
    }
}

/// What DataFusion boxes errors of others in.
type GenericError = Box<dyn std::error::Error + Send + Sync>;

/// What came through an opaque box: ours, the engine's, DataFusion's, or foreign.
fn from_generic(error: GenericError) -> Error {
    let error = match error.downcast::<Error>() {
        Ok(own) => return *own,
        Err(error) => error,
    };
    let error = match error.downcast::<tidemill_engine::Error>() {
        Ok(engine) => return Error::from(*engine),
        Err(error) => error,
    };
    let error = match error.downcast::<DataFusionError>() {
        Ok(inner) => return Error::from(*inner),
        Err(error) => error,
    };
    match error.downcast::<ArrowError>() {
        Ok(inner) => Error::from(*inner),
        Err(foreign) => reported(foreign.to_string(), Kind::External),
    }
}

/// An error that other consumers hold too can't be taken apart, only read.
fn from_shared(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::Context(_, inner) => from_shared(inner),
        DataFusionError::Shared(inner) => from_shared(inner),
        DataFusionError::Diagnostic(diagnostic, inner) => diagnosed(from_shared(inner), diagnostic),
        DataFusionError::SchemaError(inner, _) => from_schema(inner),
        DataFusionError::External(inner) => {
            if let Some(own) = inner.downcast_ref::<Error>() {
                return own.clone();
            }
            match inner.downcast_ref::<tidemill_engine::Error>() {
                Some(engine) => from_shared_engine(engine),
                None => reported(inner.to_string(), Kind::External),
            }
        }
        leaf => from_leaf(leaf),
    }
}

fn from_shared_engine(error: &tidemill_engine::Error) -> Error {
    if let tidemill_engine::Error::DataFusion(inner) = error {
        return from_shared(inner);
    }
    let (kind, retryable) = (error.kind(), error.retryable());
    let own = Error::from(Cause::DataFusion { message: error.to_string(), kind, retryable });
    match error.hint() {
        Some(hint) => own.with_hint(hint),
        None => own,
    }
}

/// An error with nothing inside: its message without DataFusion's prefixes.
fn from_leaf(error: &DataFusionError) -> Error {
    let error = match error {
        DataFusionError::Plan(text) if text.starts_with(TWICE) => {
            return twice(text.split('"').nth(1).unwrap_or_default());
        }
        DataFusionError::Plan(text) if text.starts_with(MANY) => {
            return reported(text.clone(), Kind::User)
                .with_hint("aggregate what it selects: max(x) of one row is x");
        }
        DataFusionError::Plan(text)
        | DataFusionError::Execution(text)
        | DataFusionError::Configuration(text)
        | DataFusionError::Substrait(text) => reported(text.clone(), Kind::User),
        DataFusionError::NotImplemented(text) if is_left_subquery(text) => {
            return Error::refused("no join can be made of this subquery").with_hint(
                "outside of WHERE it may compare with the row beside it by =, and aggregate \
                 (max(x), count(*)); or write a join",
            );
        }
        DataFusionError::NotImplemented(text) => {
            return Error::refused(cleaned(text));
        }
        DataFusionError::ResourcesExhausted(text) => {
            return reported(text.clone(), Kind::External).with_hint(
                "give the query more memory, or let it read less (a filter, fewer columns)",
            );
        }
        DataFusionError::IoError(inner) => outside(inner.to_string()),
        DataFusionError::ObjectStore(inner) => outside(inner.to_string()),
        DataFusionError::ParquetError(inner) => reported(inner.to_string(), Kind::External),
        DataFusionError::Internal(text) => return Error::internal(cleaned(text)),
        other => reported(other.strip_backtrace(), Kind::Internal),
    };
    with_question_as_hint(with_signatures_as_hint(error))
}

fn from_schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let own = Error::name(format!("column {} does not exist", field.quoted_flat_name()));
            let own = own.at(field.spans.first().and_then(Location::of_plan));
            match column_hint(field, valid_fields) {
                Some(hint) => own.with_hint(hint),
                None => own,
            }
        }
        // Not what somebody wrote, but `a.x` and `x` beside each other.
        SchemaError::AmbiguousReference { field } if field.relation.is_some() => twice(&field.name),
        SchemaError::AmbiguousReference { field } => {
            let own = Error::name(format!("column {} is ambiguous", field.quoted_flat_name()));
            own.at(field.spans.first().and_then(Location::of_plan))
                .with_hint("put the table's name or alias before it: t.column")
        }
        SchemaError::DuplicateUnqualifiedField { name } => twice(name),
        SchemaError::DuplicateQualifiedField { qualifier, .. } => {
            Error::name(format!("the table \"{}\" stands here twice", qualifier.table()))
                .with_hint("give one of them another name with AS")
        }
    }
}

/// Whether it says that a subquery is left where all that could be have become joins.
fn is_left_subquery(text: &str) -> bool {
    let left = text.strip_prefix("Physical plan does not support logical expression ");
    let kinds = ["ScalarSubquery", "Exists", "InSubquery", "SetComparison", "OuterReferenceColumn"];
    left.is_some_and(|left| kinds.iter().any(|kind| left.starts_with(kind)))
}

/// How DataFusion says that two columns of a `SELECT` have one name.
const TWICE: &str = "Projections require unique expression names";

/// How DataFusion says that a subquery beside a row could answer more than one.
const MANY: &str = "Correlated scalar subquery must be aggregated";

fn twice(name: &str) -> Error {
    Error::name(format!("there are two columns \"{name}\"")).with_hint("rename one with AS")
}

/// The columns that there are, if they are few; else the nearest of them.
fn column_hint(field: &Column, valid: &[Column]) -> Option<String> {
    // ORDER BY sees some of them twice.
    let mut seen = HashSet::new();
    let valid: Vec<&Column> = valid.iter().filter(|column| seen.insert(*column)).collect();
    let names: Vec<String> = valid.iter().map(|column| column.quoted_flat_name()).collect();
    if let Some(other) = valid.iter().find(|v| v.name.eq_ignore_ascii_case(&field.name)) {
        let name = other.quoted_flat_name();
        return Some(format!("did you mean {name}? Names that aren't lower case need quotes"));
    }
    let near = nearest(&field.name, valid.iter().map(|column| column.name.as_str()));
    match near.and_then(|near| valid.iter().position(|column| column.name == near)) {
        Some(index) => Some(format!("did you mean {}?", names[index])),
        None if names.is_empty() => None,
        None if names.len() <= 12 => Some(format!("there are {}", names.join(", "))),
        None => None,
    }
}

/// Adds what a diagnostic knows: a better message, the place, notes.
fn diagnosed(error: Error, diagnostic: &Diagnostic) -> Error {
    let location = diagnostic.span.and_then(Location::of_plan);
    let own = match error.cause() {
        Cause::DataFusion { kind, .. } => reported(diagnostic.message.clone(), *kind),
        _ => error.clone(),
    };
    let own = own.at(error.location()).at(location);
    let said = diagnostic.helps.iter().map(|help| &help.message);
    let notes: Vec<&str> = diagnostic.notes.iter().map(|note| note.message.as_str()).collect();
    let notes = (!notes.is_empty()).then(|| notes.join(", "));
    match error.hint().or_else(|| said.into_iter().next().cloned()).or(notes) {
        Some(hint) => own.with_hint(hint),
        None => own,
    }
}

fn outside(message: String) -> Error {
    Cause::DataFusion { message: cleaned(&message), kind: Kind::External, retryable: true }.into()
}

fn reported(message: String, kind: Kind) -> Error {
    Cause::DataFusion { message: cleaned(&message), kind, retryable: false }.into()
}

/// Prefixes that say which layer reported it, which is nothing to a person.
const PREFIXES: [&str; 12] = [
    "Internal error: ",
    "DataFusion error: ",
    "Error during planning: ",
    "Execution error: ",
    "External error: ",
    "Arrow error: ",
    "Parquet error: ",
    "Schema error: ",
    "SQL error: ",
    "Optimizer rule 'type_coercion' failed",
    "This feature is not implemented: ",
    "Invalid or Unsupported Configuration: ",
];

fn cleaned(message: &str) -> String {
    let message = message.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or(message);
    let message =
        message.split("\nThis issue was likely caused by a bug").next().unwrap_or(message);
    let mut rest = message.trim();
    while let Some(inner) = PREFIXES.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = inner.trim_start_matches("caused by").trim_start();
    }
    uncapitalized(rest.trim_end_matches(['.', '\n']))
}

/// "Function 'sum' failed to match any signature, errors: …" lists what each signature
/// wanted; told in one line it is a hint.
fn with_signatures_as_hint(error: Error) -> Error {
    let Cause::DataFusion { message, .. } = error.cause() else { return error };
    let Some((before, errors)) = message.split_once(", errors: ") else { return error };
    let pairs =
        || errors.split(" requires ").skip(1).filter_map(|e| e.split_once(", but received "));
    let wanted: Vec<&str> = pairs().map(|(wanted, _)| wanted).collect();
    let received = pairs().next().map(|(_, rest)| rest.split(['(', '.']).next().unwrap_or(rest));
    let own = Error::types(before);
    match received {
        Some(received) => own.with_hint(format!(
            "it takes {}, not {}: CAST the argument",
            wanted.join(", "),
            received.trim()
        )),
        None => own,
    }
}

/// `…. Did you mean 'x'?` at the end of a message is a hint.
fn with_question_as_hint(error: Error) -> Error {
    let Cause::DataFusion { message, kind, retryable } = error.cause() else { return error };
    let Some((before, question)) = message.split_once("Did you mean ") else { return error };
    let message = before.trim_end().trim_end_matches(['.', ',', ';']).to_owned();
    let hint = format!("did you mean {question}");
    Error::from(Cause::DataFusion { message, kind: *kind, retryable: *retryable }).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{SessionConfig, SessionContext};

    async fn failure(sql: &str) -> Error {
        let config = SessionConfig::new().set_bool("datafusion.sql_parser.collect_spans", true);
        let context = SessionContext::new_with_config(config);
        context.sql("CREATE TABLE t (id BIGINT, \"Total\" INT)").await.unwrap();
        match context.sql(sql).await {
            Err(error) => error.into(),
            Ok(frame) => frame.collect().await.unwrap_err().into(),
        }
    }

    #[tokio::test]
    async fn a_missing_column_names_the_nearest() {
        let error = failure("SELECT idd FROM t").await;
        insta::assert_snapshot!(error.render("SELECT idd FROM t"), @"
        error: column idd does not exist
          --> line 1, column 8
           |
         1 | SELECT idd FROM t
           |        ^^^
           hint: did you mean t.id?
        ");
        let error = failure("SELECT total FROM t").await;
        insta::assert_snapshot!(error, @r#"column total does not exist (line 1, column 8); hint: did you mean t."Total"? Names that aren't lower case need quotes"#);
        let error = failure("SELECT xyzzy FROM t").await;
        insta::assert_snapshot!(error, @r#"column xyzzy does not exist (line 1, column 8); hint: there are t.id, t."Total""#);
    }

    #[tokio::test]
    async fn planning_errors_lose_their_prefixes() {
        insta::assert_snapshot!(failure("SELECT * FROM nowhere").await, @"table 'nowhere' not found (line 1, column 15)");
        insta::assert_snapshot!(failure("SELECT cuont(id) FROM t").await, @"invalid function 'cuont' (line 1, column 8); hint: did you mean 'cot'?");
        insta::assert_snapshot!(failure("SELECT sum(DATE '2024-01-01') FROM t").await, @"function 'sum' failed to match any signature; hint: it takes Decimal, UInt64, Int64, Float64, Duration, Interval, not Date: CAST the argument");
        insta::assert_snapshot!(failure("SELECT 1 / 0").await, @"divide by zero error");
        insta::assert_snapshot!(failure("SELECT CAST('x' AS INT)").await, @"cast error: Cannot cast string 'x' to value of Int32 type");
    }

    #[test]
    fn our_own_errors_come_out_as_they_went_in() {
        let own = Error::refused("no").at(Location::point(1, 2)).with_hint("do");
        let wrapped = DataFusionError::from(own.clone()).context("somewhere");
        assert_eq!(Error::from(wrapped).to_string(), own.to_string());
        let shared = Arc::new(DataFusionError::from(own.clone()));
        let held = Arc::clone(&shared);
        assert_eq!(Error::from(DataFusionError::Shared(held)).to_string(), own.to_string());
    }

    #[test]
    fn engine_errors_keep_their_hint_and_kind() {
        let engine = tidemill_engine::Error::invalid_hint("no", "do");
        let error = Error::from(DataFusionError::from(engine));
        assert_eq!(error.to_string(), "no; hint: do");
        assert_eq!(error.kind(), Kind::User);
    }
}
