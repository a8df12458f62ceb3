//! `tidemill serve`: the warehouse's continuous queries, and Flight SQL in front of them.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tidemill_flight_server::{ServeOptions, TlsOptions, serve};
use tidemill_sql::session::{Access, Database};
use tokio::net::TcpListener;

use crate::args::ServeArgs;
use crate::config::Config;
use crate::failure::Failure;
use crate::interrupt::{finish, stop};
use crate::output::talk;

pub async fn run(_: ServeArgs, config: Config) -> Result<ExitCode> {
    let options = options(&config)?;
    let secure = options.tls.is_some();
    // Bound first: a port that is taken costs no recovery.
    let listener = TcpListener::bind(&config.listen)
        .await
        .with_context(|| format!("can't listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    options.check(address)?;
    let database = Database::open(config.engine.clone(), Access::Run).await;
    let database = database.map_err(|error| Failure::of(&error, ""))?;
    greet(&config, address, secure, database.queries().len());
    let stopped = async {
        // Where signals can't be had, the server runs until it is killed.
        if stop().await.is_err() {
            std::future::pending::<()>().await;
        }
        talk("stopping: finishing the epochs in flight");
    };
    let served = serve(listener, database.clone(), options, stopped).await;
    let closed = finish(database.shutdown()).await;
    served?;
    closed?.map_err(|error| Failure::of(&error, ""))?;
    Ok(ExitCode::SUCCESS)
}

fn options(config: &Config) -> Result<ServeOptions> {
    let tls = match (&config.tls_cert, &config.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(TlsOptions { certificate: certificate.into(), key: key.into() })
        }
        (None, None) => None,
        _ => bail!("TLS takes a certificate and its key: give both --tls-cert and --tls-key"),
    };
    let users = config.login()?.into_iter().collect();
    Ok(ServeOptions { users, tls, ..ServeOptions::default() })
}

/// Says where it listens, in a line that scripts can read too, and how to connect.
fn greet(config: &Config, address: SocketAddr, secure: bool, queries: usize) {
    let scheme = if secure { "grpc+tls" } else { "grpc" };
    let url = format!("{scheme}://{}", reachable(address));
    talk(format!("listening on {url}"));
    talk(format!("  warehouse  {} ({queries} continuous queries)", config.engine.warehouse));
    let login = config.user.as_ref().map(|user| format!(" --user {user}")).unwrap_or_default();
    talk(format!("  shell      tidemill sql --connect {url}{login}"));
    talk(format!("  Python     adbc_driver_flightsql.dbapi.connect(\"{url}\")"));
}

/// An address that listens everywhere is reached under this machine's own.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        };
        address.set_ip(loopback);
    }
    address
}
