//! Listening: from a bound socket to a stopped server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::flight_service_server::FlightServiceServer;
use futures::{FutureExt, TryStreamExt};
use tidemill_sql::Database;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::options::{ServeOptions, TlsOptions};
use crate::service::Service;

/// How often expired handles are looked for.
const SWEEP: Duration = Duration::from_secs(30);

/// How long a stopping server waits for calls to end. Queries are ended at once; what
/// may take time is a statement that writes.
const DRAIN: Duration = Duration::from_secs(10);

/// A connection that does not answer a ping for this long is dead, and its queries end.
const PING: Duration = Duration::from_secs(20);

/// Serves `database` over Flight SQL until `shutdown` completes.
///
/// Takes its listener, so that the caller knows the address (port 0 finds a free one) and
/// clients can connect from the moment it is bound. The database is left open.
///
/// # Errors
/// Settings that would let strangers in, certificates that can't be used, and a listener
/// that fails. What goes wrong with one client is that client's error alone.
pub async fn serve(
    listener: TcpListener,
    database: Arc<Database>,
    options: ServeOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let address = listener.local_addr()?;
    options.check(address)?;
    options.warn_of_eavesdroppers(address);
    let mut server =
        Server::builder().http2_keepalive_interval(Some(PING)).http2_keepalive_timeout(Some(PING));
    if let Some(tls) = &options.tls {
        choose_crypto();
        server = server.tls_config(identity(tls).await?).map_err(|error| bad_tls(tls, &error))?;
    }
    let limit = options.max_message_size;
    let service = Service::new(database, options);
    let flight = FlightServiceServer::new(service.clone()).max_decoding_message_size(limit);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));

    let shutdown = shutdown.inspect(|()| service.stop()).shared();
    let serving = server
        .add_service(flight)
        .serve_with_incoming_shutdown(incoming.map_ok(Connection::new), shutdown.clone());
    let overdue = shutdown.then(|()| tokio::time::sleep(DRAIN));
    tracing::info!(%address, "Flight SQL server is listening");
    tokio::select! {
        result = serving => result.map_err(|error| Error::transport(&error)),
        () = overdue => Ok(()),
        never = sweep(&service) => match never {},
    }
}

async fn sweep(service: &Service) -> std::convert::Infallible {
    let mut interval = tokio::time::interval(SWEEP);
    loop {
        interval.tick().await;
        service.sweep(Instant::now());
    }
}

/// Two crypto providers are linked in (ours, and that of the object stores), so rustls
/// has to be told which one it is for those that don't say; tonic's server doesn't.
pub(crate) fn choose_crypto() {
    // An error says that a choice was made before: that one stands.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

async fn identity(tls: &TlsOptions) -> Result<ServerTlsConfig> {
    let read = async |path: &std::path::Path| {
        tokio::fs::read(path).await.map_err(|error| {
            Error::config(format!("{}: {error}", path.display()), "name a readable PEM file")
        })
    };
    let identity = Identity::from_pem(read(&tls.certificate).await?, read(&tls.key).await?);
    Ok(ServerTlsConfig::new().identity(identity))
}

fn bad_tls(tls: &TlsOptions, error: &tonic::transport::Error) -> Error {
    Error::config(
        format!("{} and its key: {}", tls.certificate.display(), Error::transport(error)),
        "both are PEM files, and the key belongs to the certificate",
    )
}
