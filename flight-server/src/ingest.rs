//! Bulk loads: `CommandStatementIngest`, which is behind ADBC's `adbc_ingest`.
//!
//! The batches stream from the wire into the table's files and make one commit: a load
//! that breaks off leaves nothing behind (a table that was created for it stays, empty).

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tidemill_sql::Done;
use tidemill_sql::session::{CATALOG, SCHEMA};
use tonic::Status;

use crate::error::{Error, Result};
use crate::session::ClientSession;
use crate::wire::{sql_type, wire_schema};

pub(crate) async fn ingest(
    session: Arc<ClientSession>,
    command: CommandStatementIngest,
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<Done> {
    here(&command)?;
    let mut rows =
        FlightRecordBatchStream::new_from_flight_data(messages.map_err(FlightError::from));
    let first: Option<RecordBatch> = rows.next().await.transpose()?;
    let schema = rows.schema().cloned();
    let schema = schema.ok_or_else(|| Error::request("the rows came without their schema"))?;
    if let Some(sql) = definition(&session, &command, &schema)? {
        session.sql.execute(&sql).await?;
    }
    let insert = session.sql.prepare(&insertion(&command.table, &schema)).await?;
    let rows = rows.map_err(|error| DataFusionError::External(Box::new(error)));
    let rows = stream::iter(first.map(Ok)).chain(rows);
    let rows = Box::pin(RecordBatchStreamAdapter::new(schema, rows));
    Ok(session.sql.insert_rows(&insert, rows).await?)
}

/// Refuses tables that are elsewhere.
fn here(command: &CommandStatementIngest) -> Result<()> {
    let is = |given: &Option<String>, ours: &str| given.as_ref().is_none_or(|name| name == ours);
    if !is(&command.catalog, CATALOG) || !is(&command.schema, SCHEMA) {
        return Err(Error::request(format!("tables are in {CATALOG}.{SCHEMA}, and nowhere else")));
    }
    match command.temporary {
        true => Err(Error::Unsupported("a temporary table".to_owned())),
        false => Ok(()),
    }
}

/// The statement that makes the table, where the command asks for it.
fn definition(
    session: &ClientSession,
    command: &CommandStatementIngest,
    schema: &SchemaRef,
) -> Result<Option<String>> {
    let options = command.table_definition_options.unwrap_or_default();
    let relations = session.sql.database().relations();
    let exists = relations.iter().any(|relation| relation.name == command.table);
    let create = |words: &str| Ok(Some(creation(words, &command.table, schema)));
    match exists {
        true => match options.if_exists() {
            TableExistsOption::Append => Ok(None),
            TableExistsOption::Replace => create("CREATE OR REPLACE TABLE"),
            // Says that the table exists already.
            TableExistsOption::Fail | TableExistsOption::Unspecified => create("CREATE TABLE"),
        },
        false => match options.if_not_exist() {
            TableNotExistOption::Create => create("CREATE TABLE"),
            // The INSERT says that there is no such table.
            TableNotExistOption::Fail | TableNotExistOption::Unspecified => Ok(None),
        },
    }
}

fn creation(words: &str, table: &str, schema: &Schema) -> String {
    let columns = wire_schema(schema)
        .fields()
        .iter()
        .map(|field| {
            let null = if field.is_nullable() { "" } else { " NOT NULL" };
            format!("{} {}{null}", quoted(field.name()), stored_type(field.data_type()))
        })
        .collect::<Vec<_>>();
    format!("{words} {} ({})", quoted(table), columns.join(", "))
}

/// The type of a table's column that holds such values: a lake has no unsigned ones.
fn stored_type(of: &DataType) -> String {
    match of {
        DataType::UInt8 => "SMALLINT".to_owned(),
        DataType::UInt16 => "INTEGER".to_owned(),
        DataType::UInt32 => "BIGINT".to_owned(),
        DataType::UInt64 => "DECIMAL(20,0)".to_owned(),
        other => sql_type(other),
    }
}

fn insertion(table: &str, schema: &Schema) -> String {
    let names: Vec<String> = schema.fields().iter().map(|field| quoted(field.name())).collect();
    let values: Vec<String> = (1..=names.len()).map(|n| format!("${n}")).collect();
    format!("INSERT INTO {} ({}) VALUES ({})", quoted(table), names.join(", "), values.join(", "))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn a_table_is_made_for_the_columns_that_come() {
        let schema = Schema::new(vec![
            Field::new("id", DataType::UInt32, false),
            Field::new("the \"name\"", DataType::LargeUtf8, true),
            Field::new("price", DataType::Decimal128(12, 2), true),
        ]);
        assert_eq!(
            creation("CREATE TABLE", "a b", &schema),
            "CREATE TABLE \"a b\" (\"id\" BIGINT NOT NULL, \"the \"\"name\"\"\" VARCHAR, \
             \"price\" DECIMAL(12,2))"
        );
        assert_eq!(
            insertion("t", &schema),
            "INSERT INTO \"t\" (\"id\", \"the \"\"name\"\"\", \"price\") VALUES ($1, $2, $3)"
        );
    }

    #[test]
    fn other_catalogs_and_temporary_tables_are_refused() {
        let command = |catalog: &str, temporary| CommandStatementIngest {
            catalog: Some(catalog.to_owned()),
            temporary,
            ..CommandStatementIngest::default()
        };
        assert!(here(&command(CATALOG, false)).is_ok());
        assert!(here(&command("elsewhere", false)).is_err());
        assert!(here(&command(CATALOG, true)).is_err());
    }
}
