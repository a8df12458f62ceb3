//! A Flight SQL server in this process, over a warehouse that is thrown away with it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_flight::FlightInfo;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt;
use tempfile::TempDir;
use tidemill_engine::config::EngineConfig;
use tidemill_flight_server::client::Target;
use tidemill_flight_server::{Client, ServeOptions, TlsOptions, serve};
use tidemill_sql::{Access, Answer, Database};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// arrow-flight's own client.
pub type FlightClient = FlightSqlServiceClient<Channel>;

pub struct Server {
    pub address: SocketAddr,
    pub database: Arc<Database>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<tidemill_flight_server::Result<()>>,
    _warehouse: TempDir,
}

impl Server {
    /// A server without users on a free port of loopback.
    pub async fn open() -> Result<Self> {
        Self::start(ServeOptions::default()).await
    }

    /// A server that these may use.
    pub async fn with_users(users: &[(&str, &str)]) -> Result<Self> {
        let users = users.iter().map(|(name, password)| ((*name).into(), (*password).into()));
        Self::start(ServeOptions { users: users.collect(), ..ServeOptions::default() }).await
    }

    pub async fn start(options: ServeOptions) -> Result<Self> {
        let warehouse = TempDir::new()?;
        let config = EngineConfig {
            warehouse: warehouse.path().display().to_string(),
            ..EngineConfig::default()
        };
        let database = Database::open(config, Access::Run).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            // Dropping the sender stops the server too.
            let _ = stopped.await;
        };
        let serving = tokio::spawn(serve(listener, database.clone(), options, shutdown));
        Ok(Self { address, database, stop, serving, _warehouse: warehouse })
    }

    /// Executes statements in a session of their own, beside the server.
    pub async fn setup(&self, statements: &[&str]) -> Result {
        let session = self.database.session();
        for sql in statements {
            if let Answer::Rows(rows) = session.execute(sql).await? {
                rows.try_collect::<Vec<_>>().await?;
            }
        }
        Ok(())
    }

    pub fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }

    /// Our client, without a login.
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::connect(&Target { url: self.url(), ..Target::default() }).await?)
    }

    /// arrow-flight's client, without a login.
    pub async fn flight(&self) -> Result<FlightClient> {
        let channel = Channel::from_shared(format!("http://{}", self.address))?.connect().await?;
        Ok(FlightSqlServiceClient::new(channel))
    }

    /// arrow-flight's client, logged in.
    pub async fn flight_as(&self, user: &str, password: &str) -> Result<FlightClient> {
        let mut client = self.flight().await?;
        client.handshake(user, password).await?;
        Ok(client)
    }

    /// Stops the server and waits for it: everything must have ended well.
    pub async fn stop(self) -> Result {
        // A server that is gone already says why below.
        let _ = self.stop.send(());
        self.serving.await??;
        self.database.shutdown().await?;
        Ok(())
    }
}

/// The rows that an info stands for.
pub async fn read(client: &mut FlightClient, info: FlightInfo) -> Result<Vec<RecordBatch>> {
    let [endpoint] = &info.endpoint[..] else {
        return Err(format!("{} endpoints, where clients take one", info.endpoint.len()).into());
    };
    let ticket = endpoint.ticket.clone().ok_or("an endpoint without a ticket")?;
    Ok(client.do_get(ticket).await?.try_collect().await?)
}

/// The rows of a query.
pub async fn query(client: &mut FlightClient, sql: &str) -> Result<Vec<RecordBatch>> {
    let info = client.execute(sql.to_owned(), None).await?;
    read(client, info).await
}

/// Batches drawn as a table, for comparing.
pub fn drawn(batches: &[RecordBatch]) -> Result<String> {
    Ok(arrow::util::pretty::pretty_format_batches(batches)?.to_string())
}

/// The certificate of the tests, for localhost and 127.0.0.1; it is its own authority.
pub fn tls() -> TlsOptions {
    let folder = fixtures().join("tls");
    TlsOptions { certificate: folder.join("cert.pem"), key: folder.join("key.pem") }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}
