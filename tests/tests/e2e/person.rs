//! The main job as a person does it, with nothing but the program: a file with a Kafka source
//! and two views, `run --once`, `sql`, then `serve` and Python over ADBC.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::events::{self, Sums};
use crate::house::House;
use crate::kafka::Kafka;
use crate::python::interpreter;
use crate::report;

const BY_COUNTRY: &str = "SELECT country, count(*) AS n, sum(amount) AS amount FROM kept GROUP BY country ORDER BY country";

/// Prints the answer as the program's own CSV would be.
const ADBC: &str = "
import sys
import adbc_driver_flightsql.dbapi as flightsql
with flightsql.connect(sys.argv[1]) as connection, connection.cursor() as cursor:
    for sql in sys.argv[2:]:
        cursor.execute(sql)
        table = cursor.fetch_arrow_table()
        print(*table.column_names, sep=',')
        for row in zip(*(column.to_pylist() for column in table.columns)):
            print(*row, sep=',')
";

/// A server that is killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `serve`; answers it with the address that it tells.
fn serve(house: &House) -> (Server, String) {
    let mut command = house.command(&["serve", "--listen", "127.0.0.1:0"]);
    let mut server = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let talk = BufReader::new(server.stderr.take().unwrap());
    let mut lines = talk.lines().map(|line| line.unwrap());
    let line = lines.find(|line| line.contains("listening on grpc://"));
    // Somebody has to read on, or the server waits for us once the pipe is full.
    std::thread::spawn(move || lines.for_each(drop));
    let line = line.unwrap_or_else(|| panic!("serve ended: {:?}", server.wait()));
    (Server(server), line.split_whitespace().last().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_run_once_then_the_shell_and_python_give_the_right_figures() {
    let Some(kafka) = Kafka::shared() else { return };
    let Some(python) = interpreter("adbc") else { return };
    let since = Instant::now();
    let messages = if crate::long() { 1_000_000 } else { 100_000 };
    kafka.create_topic("person", 4);
    events::produce(&kafka.bootstrap, "person", 4, 0..messages, true).await;
    let folder = tempfile::tempdir().unwrap();
    let house = House::local(&folder);
    let file = folder.path().join("orders.sql");
    let views = "CREATE MATERIALIZED VIEW kept PARTITIONED BY (country) AS \
                 SELECT id, country, amount, at FROM orders;\n\
                 CREATE MATERIALIZED VIEW cheap AS SELECT id FROM orders WHERE amount < 5;\n";
    let source = events::source("orders", &kafka.bootstrap, "person");
    std::fs::write(&file, format!("{source};\n{views}")).unwrap();
    let run = house.run(&file, &["--once"]).wait_with_output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));

    let Sums { rows, ids, cents } = events::sums(0..messages, true);
    let figures = "SELECT count(*) AS n, sum(id) AS ids, sum(amount) AS amount FROM kept";
    let amount = format!("{}.{:02}", cents / 100, cents % 100);
    assert_eq!(house.sql(figures), format!("n,ids,amount\n{rows},{ids},{amount}\n"));
    let cheap = (0..messages).filter(|id| id % 100 != 99 && id % 1000 < 500).count();
    let cheap = format!("n\n{cheap}\n");
    let count = "SELECT count(*) AS n FROM cheap";
    assert_eq!(house.sql(count), cheap);
    let by_country = house.sql(BY_COUNTRY);

    let (server, address) = serve(&house);
    let output = Command::new(python)
        .args(["-c", ADBC, &address, figures, count, BY_COUNTRY])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", output.status);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("n,ids,amount\n{rows},{ids},{amount}\n{cheap}{by_country}"));
    drop(server);
    let what = format!("{messages} messages: run --once, sql, serve, Python over ADBC");
    report::passed(
        "a_file_run_once_then_the_shell_and_python_give_the_right_figures",
        &what,
        since,
    );
}
