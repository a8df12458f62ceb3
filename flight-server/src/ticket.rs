//! Handles that a client is given and brings back: tickets, prepared statements, tokens.
//!
//! A handle is 32 random bytes. The first half finds the entry, the second half is its
//! secret and is compared in constant time, so that neither can be guessed piece by
//! piece. An entry belongs to a principal (who may use it) and to a session (with which
//! it ends); it expires, and a session holds only so many.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::RngCore;
use subtle::ConstantTimeEq;

const ID: usize = 16;
const SECRET: usize = 16;

/// Whose an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub principal: Arc<str>,
    pub session: u64,
}

/// What happens when a session holds as many entries as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenFull {
    Refuse,
    DropOldest,
}

/// Entries behind unguessable handles.
#[derive(Debug)]
pub(crate) struct Vault<T> {
    pub lifetime: Duration,
    pub limit: usize,
    pub when_full: WhenFull,
    entries: Mutex<HashMap<[u8; ID], Entry<T>>>,
}

#[derive(Debug)]
struct Entry<T> {
    secret: [u8; SECRET],
    owner: Owner,
    expires: Instant,
    value: T,
}

impl<T: Clone> Vault<T> {
    pub fn new(lifetime: Duration, limit: usize, when_full: WhenFull) -> Self {
        Self { lifetime, limit, when_full, entries: Mutex::default() }
    }

    /// Keeps `value` and answers its handle; `None` when the session holds too many.
    pub fn insert(&self, owner: Owner, value: T, now: Instant) -> Option<Bytes> {
        let mut handle = [0; ID + SECRET];
        rand::rng().fill_bytes(&mut handle);
        let (id, secret) = halves(&handle)?;
        let mut entries = self.entries.lock();
        if entries.len() >= self.limit && !self.make_room(&mut entries, owner.session, now) {
            return None;
        }
        entries.insert(id, Entry { secret, owner, expires: now + self.lifetime, value });
        Some(Bytes::copy_from_slice(&handle))
    }

    fn make_room(
        &self,
        entries: &mut HashMap<[u8; ID], Entry<T>>,
        session: u64,
        now: Instant,
    ) -> bool {
        entries.retain(|_, entry| entry.expires > now);
        let own = || entries.iter().filter(|(_, entry)| entry.owner.session == session);
        if own().count() < self.limit {
            return true;
        }
        let oldest = own().min_by_key(|(_, entry)| entry.expires).map(|(id, _)| *id);
        match (self.when_full, oldest) {
            (WhenFull::DropOldest, Some(id)) => entries.remove(&id).is_some(),
            _ => false,
        }
    }

    /// The entry of a handle, whoever brings it: the handle itself is the proof.
    pub fn find(&self, handle: &[u8], now: Instant) -> Option<T> {
        let (id, secret) = halves(handle)?;
        let entries = self.entries.lock();
        let entry = entries.get(&id)?;
        (same(&entry.secret, &secret) && entry.expires > now).then(|| entry.value.clone())
    }

    /// The entry of a handle that `principal` brings; using it renews it.
    pub fn get(&self, principal: &str, handle: &[u8], now: Instant) -> Option<T> {
        let (id, secret) = halves(handle)?;
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&id).filter(|e| e.opens(principal, &secret, now))?;
        entry.expires = now + self.lifetime;
        Some(entry.value.clone())
    }

    /// Takes the entry of a handle out: it can be used this once.
    pub fn take(&self, principal: &str, handle: &[u8], now: Instant) -> Option<T> {
        let (id, secret) = halves(handle)?;
        let mut entries = self.entries.lock();
        entries.get(&id).filter(|e| e.opens(principal, &secret, now))?;
        entries.remove(&id).map(|entry| entry.value)
    }

    /// Drops whatever belongs to a session that has ended.
    pub fn remove_session(&self, session: u64) {
        self.entries.lock().retain(|_, entry| entry.owner.session != session);
    }

    /// Drops what has expired and what `keep` does not want; answers how many are left.
    pub fn sweep(&self, now: Instant, keep: impl Fn(&T) -> bool) -> usize {
        let mut entries = self.entries.lock();
        entries.retain(|_, entry| entry.expires > now && keep(&entry.value));
        entries.len()
    }
}

impl<T> Entry<T> {
    fn opens(&self, principal: &str, secret: &[u8; SECRET], now: Instant) -> bool {
        same(&self.secret, secret) && *self.owner.principal == *principal && self.expires > now
    }
}

fn halves(handle: &[u8]) -> Option<([u8; ID], [u8; SECRET])> {
    let (id, secret) = handle.split_first_chunk::<ID>()?;
    Some((*id, secret.try_into().ok()?))
}

fn same(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn owner(principal: &str, session: u64) -> Owner {
        Owner { principal: principal.into(), session }
    }

    #[test]
    fn a_handle_opens_for_its_principal_only() {
        let (vault, now) = (Vault::new(HOUR, 9, WhenFull::Refuse), Instant::now());
        let handle = vault.insert(owner("ann", 1), "secret", now).unwrap();
        assert_eq!(handle.len(), 32);
        assert_eq!(vault.get("ann", &handle, now), Some("secret"));
        assert_eq!(vault.get("bob", &handle, now), None);
        assert_eq!(vault.take("bob", &handle, now), None);
        assert_eq!(vault.take("ann", &handle, now), Some("secret"));
        assert_eq!(vault.take("ann", &handle, now), None, "taken once");
    }

    #[test]
    fn a_handle_with_one_bit_changed_is_unknown() {
        let (vault, now) = (Vault::new(HOUR, 9, WhenFull::Refuse), Instant::now());
        let handle = vault.insert(owner("ann", 1), (), now).unwrap();
        for at in 0..handle.len() {
            let mut wrong = handle.to_vec();
            wrong[at] ^= 1;
            assert_eq!(vault.find(&wrong, now), None);
        }
        for wrong in [&b""[..], &handle[..31], &[&handle[..], b"x"].concat()] {
            assert_eq!(vault.get("ann", wrong, now), None);
        }
    }

    #[test]
    fn entries_expire_unless_they_are_used() {
        let (vault, start) = (Vault::new(HOUR, 9, WhenFull::Refuse), Instant::now());
        let used = vault.insert(owner("ann", 1), "used", start).unwrap();
        let unused = vault.insert(owner("ann", 1), "unused", start).unwrap();
        assert!(vault.get("ann", &used, start + HOUR / 2).is_some());
        assert!(vault.get("ann", &unused, start + HOUR).is_none());
        assert_eq!(vault.sweep(start + HOUR, |_| true), 1);
        assert!(vault.find(&used, start + HOUR).is_some());
        assert_eq!(vault.sweep(start + HOUR, |_| false), 0);
    }

    #[test]
    fn a_full_session_is_refused_or_loses_its_oldest() {
        let now = Instant::now();
        let refusing = Vault::new(HOUR, 2, WhenFull::Refuse);
        let dropping = Vault::new(HOUR, 2, WhenFull::DropOldest);
        let later = |n: u64| now + Duration::from_secs(n);
        let first = dropping.insert(owner("ann", 1), 0, later(0)).unwrap();
        let other = dropping.insert(owner("ann", 2), 0, later(0)).unwrap();
        dropping.insert(owner("ann", 1), 1, later(1)).unwrap();
        let newest = dropping.insert(owner("ann", 1), 2, later(2)).unwrap();
        assert!(dropping.find(&first, later(2)).is_none());
        assert!(dropping.find(&newest, later(2)).is_some());
        assert!(dropping.find(&other, later(2)).is_some(), "other sessions are left alone");

        refusing.insert(owner("ann", 1), 0, now).unwrap();
        refusing.insert(owner("ann", 1), 1, now).unwrap();
        assert!(refusing.insert(owner("ann", 1), 2, now).is_none());
        assert!(refusing.insert(owner("ann", 2), 2, now).is_some());
        refusing.remove_session(1);
        assert!(refusing.insert(owner("ann", 1), 2, now).is_some());
    }
}
