//! Sessions of clients: a SQL session each, with its owner and its options.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidemill_sql::{Database, Session};

use crate::ticket::Owner;

/// Sessions that one user may have at a time. Clients that connect anew for every query
/// (Superset) leave theirs behind, so the one that was idle for longest makes room.
const MAX_SESSIONS: usize = 1000;

/// One client.
pub(crate) struct ClientSession {
    pub id: u64,
    /// The user's name.
    pub principal: Arc<str>,
    pub sql: Session,
    /// What the client set with SetSessionOptions.
    pub options: Mutex<BTreeMap<String, String>>,
    last_used: Mutex<Instant>,
}

/// Makes sessions of one database.
pub(crate) struct Sessions {
    pub database: Arc<Database>,
    next: AtomicU64,
    started: Mutex<Vec<Weak<ClientSession>>>,
}

impl Sessions {
    pub fn new(database: Arc<Database>) -> Self {
        Self { database, next: AtomicU64::new(1), started: Mutex::default() }
    }

    pub fn start(&self, principal: String, now: Instant) -> Arc<ClientSession> {
        let session = Arc::new(ClientSession {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            principal: principal.into(),
            sql: self.database.session(),
            options: Mutex::default(),
            last_used: Mutex::new(now),
        });
        self.started.lock().push(Arc::downgrade(&session));
        session
    }

    /// The session that has to end because `principal` has too many.
    pub fn surplus(&self, principal: &str, now: Instant) -> Option<u64> {
        let mut started = self.started.lock();
        started.retain(|session| session.strong_count() > 0);
        if started.len() <= MAX_SESSIONS {
            return None;
        }
        let live = started.iter().filter_map(Weak::upgrade);
        let own: Vec<_> = live.filter(|session| *session.principal == *principal).collect();
        let idlest = own.iter().max_by_key(|session| session.idle(now))?;
        (own.len() > MAX_SESSIONS).then_some(idlest.id)
    }
}

impl ClientSession {
    pub fn owner(&self) -> Owner {
        Owner { principal: self.principal.clone(), session: self.id }
    }

    pub fn touch(&self, now: Instant) {
        *self.last_used.lock() = now;
    }

    pub fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*self.last_used.lock())
    }
}
