//! Who is calling: users, passwords, bearer tokens.
//!
//! A password is sent once, with `Basic` on `Handshake`; the answer carries a bearer
//! token as a response header, and every later call brings that. A token ends after its
//! lifetime; in the second half of it, responses carry a successor that clients which
//! look (ADBC, JDBC) take up. Where there are no users, any credentials will do, and a
//! call without any belongs to the session of its connection.

mod token;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use subtle::ConstantTimeEq;
use tonic::Response;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::connection::ConnectInfo;
use crate::error::{Error, Result};
use crate::options::{MAX_PASSWORD, ServeOptions};
use crate::session::{ClientSession, Sessions};
use token::Tokens;

const AUTHORIZATION: &str = "authorization";
const ANONYMOUS: &str = "anonymous";

/// Logins come with padding (Python, Java) and without (Go, so ADBC and Grafana).
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a call brings to say who it is.
#[derive(Debug, PartialEq, Eq)]
enum Credentials {
    None,
    Basic { name: String, password: String },
    Bearer(Bytes),
}

/// A call whose caller is known.
#[derive(Clone)]
pub(crate) struct Caller {
    pub session: Arc<ClientSession>,
    /// The token that the client should use from now on.
    token: Option<Bytes>,
}

/// Checks callers against the users and the tokens that were given out.
pub(crate) struct Authenticator {
    users: Vec<(String, String)>,
    tokens: Tokens<Arc<ClientSession>>,
}

impl Authenticator {
    pub fn new(options: &ServeOptions) -> Self {
        Self { users: options.users.clone(), tokens: Tokens::new(options.token_lifetime) }
    }

    /// Lets a client in: answers its session and the token to send back.
    pub fn handshake(
        &self,
        metadata: &MetadataMap,
        sessions: &Sessions,
        now: Instant,
    ) -> Result<Caller> {
        let open = self.users.is_empty();
        let principal = match credentials(metadata)? {
            // ADBC logs in with an empty name where it was given none.
            Credentials::Basic { name, .. } if open && name.is_empty() => ANONYMOUS.to_owned(),
            Credentials::Basic { name, password } if self.knows(&name, &password) => name,
            Credentials::Bearer(token) => match self.bearer(&token, now) {
                Some(caller) => return Ok(Caller { token: Some(token), ..caller }),
                None if open => ANONYMOUS.to_owned(),
                None => return Err(lapsed()),
            },
            Credentials::None if open => ANONYMOUS.to_owned(),
            Credentials::Basic { .. } => return Err(refused("wrong user name or password")),
            Credentials::None => return Err(refused("a user name and a password are needed")),
        };
        let session = sessions.start(principal, now);
        let token = self.tokens.issue(session.owner(), session.clone(), now);
        Ok(Caller { session, token })
    }

    /// Says who is calling.
    pub fn caller(
        &self,
        metadata: &MetadataMap,
        connection: Option<&ConnectInfo>,
        sessions: &Sessions,
        now: Instant,
    ) -> Result<Caller> {
        let open = self.users.is_empty();
        let caller = match credentials(metadata)? {
            Credentials::Bearer(token) => self.bearer(&token, now),
            Credentials::Basic { .. } if !open => {
                return Err(refused("Basic is for Handshake: later calls bring its bearer token"));
            }
            Credentials::None if !open => {
                return Err(refused("log in first (Handshake with a user name and a password)"));
            }
            _ => None,
        };
        let caller = match caller {
            Some(caller) => caller,
            None if open => anonymous(connection, sessions, now)?,
            None => return Err(lapsed()),
        };
        caller.session.touch(now);
        Ok(caller)
    }

    fn bearer(&self, token: &[u8], now: Instant) -> Option<Caller> {
        let (session, token) = self.tokens.find(token, now)?;
        Some(Caller { session, token })
    }

    /// Every user is compared, in constant time, whether the name is right or not.
    fn knows(&self, name: &str, password: &str) -> bool {
        let found = self.users.iter().fold(subtle::Choice::from(0), |found, (user, secret)| {
            found | (same(user, name) & same(secret, password))
        });
        self.users.is_empty() || bool::from(found)
    }

    pub fn end(&self, session: u64) {
        self.tokens.end(session);
    }

    /// Forgets lapsed tokens, and those of sessions that nobody uses.
    pub fn sweep(&self, now: Instant, idle: Duration) {
        self.tokens.sweep(now, |session| session.idle(now) < idle);
    }
}

impl Caller {
    /// Adds the token to a response, where there is one to send.
    pub fn answer<T>(&self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        let token = self.token.as_ref().map(|token| BASE64_URL_SAFE_NO_PAD.encode(token));
        if let Some(Ok(value)) =
            token.map(|token| MetadataValue::try_from(format!("Bearer {token}")))
        {
            response.metadata_mut().insert(AUTHORIZATION, value);
        }
        response
    }
}

fn anonymous(
    connection: Option<&ConnectInfo>,
    sessions: &Sessions,
    now: Instant,
) -> Result<Caller> {
    let connection = connection
        .ok_or_else(|| Error::Internal("a request came without its connection".to_owned()))?;
    let session =
        connection.session.get_or_init(|| sessions.start(ANONYMOUS.to_owned(), now)).clone();
    Ok(Caller { session, token: None })
}

fn credentials(metadata: &MetadataMap) -> Result<Credentials> {
    let Some(value) = metadata.get(AUTHORIZATION) else { return Ok(Credentials::None) };
    let malformed = || refused("the authorization header is malformed");
    let (scheme, rest) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        // A token that can't be ours is an unknown one.
        let token = BASE64_URL_SAFE_NO_PAD.decode(rest.trim()).unwrap_or_default();
        return Ok(Credentials::Bearer(token.into()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(refused("authorization is by Basic or Bearer"));
    }
    let decoded = BASE64.decode(rest.trim()).map_err(|_| malformed())?;
    let decoded = String::from_utf8(decoded).map_err(|_| malformed())?;
    let (name, password) = decoded.split_once(':').ok_or_else(malformed)?;
    Ok(Credentials::Basic { name: name.to_owned(), password: password.to_owned() })
}

/// Equality that takes the same time whatever the texts hold: both are padded.
fn same(left: &str, right: &str) -> subtle::Choice {
    let padded = |text: &str| {
        let mut buffer = [0; MAX_PASSWORD];
        let length = text.len().min(MAX_PASSWORD);
        buffer[..length].copy_from_slice(&text.as_bytes()[..length]);
        buffer
    };
    let lengths = (left.len() as u64).ct_eq(&(right.len() as u64));
    lengths & padded(left)[..].ct_eq(&padded(right)[..])
}

fn refused(message: &str) -> Error {
    Error::Unauthenticated(message.to_owned())
}

fn lapsed() -> Error {
    refused("the token is unknown or has expired: log in again")
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD_NO_PAD;

    use super::*;

    fn header(value: &str) -> Result<Credentials> {
        let mut metadata = MetadataMap::new();
        metadata.insert(AUTHORIZATION, value.parse().unwrap());
        credentials(&metadata)
    }

    fn basic(login: &str) -> Result<Credentials> {
        let padded = header(&format!("Basic {}", BASE64.encode(login)));
        let bare = header(&format!("Basic {}", BASE64_STANDARD_NO_PAD.encode(login)));
        assert_eq!(padded.as_ref().ok(), bare.as_ref().ok());
        padded
    }

    #[test]
    fn credentials_are_read_from_the_header() {
        assert_eq!(credentials(&MetadataMap::new()).unwrap(), Credentials::None);
        let name = "ann".to_owned();
        let password = "a:b".to_owned();
        assert_eq!(basic("ann:a:b").unwrap(), Credentials::Basic { name, password });
        let token = Bytes::from_static(&[1, 2, 3]);
        assert_eq!(header("bearer AQID").unwrap(), Credentials::Bearer(token));
        assert_eq!(header("Bearer no token").unwrap(), Credentials::Bearer(Bytes::new()));
        for wrong in ["", "Basic", "Basic %%", "Digest x", "AQID"] {
            assert!(matches!(header(wrong), Err(Error::Unauthenticated(_))), "{wrong}");
        }
        assert!(basic("no colon").is_err());
    }

    #[test]
    fn both_name_and_password_must_be_right() {
        let users = [("ann", "secret"), ("bob", "hidden")];
        let users = users.map(|(name, password)| (name.to_owned(), password.to_owned())).to_vec();
        let known = Authenticator::new(&ServeOptions { users, ..ServeOptions::default() });
        assert!(known.knows("ann", "secret") && known.knows("bob", "hidden"));
        for (name, password) in [
            ("ann", "hidden"),
            ("ann", ""),
            ("", ""),
            ("ann", "secret\0"),
            ("ann", "Secret"),
            ("eve", "secret"),
            ("ann", "secre"),
            ("ann", &"s".repeat(300)),
        ] {
            assert!(!known.knows(name, password), "{name} {password}");
        }
        let open = Authenticator::new(&ServeOptions::default());
        assert!(open.knows("anybody", "anything"));
    }
}
