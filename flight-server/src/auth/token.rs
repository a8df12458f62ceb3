//! Bearer tokens: given out, looked up, followed by a successor before they end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::ticket::{Owner, Vault, WhenFull};

/// Tokens that one session may hold: the one in use, its successor, and some that were
/// never taken up.
const MAX_TOKENS: usize = 16;

/// Tokens, each for a session `S`.
pub(crate) struct Tokens<S> {
    vault: Vault<Arc<Token<S>>>,
}

struct Token<S> {
    session: S,
    owner: Owner,
    issued: Instant,
    successor: Mutex<Option<Bytes>>,
}

impl<S: Clone> Tokens<S> {
    pub fn new(lifetime: Duration) -> Self {
        Self { vault: Vault::new(lifetime, MAX_TOKENS, WhenFull::DropOldest) }
    }

    pub fn issue(&self, owner: Owner, session: S, now: Instant) -> Option<Bytes> {
        let token =
            Token { session, owner: owner.clone(), issued: now, successor: Mutex::default() };
        self.vault.insert(owner, Arc::new(token), now)
    }

    /// The session of a token and, in the second half of the token's life, its successor:
    /// the same one for every call that still comes with the old token.
    pub fn find(&self, token: &[u8], now: Instant) -> Option<(S, Option<Bytes>)> {
        let token = self.vault.find(token, now)?;
        if now.duration_since(token.issued) < self.vault.lifetime / 2 {
            return Some((token.session.clone(), None));
        }
        let mut successor = token.successor.lock();
        if successor.is_none() {
            *successor = self.issue(token.owner.clone(), token.session.clone(), now);
        }
        Some((token.session.clone(), successor.clone()))
    }

    pub fn end(&self, session: u64) {
        self.vault.remove_session(session);
    }

    pub fn sweep(&self, now: Instant, keep: impl Fn(&S) -> bool) {
        self.vault.sweep(now, |token| keep(&token.session));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn owner() -> Owner {
        Owner { principal: "ann".into(), session: 1 }
    }

    #[test]
    fn a_token_is_followed_by_one_successor_and_ends() {
        let (tokens, start) = (Tokens::new(DAY), Instant::now());
        let first = tokens.issue(owner(), "session", start).unwrap();
        assert_eq!(tokens.find(&first, start + DAY / 4), Some(("session", None)));

        let (_, second) = tokens.find(&first, start + DAY * 3 / 4).unwrap();
        let second = second.unwrap();
        assert_ne!(first, second);
        let (_, again) = tokens.find(&first, start + DAY * 3 / 4).unwrap();
        assert_eq!(again.as_ref(), Some(&second));

        assert_eq!(tokens.find(&first, start + DAY), None);
        assert_eq!(tokens.find(&second, start + DAY), Some(("session", None)));
        assert_eq!(tokens.find(b"guess", start), None);
    }

    #[test]
    fn a_session_takes_its_tokens_with_it() {
        let (tokens, now) = (Tokens::new(DAY), Instant::now());
        let ended = tokens.issue(owner(), "ended", now).unwrap();
        let idle =
            tokens.issue(Owner { principal: "ann".into(), session: 2 }, "idle", now).unwrap();
        tokens.end(1);
        assert_eq!(tokens.find(&ended, now), None);
        tokens.sweep(now, |session| *session != "idle");
        assert_eq!(tokens.find(&idle, now), None);
    }
}
