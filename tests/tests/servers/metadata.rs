//! What tools list: catalogs, schemas, tables, types, what the server can do.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, UInt32Type};
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo, SqlInfo,
};
use arrow_flight::{FlightInfo, IpcMessage};
use tidemill_sql::session::RelationKind;
use tidemill_tests::flight::{FlightClient, Result, Server, read};

const OBJECTS: [&str; 4] = [
    "CREATE TABLE a1b (other BIGINT)",
    "CREATE TABLE a_b (wanted BIGINT NOT NULL, at TIMESTAMP)",
    "CREATE VIEW a_view AS SELECT wanted FROM a_b",
    "INSERT INTO a_b VALUES (1, NULL)",
];

/// A text column of the answer, whose schema must be the one that the info promised.
async fn texts(client: &mut FlightClient, info: FlightInfo, column: &str) -> Result<Vec<String>> {
    let promised = info.clone().try_decode_schema()?;
    let batches = read(client, info).await?;
    assert!(batches.iter().all(|batch| *batch.schema() == promised));
    let column = |batch: &RecordBatch| batch.column_by_name(column).cloned();
    let columns: Vec<_> = batches.iter().filter_map(column).collect();
    let values = columns.iter().flat_map(|column| column.as_string::<i32>().iter().flatten());
    Ok(values.map(str::to_owned).collect())
}

async fn tables(client: &mut FlightClient, command: CommandGetTables) -> Result<Vec<String>> {
    let info = client.get_tables(command).await?;
    texts(client, info, "table_name").await
}

#[tokio::test]
async fn tables_are_found_as_tools_ask_for_them() -> Result {
    let server = Server::open().await?;
    server.setup(&OBJECTS).await?;
    let mut client = server.flight().await?;
    let public = || CommandGetTables {
        db_schema_filter_pattern: Some("public".to_owned()),
        ..CommandGetTables::default()
    };
    assert_eq!(tables(&mut client, public()).await?, ["a1b", "a_b", "a_view"]);
    let everything = tables(&mut client, CommandGetTables::default()).await?;
    assert!(everything.len() > 3 && everything.contains(&"columns".to_owned()), "{everything:?}");

    let grafana = vec!["BASE TABLE".to_owned(), "table".to_owned()];
    let found = tables(&mut client, CommandGetTables { table_types: grafana, ..public() }).await?;
    assert_eq!(found, ["a1b", "a_b"]);
    let exact = CommandGetTables {
        table_name_filter_pattern: Some("a_b".to_owned()),
        include_schema: true,
        ..CommandGetTables::default()
    };
    assert_eq!(tables(&mut client, exact).await?, ["a_b", "a1b"], "the exact name comes first");
    let nowhere = CommandGetTables { catalog: Some("nowhere".to_owned()), ..public() };
    assert!(tables(&mut client, nowhere).await?.is_empty());
    server.stop().await
}

#[tokio::test]
async fn a_table_is_listed_with_the_schema_of_its_results() -> Result {
    let server = Server::open().await?;
    server.setup(&OBJECTS).await?;
    let mut client = server.flight().await?;
    let command = CommandGetTables {
        table_name_filter_pattern: Some("a_b".to_owned()),
        include_schema: true,
        ..CommandGetTables::default()
    };
    let info = client.get_tables(command).await?;
    let batches = read(&mut client, info).await?;
    let bytes = batches[0].column(4).as_binary::<i32>().value(0).to_vec();
    let listed = Schema::try_from(IpcMessage(bytes.into()))?;
    let result = client.execute("SELECT * FROM a_b".to_owned(), None).await?;
    let result = result.try_decode_schema()?;
    for (listed, sent) in listed.fields().iter().zip(result.fields()) {
        assert_eq!((listed.name(), listed.data_type()), (sent.name(), sent.data_type()));
    }
    server.stop().await
}

#[tokio::test]
async fn catalogs_schemas_and_types_are_listed() -> Result {
    let server = Server::open().await?;
    let mut client = server.flight().await?;
    let info = client.get_catalogs().await?;
    assert_eq!(texts(&mut client, info, "catalog_name").await?, ["tidemill"]);
    let info = client.get_db_schemas(CommandGetDbSchemas::default()).await?;
    let schemas = texts(&mut client, info, "db_schema_name").await?;
    assert_eq!(schemas, ["information_schema", "public"]);
    let info = client.get_table_types().await?;
    let types = texts(&mut client, info, "table_type").await?;
    assert_eq!(types, ["MATERIALIZED VIEW", "SOURCE", "SYSTEM TABLE", "TABLE", "VIEW"]);
    let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await?;
    assert!(texts(&mut client, info, "type_name").await?.contains(&"BIGINT".to_owned()));
    server.stop().await
}

#[tokio::test]
async fn what_the_server_can_do_is_told_by_code() -> Result {
    let server = Server::open().await?;
    let mut client = server.flight().await?;
    let wanted = vec![
        SqlInfo::FlightSqlServerName,
        SqlInfo::FlightSqlServerArrowVersion,
        SqlInfo::FlightSqlServerReadOnly,
        SqlInfo::SqlIdentifierQuoteChar,
    ];
    let info = client.get_sql_info(wanted).await?;
    let batches = read(&mut client, info).await?;
    assert_eq!(batches[0].column(0).as_primitive::<UInt32Type>().values()[..], [0, 2, 3, 504]);
    let DataType::Union(_, _) = batches[0].column(1).data_type() else {
        return Err("values are a union".into());
    };
    server.stop().await
}

#[tokio::test]
async fn there_are_no_keys_to_tell_of_but_their_columns_are_known() -> Result {
    let server = Server::open().await?;
    let mut client = server.flight().await?;
    let infos = [
        client.get_primary_keys(CommandGetPrimaryKeys::default()).await?,
        client.get_exported_keys(CommandGetExportedKeys::default()).await?,
        client.get_imported_keys(CommandGetImportedKeys::default()).await?,
        client.get_cross_reference(CommandGetCrossReference::default()).await?,
    ];
    let columns = infos.map(|info| info.try_decode_schema().map(|schema| schema.fields().len()));
    assert_eq!(columns.into_iter().collect::<Result<Vec<_>, _>>()?, [6, 13, 13, 13]);
    server.stop().await
}

#[tokio::test]
async fn our_client_lists_what_the_database_lists() -> Result {
    let server = Server::open().await?;
    server.setup(&OBJECTS).await?;
    let client = server.client().await?;
    let remote = client.relations(None).await?;
    let names = |relations: &[tidemill_sql::session::Relation]| -> Vec<String> {
        relations.iter().map(|r| format!("{}.{}.{}", r.catalog, r.schema, r.name)).collect()
    };
    let mut local = names(&server.database.relations());
    local.extend(names(&server.database.system_relations()));
    local.sort();
    assert_eq!(names(&remote), local);
    let view = client.relations(Some("a_view")).await?;
    assert_eq!((view.len(), view[0].kind), (1, RelationKind::View));
    assert_eq!(view[0].columns.field(0).name(), "wanted");
    assert_eq!(client.catalogs().await?, ["tidemill"]);
    assert_eq!(client.schemas(Some("pub%")).await?, ["public"]);
    server.stop().await
}
