//! A server, over Flight SQL.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use tidemill_flight_server::{Client, client};
use tidemill_sql::session::Answer;
use tokio::runtime::Handle;

use super::{Reply, Rows};
use crate::config::Config;

/// Completions that take longer than this would be in the way of typing.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a server may take to say good-bye.
const FAREWELL: Duration = Duration::from_secs(2);

/// A connection, logged in.
pub struct Remote {
    address: String,
    client: Client,
}

impl Remote {
    pub async fn connect(address: &str, config: &Config) -> Result<Self> {
        let login = config.login()?;
        let target = client::Target {
            url: address.to_string(),
            user: login.as_ref().map(|(user, _)| user.clone()),
            password: login.map(|(_, password)| password),
            authority: config.tls_ca.as_ref().map(PathBuf::from),
        };
        let client = Client::connect(&target).await;
        let client =
            client.with_context(|| format!("can't connect to {}", without_login(address)))?;
        Ok(Self { address: without_login(address), client })
    }

    /// As it may be shown.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub async fn execute(&self, sql: &str) -> Result<Reply, tidemill_sql::Error> {
        Ok(match self.client.execute(sql).await? {
            Answer::Done(done) => Reply::Done(done),
            Answer::Rows(stream) => Reply::Rows(Rows {
                schema: stream.schema(),
                batches: stream.map(|batch| batch.map_err(Into::into)).boxed(),
            }),
        })
    }

    /// Asked by the line editor, which can't wait asynchronously.
    pub fn completions(&self, before: &str) -> Vec<String> {
        let asked = tokio::time::timeout(PATIENCE, self.client.completions(before));
        let answer = tokio::task::block_in_place(|| Handle::current().block_on(asked));
        answer.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// A session that can't be ended by itself ends with its time-out.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(FAREWELL, self.client.close()).await;
    }
}

/// `grpc://user:password@host` without what must not be shown.
fn without_login(address: &str) -> String {
    match (address.split_once("://"), address.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_in_the_address_is_not_shown() {
        assert_eq!(without_login("grpc://u:p@h:1"), "grpc://h:1");
        assert_eq!(without_login("grpc://h:1"), "grpc://h:1");
    }
}
