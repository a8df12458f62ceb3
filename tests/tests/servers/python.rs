//! Python's clients: ADBC, and flightsql-dbapi with SQLAlchemy.
//!
//! `scripts/python.sh` brings them; where it can't (exit code 77), the tests say so
//! loudly and pass, unless `TIDEMILL_REQUIRE_ALL=1`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tidemill_flight_server::ServeOptions;
use tidemill_tests::flight::{Result, Server};
use tokio::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The interpreter that has `client`; none where Python is missing.
async fn interpreter(client: &str) -> Result<Option<PathBuf>> {
    const SKIPPED: i32 = 77;
    let script = root().join("scripts/python.sh");
    let output = Command::new(script).arg(client).stderr(Stdio::inherit()).output().await?;
    match output.status.code() {
        Some(0) => {}
        Some(SKIPPED) if std::env::var("TIDEMILL_REQUIRE_ALL").is_ok_and(|v| v == "1") => {
            return Err("Python clients are required, and Python is missing".into());
        }
        Some(SKIPPED) => return Ok(None),
        _ => return Err(format!("scripts/python.sh {client}: {}", output.status).into()),
    }
    let answer = String::from_utf8(output.stdout)?;
    let path = answer.trim().strip_prefix(&format!("{client}=")).ok_or("no interpreter named")?;
    Ok(Some(path.into()))
}

/// Runs tests/clients/CLIENT.py against a server that holds the objects of setup.sql.
async fn check(client: &str, user: Option<(&str, &str)>) -> Result {
    let Some(python) = interpreter(client).await? else {
        eprintln!("SKIPPED: the server was not tested through the Python client {client}");
        return Ok(());
    };
    let users = user.iter().map(|(name, password)| ((*name).into(), (*password).into())).collect();
    let server = Server::start(ServeOptions { users, ..ServeOptions::default() }).await?;
    let setup = std::fs::read_to_string(root().join("tests/clients/setup.sql"))?;
    let statements: Vec<&str> = setup.split(";\n").filter(|sql| !sql.trim().is_empty()).collect();
    server.setup(&statements).await?;

    let mut command = Command::new(python);
    command.arg(root().join(format!("tests/clients/{client}.py"))).arg(server.url());
    if let Some((name, password)) = user {
        command.args(["--user", name, "--password", password]);
    }
    let output = command.kill_on_drop(true).output().await?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    println!("{said}{complained}");
    assert!(output.status.success(), "{client}.py: {}\n{said}{complained}", output.status);
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn adbc() -> Result {
    check("adbc", None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn adbc_with_a_password() -> Result {
    check("adbc", Some(("ann", "secret"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn dbapi() -> Result {
    check("dbapi", None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn dbapi_with_a_password() -> Result {
    check("dbapi", Some(("ann", "secret"))).await
}
