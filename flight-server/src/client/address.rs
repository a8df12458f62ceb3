//! Where a client connects to: `grpc://`, `grpc+tls://`, with or without a login.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::error::{Error, Result};
use crate::server::choose_crypto;

/// The port of an address that names none.
pub const DEFAULT_PORT: u16 = 50051;

/// Where to connect to, and as whom. `Debug` shows no password.
#[derive(Clone, Default)]
pub struct Target {
    /// `HOST:PORT`, `grpc://HOST:PORT` or `grpc+tls://HOST:PORT`; may hold `USER:PASSWORD@`.
    pub url: String,
    /// Before what the URL says.
    pub user: Option<String>,
    pub password: Option<String>,
    /// PEM file of the authority that signed the server's certificate, where the system
    /// does not know it.
    pub authority: Option<PathBuf>,
}

/// A target's URL, taken apart.
pub(super) struct Address {
    /// As tonic wants it: `http://host:port`.
    pub url: String,
    tls: bool,
    pub user: Option<String>,
    pub password: Option<String>,
}

impl FromStr for Target {
    type Err = Error;

    /// Takes an address as [`Target::url`] describes it.
    fn from_str(url: &str) -> Result<Self> {
        let target = Self { url: url.to_owned(), ..Self::default() };
        Address::parse(&target)?;
        Ok(target)
    }
}

impl Address {
    pub fn parse(target: &Target) -> Result<Self> {
        let bad = |reason: String| {
            let what =
                format!("{:?} is no address of a server: {reason}", without_login(&target.url));
            Error::config(what, "write grpc://HOST:PORT, or grpc+tls://HOST:PORT for TLS")
        };
        let (scheme, rest) = target.url.split_once("://").unwrap_or(("grpc", &target.url));
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "grpc" | "grpc+tcp" | "http" => false,
            "grpc+tls" | "grpcs" | "https" => true,
            other => return Err(bad(format!("unknown scheme {other:?}"))),
        };
        let url = url::Url::parse(&format!("grpc://{rest}")).map_err(|e| bad(e.to_string()))?;
        let host = url.host_str().ok_or_else(|| bad("it names no host".to_owned()))?;
        let port = url.port().unwrap_or(DEFAULT_PORT);
        let decoded = |text: &str| match text {
            "" => Ok(None),
            text => percent_decoded(text)
                .map(Some)
                .ok_or_else(|| bad("the login is malformed".to_owned())),
        };
        Ok(Self {
            url: format!("{}://{host}:{port}", if tls { "https" } else { "http" }),
            tls,
            user: target.user.clone().map_or_else(|| decoded(url.username()), |u| Ok(Some(u)))?,
            password: match &target.password {
                Some(password) => Some(password.clone()),
                None => decoded(url.password().unwrap_or_default())?,
            },
        })
    }

    pub async fn endpoint(&self, target: &Target) -> Result<Endpoint> {
        let endpoint = Endpoint::from_shared(self.url.clone())
            .map_err(|error| Error::transport(&error))?
            .connect_timeout(Duration::from_secs(10))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_while_idle(true);
        if !self.tls {
            return Ok(endpoint);
        }
        choose_crypto();
        let tls = match &target.authority {
            None => ClientTlsConfig::new().with_native_roots(),
            Some(path) => {
                let pem = tokio::fs::read(path).await.map_err(|error| {
                    let what = format!("{}: {error}", path.display());
                    Error::config(what, "name the PEM file of the authority")
                })?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
        };
        endpoint.tls_config(tls).map_err(|error| Error::transport(&error))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("url", &without_login(&self.url))
            .field("user", &self.user)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

/// The URL as it may be shown.
fn without_login(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        _ => url.to_owned(),
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                bytes.push(u8::try_from(high * 16 + low).ok()?);
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address> {
        Address::parse(&Target { url: url.to_owned(), ..Target::default() })
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (url, read, tls) in [
            ("localhost:7", "http://localhost:7", false),
            ("grpc://[::1]:7", "http://[::1]:7", false),
            ("grpc+tcp://h:7", "http://h:7", false),
            ("grpc+tls://h", "https://h:50051", true),
            ("GRPCS://h:7/", "https://h:7", true),
        ] {
            let address = parse(url).unwrap();
            assert_eq!((address.url.as_str(), address.tls), (read, tls), "{url}");
        }
    }

    #[test]
    fn a_login_may_be_in_the_address_or_beside_it() {
        let address = parse("grpc://ann:p%40ss%2F@h:7").unwrap();
        assert_eq!(address.user.as_deref(), Some("ann"));
        assert_eq!(address.password.as_deref(), Some("p@ss/"));
        let target = Target {
            url: "grpc://ann:x@h:7".to_owned(),
            user: Some("bob".to_owned()),
            password: Some("y".to_owned()),
            authority: None,
        };
        let address = Address::parse(&target).unwrap();
        assert_eq!(
            (address.user.as_deref(), address.password.as_deref()),
            (Some("bob"), Some("y"))
        );
        assert_eq!(parse("h:7").unwrap().user, None);
    }

    #[test]
    fn what_is_no_address_is_refused_without_showing_the_password() {
        assert_eq!("h:7".parse::<Target>().unwrap().url, "h:7");
        for url in ["postgres://ann:secret@h:7", "grpc://", "grpc://ann:secret@h:seven", ""] {
            let error = url.parse::<Target>().err().unwrap().to_string();
            assert!(error.contains("grpc://HOST:PORT"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let target = Target { url: "grpc://ann:secret@h:7".to_owned(), ..Target::default() };
        assert!(!format!("{target:?}").contains("secret"));
    }
}
