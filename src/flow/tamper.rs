//! What is done at the IdP to accounts that are held, and by them: undone, told, and never passed over.
//!
//! An act on what holds an account is known by what it names: our groups, our roles, the default role. Anything else
//! that was done to an account (another group, another role, an edit) is judged by its effect: the account is read, and
//! only when it no longer is as its record says it has been tampered with. So a nightly sync of unrelated roles is no
//! alarm, and a role that brings full rights inside another one is.

use crate::domain::change::{Change, ChangeKind, Proof, Source};
use crate::domain::hold::attempt::{self, Undoing};
use crate::domain::hold::rebuild::carried::Carried;
use crate::domain::hold::{Effect, Record};
use crate::domain::subject::Subject;
use crate::domain::time::{Span, Timestamp};
use crate::flow::ingest::{self, Era, MARK_KEEP};
use crate::flow::{Flow, FlowError};
use crate::ports::idp::{IdpError, Reading};
use crate::ports::store::{Loaded, Mark, Parts, Updated, Write};

/// An act at the IdP may be under way for this long after a transition.
const SETTLING: Span = Span::from_secs(15);

/// Somebody moved what holds the account at the IdP: agree with the record again, at once, and tell everyone.
pub(super) async fn tampered(
    flow: &Flow,
    subject: &Subject,
    undoing: Undoing<'_>,
) -> Result<Updated, FlowError> {
    let key = flow.key(subject);
    let mark = Mark {
        name: format!("{}:{}", Source::AdminEvents.as_str(), undoing.event),
        keep: MARK_KEEP,
    };
    let policy = flow.policy.load_full();
    let updated = flow
        .store
        .update(&key, Parts::ACCOUNT, Some(&mark), &|loaded| {
            let (record, account) = (loaded.record.as_ref()?, loaded.account.as_ref());
            let now = flow.now(loaded.store_time);
            attempt::tampered(record, account, undoing, now, &policy).map(Write::from)
        })
        .await?;
    if matches!(updated, Updated::Stored) {
        metrics::counter!("reentry_tampered_total").increment(1);
        tracing::warn!(upstream = %subject.upstream, what = undoing.what, "a hold was tampered with at the identity provider");
    }
    Ok(updated)
}

/// Compares an account that something was done to with its record. `event` names what was done.
pub(super) async fn disagreed(
    flow: &Flow,
    subject: &Subject,
    loaded: &Loaded,
    reading: &Reading,
    event: &str,
) -> Result<(), FlowError> {
    let (Some(record), Some(carried)) = (&loaded.record, &reading.carried) else {
        return Ok(());
    };
    let now = flow.now(loaded.store_time);
    if record.restriction(now).is_none() || carried.agrees(&record.posture(now)) {
        return Ok(());
    }
    let posture = record.posture(now);
    let shut = Carried {
        on: false,
        ..carried.clone()
    };
    // It was held whole before, and somebody let it in since.
    let let_in = !record.owed.is_empty() && shut.agrees(&posture);
    if let_in || settled(record, now.earliest()) {
        let what = format!("the account is no longer as its hold wants it: {carried:?}");
        let undoing = Undoing {
            event,
            what: &what,
            own: false,
        };
        tampered(flow, subject, undoing).await?;
        return Ok(());
    }
    // What this process is doing itself looks like that, too, for a moment: without a word, but not without an act.
    let id = format!("converge:compared:{event}");
    let again = |_: &Loaded| {
        Some(Write {
            subject: Some(subject.clone()),
            effects: vec![(id.clone(), Effect::Converge)],
            ..Write::default()
        })
    };
    flow.store
        .update(&flow.key(subject), Parts::RECORD, None, &again)
        .await?;
    Ok(())
}

/// Whether nothing was stored so lately that an act at the IdP may still be under way.
pub(super) fn settled(record: &Record, at: Timestamp) -> bool {
    record.updated.plus(SETTLING) <= at
}

/// An account did something with an administrator's rights. When it is held, that is an alarm with what was done, in
/// its case; what it made, or gave such rights, begins restricted.
pub(super) async fn acted(
    flow: &Flow,
    subject: &Subject,
    (id, at): (&str, Timestamp),
    what: &str,
    made: Option<&str>,
) -> Result<Updated, FlowError> {
    let key = flow.key(subject);
    let loaded = flow.store.read(&key, Parts::RECORD).await?;
    let told = |loaded: &Loaded| {
        let now = flow.now(loaded.store_time);
        attempt::acted(loaded.record.as_ref()?, (id, at), what, now)
    };
    // Administrators who are free act all day: that costs nothing.
    if told(&loaded).is_none() {
        return Ok(Updated::Unchanged);
    }
    if let Some(made) = made.and_then(|sub| Subject::new(subject.upstream.clone(), sub)) {
        restrict(flow, &made, id).await?;
    }
    let mark = Mark {
        name: format!("{}:acted:{id}", Source::AdminEvents.as_str()),
        keep: MARK_KEEP,
    };
    let updated = flow
        .store
        .update(&key, Parts::RECORD, Some(&mark), &|loaded| {
            told(loaded).map(Write::from)
        })
        .await?;
    if matches!(updated, Updated::Stored) {
        metrics::counter!("reentry_acted_in_hold_total").increment(1);
        tracing::error!(upstream = %subject.upstream, what, "a held account acted as an administrator");
    }
    Ok(updated)
}

/// Holds what a held administrator made, as if its password had been set by one: nobody of before stands behind it.
async fn restrict(flow: &Flow, made: &Subject, event: &str) -> Result<(), FlowError> {
    let now = flow.now(None).latest();
    let change = Change {
        id: format!("made:{event}"),
        source: Source::AdminEvents,
        kind: ChangeKind::PasswordSetByAdmin,
        factor: None,
        at: now,
        offset: Span::ZERO,
        received: now,
        proof: Proof::Administrator,
        mediated: false,
        session: None,
        channel: None,
        origin: None,
        previous_address: None,
    };
    let reading = match flow.reading(made).await {
        Err(FlowError::Idp(IdpError::UnknownSubject)) => return Ok(()),
        Ok(reading) => Some(reading),
        // What cannot be read chooses the strictest tier.
        Err(_) => None,
    };
    ingest::store_change(flow, made, &change, reading.as_ref(), Era::Ours).await?;
    Ok(())
}
