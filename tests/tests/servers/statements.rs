//! Statements: queries and what else clients send as queries, updates, errors, cancelling.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Int64Type, Schema, TimeUnit};
use arrow_flight::sql::{
    CommandStatementIngest, CommandStatementQuery, ProstMessageExt, SqlInfo,
    TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::{FlightDescriptor, Ticket};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tidemill_sql::Answer;
use tidemill_sql::session::notice_of;
use tidemill_tests::flight::{FlightClient, Result, Server, drawn, query, read};
use tonic::{Code, Request, Status};

const ITEMS: [&str; 2] = [
    "CREATE TABLE items (id BIGINT NOT NULL, name VARCHAR, at TIMESTAMP)",
    "INSERT INTO items VALUES (1, 'one', TIMESTAMP '2024-01-02 03:04:05.678901'), (2, NULL, NULL)",
];

fn descriptor(sql: &str) -> FlightDescriptor {
    let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

fn status(error: arrow_flight::error::FlightError) -> Status {
    match error {
        arrow_flight::error::FlightError::Tonic(status) => *status,
        other => panic!("no status: {other}"),
    }
}

#[tokio::test]
async fn a_result_has_the_schema_that_its_info_promised() -> Result {
    let server = Server::open().await?;
    server.setup(&ITEMS).await?;
    let mut client = server.flight().await?;
    let sql = "SELECT id, name, at, arrow_cast(name, 'Dictionary(Int32, Utf8)') AS d, \
               arrow_cast(name, 'Utf8View') AS v, arrow_cast(at, 'Timestamp(Nanosecond, None)') AS n \
               FROM items ORDER BY id";
    let info = client.execute(sql.to_owned(), None).await?;
    let promised = info.clone().try_decode_schema()?;
    let batches = read(&mut client, info).await?;
    assert_eq!(*batches[0].schema(), promised);
    let types: Vec<&DataType> = promised.fields().iter().map(|field| field.data_type()).collect();
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let text = DataType::Utf8;
    assert_eq!(types, [&DataType::Int64, &text, &time, &text, &text, &time]);
    assert_eq!(promised.field(1).metadata()["ARROW:FLIGHT:SQL:TYPE_NAME"], "VARCHAR");
    let expected = "\
+----+------+----------------------------+-----+-----+----------------------------+
| id | name | at                         | d   | v   | n                          |
+----+------+----------------------------+-----+-----+----------------------------+
| 1  | one  | 2024-01-02T03:04:05.678901 | one | one | 2024-01-02T03:04:05.678901 |
| 2  |      |                            |     |     |                            |
+----+------+----------------------------+-----+-----+----------------------------+";
    assert_eq!(drawn(&batches)?, expected);
    server.stop().await
}

#[tokio::test]
async fn an_empty_result_still_has_its_columns() -> Result {
    let server = Server::open().await?;
    server.setup(&ITEMS).await?;
    let mut client = server.flight().await?;
    let info = client.execute("SELECT id FROM items WHERE id < 0".to_owned(), None).await?;
    let ticket = info.endpoint[0].ticket.clone().unwrap_or_default();
    let mut stream = client.do_get(ticket).await?;
    while let Some(batch) = stream.try_next().await? {
        assert_eq!(batch.num_rows(), 0);
    }
    assert_eq!(**stream.schema().ok_or("no schema")?, info.try_decode_schema()?);
    server.stop().await
}

#[tokio::test]
async fn a_ticket_is_read_once() -> Result {
    let server = Server::open().await?;
    let mut client = server.flight().await?;
    let info = client.execute("SELECT 1 AS one".to_owned(), None).await?;
    assert_eq!(read(&mut client, info.clone()).await?.len(), 1);
    let ticket = info.endpoint[0].ticket.clone().unwrap_or_default();
    let error = client.do_get(ticket).await.err().map(status).ok_or("it was read twice")?;
    assert_eq!(error.code(), Code::NotFound);
    server.stop().await
}

#[tokio::test]
async fn an_insert_runs_once_however_it_is_sent() -> Result {
    let server = Server::open().await?;
    server.setup(&ITEMS).await?;
    let mut client = server.flight().await?;
    let insert = "INSERT INTO items SELECT id + 10, name, at FROM items WHERE id < 3";

    let info = client.execute(insert.to_owned(), None).await?;
    assert_eq!(info.total_records, 2);
    assert_eq!(info.clone().try_decode_schema()?, Schema::empty());
    assert!(read(&mut client, info).await?.is_empty());
    assert_eq!(count(&mut client).await?, 4);

    assert_eq!(client.execute_update(insert.to_owned(), None).await?, 2);
    assert_eq!(count(&mut client).await?, 6);

    let mut prepared = client.prepare(insert.to_owned(), None).await?;
    assert_eq!(*prepared.dataset_schema()?, Schema::empty());
    assert_eq!(prepared.execute_update().await?, 2);
    assert_eq!(count(&mut client).await?, 8);
    server.stop().await
}

async fn count(client: &mut tidemill_tests::flight::FlightClient) -> Result<i64> {
    let batches = query(client, "SELECT count(*) FROM items").await?;
    Ok(batches[0].column(0).as_primitive::<Int64Type>().value(0))
}

#[tokio::test]
async fn asking_for_a_schema_executes_nothing() -> Result {
    let server = Server::open().await?;
    server.setup(&ITEMS).await?;
    let mut client = server.flight().await?;
    let insert = "INSERT INTO items VALUES (3, 'three', NULL)";
    let schema =
        client.inner_mut().get_schema(Request::new(descriptor(insert))).await?.into_inner();
    assert_eq!(Schema::try_from(schema)?, Schema::empty());
    client.prepare(insert.to_owned(), None).await?.close().await?;
    assert_eq!(count(&mut client).await?, 2);

    let select = descriptor("SELECT id, name FROM items");
    let schema = client.inner_mut().get_schema(Request::new(select.clone())).await?.into_inner();
    let info = client.inner_mut().get_flight_info(Request::new(select)).await?.into_inner();
    assert_eq!(Schema::try_from(schema)?, info.try_decode_schema()?);
    server.stop().await
}

#[tokio::test]
async fn polling_answers_a_complete_info_at_once() -> Result {
    let server = Server::open().await?;
    let mut client = server.flight().await?;
    let select = Request::new(descriptor("SELECT 7 AS seven"));
    let poll = client.inner_mut().poll_flight_info(select).await?.into_inner();
    assert!(poll.flight_descriptor.is_none(), "there is nothing left to poll for");
    let batches = read(&mut client, poll.info.ok_or("no info")?).await?;
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 7);
    server.stop().await
}

#[tokio::test]
async fn a_large_result_comes_in_messages_that_any_client_takes() -> Result {
    let server = Server::open().await?;
    // The limit of tonic's client is 4 MiB, as everywhere.
    let mut client = server.flight().await?;
    let sql = "SELECT value, repeat('x', 2000) AS pad FROM generate_series(1, 20000)";
    let batches = query(&mut client, sql).await?;
    let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    assert_eq!(rows, 20_000);
    let values = batches.iter().map(|batch| batch.column(0).as_primitive::<Int64Type>());
    let sum: i64 = values.flat_map(|column| column.values().to_vec()).sum();
    assert_eq!(sum, 20_000 * 20_001 / 2);
    server.stop().await
}

#[tokio::test]
async fn an_error_says_where_and_shows_nothing_of_the_inside() -> Result {
    let server = Server::open().await?;
    server.setup(&ITEMS).await?;
    let mut client = server.flight().await?;
    for (sql, words) in [
        ("SELEC 1", ["line 1", "column 1"]),
        ("SELECT id,\n  nonsense\nFROM items", ["nonsense", "line 2, column 3"]),
        ("SELECT * FROM no_such_table", ["no_such_table", "line 1"]),
    ] {
        let error = client.execute(sql.to_owned(), None).await.err().map(status).ok_or(sql)?;
        assert_eq!(error.code(), Code::InvalidArgument, "{sql}");
        for word in words {
            assert!(error.message().contains(word), "{sql}: {}", error.message());
        }
        for inside in ["Error(", "Some(", "DataFusion", "{", "Span"] {
            assert!(!error.message().contains(inside), "{sql}: {}", error.message());
        }
    }
    assert_eq!(count(&mut client).await?, 2, "the session goes on");
    server.stop().await
}

#[tokio::test]
async fn our_client_answers_what_a_session_answers() -> Result {
    let server = Server::open().await?;
    server.setup(&ITEMS).await?;
    let client = server.client().await?;
    let session = server.database.session();

    let sql = "SELECT id,\n  nonsense\nFROM items";
    let remote = client.execute(sql).await.err().ok_or("no error")?;
    let local = session.execute(sql).await.err().ok_or("no error")?;
    assert_eq!(remote.render(sql), local.render(sql));
    assert_eq!((remote.kind(), remote.to_string()), (local.kind(), local.to_string()));

    let Answer::Done(done) = client.execute("INSERT INTO items VALUES (3, 'x', NULL)").await?
    else {
        return Err("an INSERT answered rows".into());
    };
    assert_eq!(done.rows, Some(1));
    let Answer::Rows(rows) = client.execute("SELECT id FROM items ORDER BY id").await? else {
        return Err("a SELECT answered no rows".into());
    };
    assert_eq!(rows.schema().field(0).name(), "id");
    let batches: Vec<_> = rows.try_collect().await?;
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 3);

    let words = client.completions("SEL").await?;
    assert_eq!(words, session.completions("SEL"));
    assert_eq!(client.server().await?.0, "Tidemill");
    server.stop().await
}

/// More rows than anybody waits for.
const ENDLESS: &str = "SELECT value FROM generate_series(1, 9000000000000)";

#[tokio::test]
async fn a_query_is_cancelled_by_its_info() -> Result {
    let server = Server::open().await?;
    let client = server.client().await?;
    let Answer::Rows(mut rows) = client.execute(ENDLESS).await? else {
        return Err("a SELECT answered no rows".into());
    };
    assert!(rows.next().await.ok_or("no rows")?.is_ok());
    client.cancel().await?;
    let error = loop {
        match rows.next().await.ok_or("it ended as if it were complete")? {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("cancelled"), "{error}");
    client.cancel().await?;
    server.stop().await
}

#[tokio::test]
async fn a_server_that_stops_ends_the_queries_that_are_read() -> Result {
    let server = Server::open().await?;
    let mut client = server.flight().await?;
    let info = client.execute(ENDLESS.to_owned(), None).await?;
    let ticket: Ticket = info.endpoint[0].ticket.clone().unwrap_or_default();
    let mut rows = client.do_get(ticket).await?;
    assert!(rows.next().await.ok_or("no rows")?.is_ok());
    let reading = tokio::spawn(async move { rows.try_for_each(async |_| Ok(())).await });
    server.stop().await?;
    assert_eq!(reading.await?.err().map(status).ok_or("it ended well")?.code(), Code::Unavailable);
    Ok(())
}

#[tokio::test]
async fn a_result_that_nobody_reads_on_leaves_the_connection_usable() -> Result {
    let server = Server::open().await?;
    let mut client = server.flight().await?;
    for _ in 0..20 {
        let info = client.execute(ENDLESS.to_owned(), None).await?;
        let ticket = info.endpoint[0].ticket.clone().unwrap_or_default();
        let mut rows = client.do_get(ticket).await?;
        assert!(rows.next().await.ok_or("no rows")?.is_ok());
    }
    assert_eq!(query(&mut client, "SELECT 1").await?.len(), 1);
    server.stop().await
}

#[tokio::test]
async fn transactions_and_nonsense_are_refused_in_words() -> Result {
    let server = Server::open().await?;
    let mut client = server.flight().await?;
    let in_transaction = client.execute("SELECT 1".to_owned(), Some("t".into())).await;
    let error = in_transaction.err().map(status).ok_or("there are no transactions")?;
    assert_eq!(error.code(), Code::Unimplemented);
    assert_eq!(error.message(), "a transaction is not supported");
    let garbage = FlightDescriptor::new_cmd("garbage");
    let error = client.inner_mut().get_flight_info(Request::new(garbage)).await.err();
    assert_eq!(error.ok_or("garbage was taken")?.code(), Code::InvalidArgument);
    server.stop().await
}

#[tokio::test]
async fn the_functions_that_the_server_tells_of_are_there() -> Result {
    let server = Server::open().await?;
    let mut client = server.flight().await?;
    let info = client.get_sql_info(vec![SqlInfo::SqlDatetimeFunctions]).await?;
    let told = read(&mut client, info).await?;
    let told = drawn(&told)?;
    for function in ["minute", "hour", "day", "month", "quarter", "year", "dayofyear", "isodow"] {
        assert!(told.contains(&format!("{function},")), "{function}: {told}");
        let sql = format!("SELECT {function}(TIMESTAMP '2024-02-29 12:34:56') AS part");
        assert_eq!(query(&mut client, &sql).await?[0].num_rows(), 1);
    }
    server.stop().await
}

#[tokio::test]
async fn a_notice_behind_the_rows_arrives_at_our_client() -> Result {
    let server = Server::open().await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("in.json");
    std::fs::write(&path, "{\"n\": 1}\noops\n")?;
    let source = format!(
        "CREATE SOURCE f (n BIGINT) WITH (connector = 'files', path = '{}')",
        path.display()
    );
    server.setup(&[&source]).await?;
    let client = server.client().await?;
    let Answer::Rows(rows) = client.execute("SELECT n FROM f").await? else {
        return Err("a SELECT answered no rows".into());
    };
    let batches: Vec<_> = rows.try_collect().await?;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    let notice = batches.last().and_then(notice_of).ok_or("no notice")?;
    assert_eq!(notice, "1 record of \"f\" could not be decoded and is left out");
    server.stop().await
}

#[tokio::test]
async fn a_bulk_load_makes_a_table_and_adds_to_it() -> Result {
    use TableExistsOption::{Append, Fail, Replace};
    let server = Server::open().await?;
    let mut client = server.flight().await?;
    let load = async |client: &mut FlightClient, table: &str, create, exists, rows: i64| {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let names: ArrayRef = Arc::new(StringViewArray::from_iter(
            (0..rows).map(|n| (n % 2 == 0).then(|| n.to_string())),
        ));
        let columns = [("Id", ids, false), ("name", names, true)];
        let batch = RecordBatch::try_from_iter_with_nullable(columns)?;
        let not_exist = match create {
            true => TableNotExistOption::Create,
            false => TableNotExistOption::Fail,
        };
        let options =
            TableDefinitionOptions { if_not_exist: not_exist.into(), if_exists: i32::from(exists) };
        let command = CommandStatementIngest {
            table_definition_options: Some(options),
            table: table.to_owned(),
            ..CommandStatementIngest::default()
        };
        let parts = (0..rows).step_by(1000).map(|at| {
            let at = usize::try_from(at).unwrap_or_default();
            Ok(batch.slice(at, 1000.min(batch.num_rows() - at)))
        });
        client.execute_ingest(command, futures::stream::iter(parts.collect::<Vec<_>>())).await
    };
    assert_eq!(load(&mut client, "loaded", true, Fail, 2500).await?, 2500);
    assert_eq!(load(&mut client, "loaded", false, Append, 500).await?, 500);
    let figures = "SELECT count(*), sum(\"Id\"), count(name) FROM loaded";
    let expected = [3000, 2499 * 2500 / 2 + 499 * 250, 1500];
    assert_eq!(numbers(&query(&mut client, figures).await?), expected);

    let there = load(&mut client, "loaded", true, Fail, 1).await.err().ok_or("it was there")?;
    assert!(there.to_string().contains("exists"), "{there}");
    let gone = load(&mut client, "elsewhere", false, Append, 1).await.err().ok_or("no table")?;
    assert!(gone.to_string().contains("does not exist"), "{gone}");
    assert_eq!(load(&mut client, "loaded", true, Replace, 10).await?, 10);
    assert_eq!(numbers(&query(&mut client, figures).await?), [10, 45, 5]);
    server.stop().await
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    let columns = batches.iter().flat_map(|batch| batch.columns());
    columns.flat_map(|column| column.as_primitive::<Int64Type>().values().to_vec()).collect()
}
