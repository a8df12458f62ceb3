//! Prepared statements and their parameters.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    UnionArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, UnionFields};
use arrow::util::display::array_value_to_string;
use futures::TryStreamExt;
use tidemill_sql::Answer;
use tidemill_tests::flight::{FlightClient, Result, Server, query, read};

const NOTES: [&str; 2] = [
    "CREATE TABLE notes (id BIGINT, note VARCHAR)",
    "INSERT INTO notes VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, NULL)",
];

fn parameters(columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let named = columns.into_iter().enumerate().map(|(n, c)| (format!("p{n}"), c, true));
    Ok(RecordBatch::try_from_iter_with_nullable(named)?)
}

fn numbers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// Prepares, binds, executes; answers the numbers in the first column.
async fn ask(client: &mut FlightClient, sql: &str, bound: Vec<ArrayRef>) -> Result<Vec<i64>> {
    let mut statement = client.prepare(sql.to_owned(), None).await?;
    if !bound.is_empty() {
        statement.set_parameters(parameters(bound)?)?;
    }
    let info = statement.execute().await?;
    let batches = read(client, info).await?;
    statement.close().await?;
    let columns = batches.iter().map(|batch| batch.column(0).as_primitive::<Int64Type>());
    Ok(columns.flat_map(|column| column.iter().flatten()).collect())
}

#[tokio::test]
async fn parameters_are_bound_by_place() -> Result {
    let server = Server::open().await?;
    server.setup(&NOTES).await?;
    let mut client = server.flight().await?;
    let between = "SELECT id FROM notes WHERE id > ? AND id < ? ORDER BY id";
    assert_eq!(ask(&mut client, between, vec![numbers(&[1]), numbers(&[4])]).await?, [2, 3]);
    let swapped = "SELECT id FROM notes WHERE id < $2 AND id > $1 ORDER BY id";
    assert_eq!(ask(&mut client, swapped, vec![numbers(&[1]), numbers(&[4])]).await?, [2, 3]);
    let text = "SELECT id FROM notes WHERE note = ? AND note <> '?'";
    assert_eq!(ask(&mut client, text, vec![texts(&[Some("two")])]).await?, [2]);
    assert_eq!(ask(&mut client, text, vec![texts(&[None])]).await?, [0_i64; 0]);
    assert_eq!(ask(&mut client, "SELECT max(id) FROM notes", vec![]).await?, [4]);
    let equal = "SELECT id FROM notes WHERE id = ?";
    let number = |value: f64| -> Vec<ArrayRef> { vec![Arc::new(Float64Array::from(vec![value]))] };
    assert_eq!(ask(&mut client, equal, number(2.0)).await?, [2]);
    assert_eq!(ask(&mut client, equal, number(1.5)).await?, [0_i64; 0], "1.5 is not 1");
    server.stop().await
}

#[tokio::test]
async fn more_than_nine_parameters_keep_their_order() -> Result {
    let server = Server::open().await?;
    let mut client = server.flight().await?;
    let columns: Vec<String> = (0..12).map(|n| format!("CAST(? AS BIGINT) AS c{n}")).collect();
    let sql = format!("SELECT {}", columns.join(", "));
    let mut statement = client.prepare(sql, None).await?;
    assert_eq!(statement.parameter_schema()?.fields().len(), 12);
    statement.set_parameters(parameters((0..12).map(|n| numbers(&[n])).collect())?)?;
    let info = statement.execute().await?;
    let batches = read(&mut client, info).await?;
    let row: Vec<i64> =
        batches[0].columns().iter().map(|c| c.as_primitive::<Int64Type>().value(0)).collect();
    assert_eq!(row, (0..12).collect::<Vec<_>>());
    server.stop().await
}

#[tokio::test]
async fn every_row_of_parameters_is_an_execution() -> Result {
    let server = Server::open().await?;
    server.setup(&NOTES).await?;
    let mut client = server.flight().await?;
    let found = ask(&mut client, "SELECT id FROM notes WHERE id = ?", vec![numbers(&[3, 9, 1])]);
    assert_eq!(found.await?, [3, 1]);

    let mut insert = client.prepare("INSERT INTO notes VALUES (?, ?)".to_owned(), None).await?;
    let rows = vec![numbers(&[5, 6, 7]), texts(&[Some("five"), None, Some("seven")])];
    insert.set_parameters(parameters(rows)?)?;
    assert_eq!(insert.execute_update().await?, 3);
    let tables = query(&mut client, "SHOW TABLES").await?;
    let version = tables[0].column_by_name("version").ok_or("no version")?;
    assert_eq!(array_value_to_string(version, 0)?, "2", "all rows make one commit");
    let count = "SELECT count(*) FROM notes WHERE id > 4 AND (note IS NULL) = (id = 6)";
    assert_eq!(ask(&mut client, count, vec![]).await?, [3]);
    server.stop().await
}

#[tokio::test]
async fn parameters_may_come_as_a_dense_union() -> Result {
    let server = Server::open().await?;
    server.setup(&NOTES).await?;
    let mut client = server.flight().await?;
    let sql = "SELECT id FROM notes WHERE id >= ? AND note <> ? ORDER BY id";
    let bound = vec![union(1, numbers(&[1]))?, union(0, texts(&[Some("two")]))?];
    assert_eq!(ask(&mut client, sql, bound).await?, [1, 3]);
    server.stop().await
}

/// One row whose value is that of the child `type_id`.
fn union(type_id: i8, value: ArrayRef) -> Result<ArrayRef> {
    let mut children: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(Vec::<&str>::new())),
        Arc::new(Int64Array::from(Vec::<i64>::new())),
        Arc::new(Float64Array::from(Vec::<f64>::new())),
        Arc::new(BooleanArray::from(Vec::<bool>::new())),
    ];
    children[usize::try_from(type_id)?] = value;
    let names = ["string", "int", "float", "bool"].into_iter().zip(&children);
    let fields = names.map(|(name, child)| Field::new(name, child.data_type().clone(), true));
    let fields = UnionFields::from_fields(fields);
    let array = UnionArray::try_new(fields, vec![type_id].into(), Some(vec![0].into()), children)?;
    Ok(Arc::new(array))
}

#[tokio::test]
async fn a_parameter_of_unknown_type_is_not_told_to_be_null() -> Result {
    let server = Server::open().await?;
    let mut client = server.flight().await?;
    let statement = client.prepare("SELECT ? AS anything".to_owned(), None).await?;
    let parameters = statement.parameter_schema()?;
    assert_eq!(parameters.fields().len(), 1);
    assert_ne!(parameters.field(0).data_type(), &DataType::Null);
    server.stop().await
}

#[tokio::test]
async fn a_result_of_unknown_type_takes_that_of_the_value() -> Result {
    let server = Server::open().await?;
    let mut client = server.flight().await?;
    let mut statement = client.prepare("SELECT ? AS anything".to_owned(), None).await?;
    for value in
        [numbers(&[7]), texts(&[Some("seven")]), union(2, Arc::new(Float64Array::from(vec![0.7])))?]
    {
        statement.set_parameters(parameters(vec![value])?)?;
        let info = statement.execute().await?;
        let promised = info.clone().try_decode_schema()?;
        let batches = read(&mut client, info).await?;
        assert_eq!(*batches[0].schema(), promised);
        assert_eq!(batches[0].num_rows(), 1);
        assert_ne!(promised.field(0).data_type(), &DataType::Null);
    }
    server.stop().await
}

#[tokio::test]
async fn the_parameters_of_an_insert_have_the_types_of_its_columns() -> Result {
    let server = Server::open().await?;
    server.setup(&["CREATE TABLE t (a BIGINT, b DECIMAL(10,2), c TIMESTAMP, d VARCHAR)"]).await?;
    let mut client = server.flight().await?;
    let types = async |client: &mut FlightClient, sql: &str| -> Result<Vec<String>> {
        let statement = client.prepare(sql.to_owned(), None).await?;
        let fields = statement.parameter_schema()?.fields().clone();
        Ok(fields.iter().map(|field| field.data_type().to_string()).collect())
    };
    let all = types(&mut client, "INSERT INTO t VALUES (?, ?, ?, ?), (?, ?, ?, ?)").await?;
    // JDBC writes milliseconds into a timestamp of any unit.
    assert_eq!(all[..4], ["Int64", "Decimal128(10, 2)", "Timestamp(ms)", "Utf8"]);
    assert_eq!(all[..4], all[4..]);
    let some = types(&mut client, "INSERT INTO t VALUES (1, ?, NULL, ?)").await?;
    assert_eq!(some, ["Decimal128(10, 2)", "Utf8"]);
    let named = types(&mut client, "INSERT INTO t (d, a) VALUES ($2, $1)").await?;
    assert_eq!(named, ["Int64", "Utf8"]);
    server.stop().await
}

#[tokio::test]
async fn a_parameter_with_a_silly_number_is_refused() -> Result {
    let server = Server::open().await?;
    let mut client = server.flight().await?;
    let zero = client.prepare("SELECT CAST($0 AS BIGINT)".to_owned(), None).await;
    assert!(zero.err().ok_or("it was prepared")?.to_string().contains("zero"));
    for number in ["65536", "99999999999", "99999999999999999999999"] {
        let sql = format!("SELECT CAST(${number} AS BIGINT)");
        let error = client.prepare(sql, None).await.err().ok_or("it was prepared")?.to_string();
        assert!(error.contains("has no number"), "{error}");
    }
    server.stop().await
}

#[tokio::test]
async fn values_are_wanted_neither_more_nor_fewer() -> Result {
    let server = Server::open().await?;
    server.setup(&NOTES).await?;
    let mut client = server.flight().await?;
    let sql = "SELECT id FROM notes WHERE id = ? OR id = ?";
    let few = ask(&mut client, sql, vec![numbers(&[1])]).await.err().ok_or("one of two")?;
    assert!(few.to_string().contains("2 parameters, but 1 values were bound"), "{few}");
    let none = ask(&mut client, sql, vec![]).await.err().ok_or("none of two")?;
    assert!(none.to_string().contains("no values were bound"), "{none}");
    let unprepared = query(&mut client, sql).await.err().ok_or("not prepared")?;
    assert!(unprepared.to_string().contains("prepare it"), "{unprepared}");
    server.stop().await
}

#[tokio::test]
async fn a_statement_is_executed_again_with_other_values() -> Result {
    let server = Server::open().await?;
    server.setup(&NOTES).await?;
    let client = server.client().await?;
    let mut statement = client.prepare("SELECT note FROM notes WHERE id = $1").await?;
    for (id, note) in [(1, "one"), (3, "three")] {
        let bound = parameters(vec![numbers(&[id])])?;
        let Answer::Rows(rows) = client.execute_prepared(&mut statement, Some(bound)).await? else {
            return Err("a SELECT answered no rows".into());
        };
        let batches: Vec<RecordBatch> = rows.try_collect().await?;
        assert_eq!(batches[0].column(0).as_string::<i32>().value(0), note);
    }
    server.stop().await
}

#[tokio::test]
async fn a_closed_statement_is_unknown() -> Result {
    let server = Server::open().await?;
    let mut client = server.flight().await?;
    let statement = client.prepare("SELECT 1".to_owned(), None).await?;
    let mut copy = statement.clone();
    statement.close().await?;
    let error = copy.execute().await.err().ok_or("it was executed")?.to_string();
    assert!(error.contains("the prepared statement is unknown"), "{error}");
    server.stop().await
}
