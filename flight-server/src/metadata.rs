//! The metadata commands: which catalogs, schemas, tables, types there are.
//!
//! Each answers one batch. GetFlightInfo sends its schema and the command itself as the
//! ticket, DoGet the batch.

mod sql_info;
mod tables;
mod types;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::sql::Command;
use tidemill_sql::session::Relation;

use crate::error::{Error, Result};

pub(crate) use tables::kind_of;

/// The answer to a metadata command.
///
/// Schemas are those of FlightSql.proto. There are no keys to tell of: the answers about
/// primary and foreign keys are empty.
pub(crate) fn answer(
    command: Command,
    relations: impl Fn() -> Vec<Relation>,
) -> Result<RecordBatch> {
    match command {
        Command::CommandGetCatalogs(_) => tables::catalogs(&relations()),
        Command::CommandGetDbSchemas(command) => tables::schemas(command, &relations()),
        Command::CommandGetTables(command) => tables::tables(&command, &relations()),
        Command::CommandGetTableTypes(_) => tables::table_types(),
        Command::CommandGetSqlInfo(command) => sql_info::sql_info(command),
        Command::CommandGetXdbcTypeInfo(command) => types::type_info(command),
        Command::CommandGetPrimaryKeys(_) => Ok(RecordBatch::new_empty(Arc::new(primary_keys()))),
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => {
            Ok(RecordBatch::new_empty(Arc::new(foreign_keys())))
        }
        other => Err(Error::Unsupported(format!("the command {}", other.type_url()))),
    }
}

fn text(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Utf8, nullable)
}

fn primary_keys() -> Schema {
    Schema::new(vec![
        text("catalog_name", true),
        text("db_schema_name", true),
        text("table_name", false),
        text("column_name", false),
        text("key_name", true),
        Field::new("key_sequence", DataType::Int32, false),
    ])
}

fn foreign_keys() -> Schema {
    Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ])
}
