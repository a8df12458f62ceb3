//! How a server is started: who may come in, over what, and for how long.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

/// Longest password that is taken: they are compared padded to this length.
pub(crate) const MAX_PASSWORD: usize = 256;

/// Settings of a server. `Debug` shows no password.
#[derive(Clone)]
pub struct ServeOptions {
    /// Names and passwords. With none, everybody may come in without one, and the server
    /// listens on loopback only (unless `allow_anonymous`).
    pub users: Vec<(String, String)>,
    /// Serves TLS; plain TCP without.
    pub tls: Option<TlsOptions>,
    /// Listens on other addresses than loopback although there are no users.
    pub allow_anonymous: bool,
    /// How long a token is good for. After half of it, responses carry its successor.
    pub token_lifetime: Duration,
    /// How long a session, or a prepared statement, lives without being used.
    pub idle_timeout: Duration,
    /// How long a ticket waits to be read.
    pub ticket_lifetime: Duration,
    /// Prepared statements, and unread tickets, that one session may hold.
    pub max_handles: usize,
    /// Bytes of the largest message taken in (parameters), and of all that are bound at once.
    pub max_message_size: usize,
    /// A result that is silent for this long sends an empty batch, so that proxies on the
    /// way don't take the connection for a dead one.
    pub keep_alive: Duration,
}

/// A server's certificate chain and its private key, as PEM files.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsOptions {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Default for ServeOptions {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        Self {
            users: Vec::new(),
            tls: None,
            allow_anonymous: false,
            token_lifetime: Duration::from_secs(24 * 60 * MINUTE),
            idle_timeout: Duration::from_secs(60 * MINUTE),
            ticket_lifetime: Duration::from_secs(10 * MINUTE),
            max_handles: 1000,
            max_message_size: 64 << 20,
            keep_alive: Duration::from_secs(15),
        }
    }
}

impl ServeOptions {
    /// Refuses what would let strangers in at `address`, or could never work. [`serve`] does so
    /// itself; a caller that has work to do before may ask first.
    ///
    /// [`serve`]: crate::serve
    pub fn check(&self, address: SocketAddr) -> Result<()> {
        if self.users.is_empty() && !self.allow_anonymous && !address.ip().is_loopback() {
            return Err(Error::config(
                format!("{address} can be reached from other machines, and no password is set"),
                "set a user and a password, listen on 127.0.0.1, or allow anonymous access",
            ));
        }
        let bad = |(name, password): &&(String, String)| {
            name.is_empty()
                || name.contains(':')
                || password.is_empty()
                || password.len() > MAX_PASSWORD
        };
        if let Some((name, _)) = self.users.iter().find(bad) {
            return Err(Error::config(
                format!("user {name:?} can't be used"),
                format!(
                    "a name is not empty and holds no colon, a password has 1 to {MAX_PASSWORD} bytes"
                ),
            ));
        }
        Ok(())
    }

    pub(crate) fn warn_of_eavesdroppers(&self, address: SocketAddr) {
        if self.tls.is_none() && !self.users.is_empty() && !address.ip().is_loopback() {
            tracing::warn!(%address, "passwords and data travel unencrypted: there is no TLS");
        }
    }
}

impl fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users: Vec<&str> = self.users.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ServeOptions")
            .field("users", &users)
            .field("tls", &self.tls)
            .field("allow_anonymous", &self.allow_anonymous)
            .field("token_lifetime", &self.token_lifetime)
            .field("idle_timeout", &self.idle_timeout)
            .field("ticket_lifetime", &self.ticket_lifetime)
            .field("max_handles", &self.max_handles)
            .field("max_message_size", &self.max_message_size)
            .field("keep_alive", &self.keep_alive)
            .finish()
    }
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(users: &[(&str, &str)]) -> ServeOptions {
        let users = users.iter().map(|(n, p)| ((*n).to_owned(), (*p).to_owned())).collect();
        ServeOptions { users, ..ServeOptions::default() }
    }

    fn check(options: &ServeOptions, address: &str) -> Result<()> {
        options.check(address.parse().unwrap())
    }

    #[test]
    fn only_loopback_without_a_password() {
        assert!(check(&options(&[]), "127.0.0.1:1").is_ok());
        assert!(check(&options(&[]), "[::1]:1").is_ok());
        let refused = check(&options(&[]), "0.0.0.0:1").unwrap_err().to_string();
        assert!(refused.contains("no password is set"), "{refused}");
        assert!(check(&options(&[("ann", "secret")]), "0.0.0.0:1").is_ok());
        let open = ServeOptions { allow_anonymous: true, ..ServeOptions::default() };
        assert!(check(&open, "0.0.0.0:1").is_ok());
    }

    #[test]
    fn refuses_users_that_could_never_log_in() {
        for user in [("", "x"), ("a:b", "x"), ("ann", ""), ("ann", "x".repeat(257).as_str())] {
            assert!(check(&options(&[user]), "127.0.0.1:1").is_err());
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut options = options(&[("ann", "hunter2")]);
        options.tls = Some(TlsOptions { certificate: "c.pem".into(), key: "very-private".into() });
        let shown = format!("{options:?}");
        assert!(shown.contains("ann") && shown.contains("c.pem"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("very-private"), "{shown}");
    }
}
