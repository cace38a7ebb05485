//! Relying parties are told when a session that they have tokens of has ended: by a log-out, by its owner, by a change,
//! by a report.
//!
//! A change ends sessions without touching them (a session lives by the record), so those that ended by one are looked
//! for when the change's effects are worked off: each becomes one outbox entry for each relying party, and the session
//! forgets its relying parties in the same atomic step. Whoever cannot be reached then holds up nobody else.

use crate::domain::hold::Effect;
use crate::domain::session::{Farewell, Session};
use crate::domain::subject::Subject;
use crate::flow::{Flow, FlowError};
use crate::ports::store::{Parts, Write};

/// One effect for each relying party of a session that takes back-channel log-out; the session forgets them all.
#[must_use]
pub fn of(flow: &Flow, session: &mut Session) -> Vec<(String, Effect)> {
    let clients = std::mem::take(&mut session.clients).into_iter();
    let sid = &session.id;
    let one = |client: String| {
        let id = format!("farewell:{sid}:{client}");
        let session = sid.clone();
        (id, Effect::Farewell(Box::new(Farewell { client, session })))
    };
    clients
        .filter(|c| flow.notifier.takes_logout(c))
        .map(one)
        .collect()
}

/// Says farewell for every session that a change has ended.
///
/// # Errors
/// [`FlowError::Store`]: nothing was stored, and it has to be done again.
pub async fn after_cut(flow: &Flow, subject: &Subject) -> Result<(), FlowError> {
    let write = |loaded: &crate::ports::store::Loaded| {
        let record = loaded.record.as_ref()?;
        let mut grants = loaded.grants.clone()?;
        let gone = |s: &&mut Session| {
            !s.clients.is_empty()
                && (s.ended.is_some() || !record.session_lives(s.began, s.upstream_sid.as_deref()))
        };
        let ended: Vec<&mut Session> = grants.sessions.iter_mut().filter(gone).collect();
        if ended.is_empty() {
            return None;
        }
        let effects = ended.into_iter().flat_map(|session| of(flow, session)).collect();
        Some(Write {
            subject: Some(subject.clone()),
            grants: Some(grants),
            effects,
            ..Write::default()
        })
    };
    flow.store
        .update(&flow.key(subject), Parts::GRANTS, None, &write)
        .await?;
    Ok(())
}
