//! The demo's identity provider as Reentry's port sees it: the log, the accounts, the acts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::demo::people::People;
use crate::domain::change::Change;
use crate::domain::hold::Posture;
use crate::domain::subject::UpstreamId;
use crate::domain::subject::account::Account;
use crate::domain::time::{Now, Span, Timestamp};
use crate::ports::idp::{
    Converged, Cursor, Heard, IdentityProvider, IdpError, IdpSession, Line, Polled, Reading, Wanted,
};

/// The adapter.
pub struct DemoProvider {
    id: UpstreamId,
    people: Arc<Mutex<People>>,
}

/// The state behind a lock; a panic of another thread leaves it usable.
pub fn locked(people: &Mutex<People>) -> MutexGuard<'_, People> {
    people.lock().unwrap_or_else(PoisonError::into_inner)
}

fn heard(sub: &str, change: &Change, now: Now) -> Line {
    let change = Change {
        received: now.latest(),
        ..change.clone()
    };
    Line {
        sub: sub.to_owned(),
        heard: Heard::Change(change),
    }
}

impl DemoProvider {
    /// Over the state that the provider's pages work on.
    #[must_use]
    pub const fn new(id: UpstreamId, people: Arc<Mutex<People>>) -> Self {
        Self { id, people }
    }
}

#[async_trait]
impl IdentityProvider for DemoProvider {
    fn keeps_log(&self) -> bool {
        false
    }

    fn id(&self) -> &UpstreamId {
        &self.id
    }

    async fn poll(&self, cursor: &Cursor, now: Now) -> Result<Polled, IdpError> {
        let people = locked(&self.people);
        let from: usize = cursor.0.parse().unwrap_or(0);
        let lines = people
            .log
            .iter()
            .skip(from)
            .map(|(sub, change)| heard(sub, change, now))
            .collect();
        Ok(Polled {
            lines,
            next: Cursor(people.log.len().to_string()),
            ..Polled::default()
        })
    }

    async fn story(&self, sub: &str, _since: Timestamp, now: Now) -> Result<Vec<Line>, IdpError> {
        let people = locked(&self.people);
        Ok(people
            .log
            .iter()
            .filter(|(who, _)| who == sub)
            .map(|(sub, c)| heard(sub, c, now))
            .collect())
    }

    async fn account(&self, sub: &str) -> Result<Reading, IdpError> {
        let people = locked(&self.people);
        let person = people.people.get(sub).ok_or(IdpError::UnknownSubject)?;
        Ok(Reading {
            account: person.account(),
            facts: Some(person.facts()),
            carried: None,
            ahead: Span::ZERO,
        })
    }

    async fn accounts(&self, first: u32, max: u32) -> Result<Vec<String>, IdpError> {
        let people = locked(&self.people);
        Ok(people
            .people
            .keys()
            .skip(first as usize)
            .take(max as usize)
            .cloned()
            .collect())
    }

    async fn converge(&self, sub: &str, wanted: &Wanted) -> Result<Converged, IdpError> {
        let mut people = locked(&self.people);
        let person = people.people.get_mut(sub).ok_or(IdpError::UnknownSubject)?;
        let mut acts = Vec::new();
        if person.posture != wanted.posture {
            acts.push(format!("account is now {:?}", wanted.posture));
            person.posture = wanted.posture.clone();
        }
        let contested = matches!(wanted.posture, Posture::Contested(_));
        let before = people.sessions.len();
        people.sessions.retain(|id, s| {
            let cut = wanted
                .cuts
                .iter()
                .any(|c| s.began <= c.at && c.except.as_deref() != Some(id.as_str()));
            let old = wanted.end_before.is_some_and(|end| s.began < end);
            s.sub != sub || !(contested || cut || old)
        });
        let ended = before - people.sessions.len();
        if ended > 0 {
            acts.push(format!("{ended} sessions ended"));
        }
        Ok(Converged {
            acts,
            ..Converged::default()
        })
    }

    async fn restore(&self, sub: &str, since: Timestamp, _before: &Account) -> Result<Vec<String>, IdpError> {
        let mut people = locked(&self.people);
        let person = people.people.get_mut(sub).ok_or(IdpError::UnknownSubject)?;
        if person.password.is_some() && person.password_since >= since {
            person.password = None;
            return Ok(vec!["password removed".to_owned()]);
        }
        Ok(Vec::new())
    }

    async fn end_session(&self, sub: &str, session: &str) -> Result<(), IdpError> {
        locked(&self.people)
            .sessions
            .retain(|id, s| s.sub != sub || id != session);
        Ok(())
    }

    async fn sessions(&self, sub: &str) -> Result<Vec<IdpSession>, IdpError> {
        let people = locked(&self.people);
        let session = |(id, s): (&String, &crate::demo::people::Session)| IdpSession {
            id: id.clone(),
            began: s.began,
            last_access: s.began,
            ip: "127.0.0.1".to_owned(),
            clients: vec!["reentry".to_owned()],
            offline: false,
        };
        Ok(people
            .sessions
            .iter()
            .filter(|(_, s)| s.sub == sub)
            .map(session)
            .collect())
    }

    async fn remove_factor(&self, sub: &str, factor: &str) -> Result<(), IdpError> {
        let mut people = locked(&self.people);
        let person = people.people.get_mut(sub).ok_or(IdpError::UnknownSubject)?;
        person.factors.retain(|f| f.id != factor);
        Ok(())
    }

    async fn health(&self) -> Result<Vec<String>, IdpError> {
        Ok(Vec::new())
    }
}
