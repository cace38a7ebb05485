//! Making the IdP agree with the record. An effect carries only the subject: what is wanted is read when it is
//! done, and read again afterwards, so a late or repeated lift can never undo a newer hold.

use crate::domain::audit::Entry;
use crate::domain::hold::{Posture, Record};
use crate::domain::subject::Subject;
use crate::domain::time::{Now, Span, Timestamp};
use crate::flow::{Flow, FlowError};
use crate::ports::idp::{Converged, IdpError, Wanted};
use crate::ports::store::{Loaded, Mark, Parts, StoreError, Write};

/// How often in a row the record may change under our hands before the effect is put back.
const ROUNDS: usize = 5;
/// How long one worker keeps a subject to itself.
const LEASE: Span = Span::from_secs(60);
/// How long a refusal is remembered as told.
const REMEMBERED: Span = Span::from_days(7);

/// Brings the IdP to what the subject's record says now.
///
/// # Errors
/// [`FlowError`]: tried again. An account that the IdP no longer has is no error.
pub async fn converge(flow: &Flow, subject: &Subject, owner: &str) -> Result<(), FlowError> {
    let key = flow.key(subject);
    let name = format!("converge:{}", hex(&key.0));
    if flow.store.lease(&name, owner, LEASE).await?.is_none() {
        return Err(StoreError::Contended.into());
    }
    let result = rounds(flow, subject).await;
    flow.store.release(&name, owner).await?;
    result
}

async fn rounds(flow: &Flow, subject: &Subject) -> Result<(), FlowError> {
    let key = flow.key(subject);
    for _ in 0..ROUNDS {
        let loaded = flow.store.read(&key, Parts::RECORD).await?;
        let now = flow.now(loaded.store_time);
        let Some(record) = loaded.record else {
            return Ok(());
        };
        let wanted = wanted(&record, now);
        let mut done = match flow.idp(&subject.upstream)?.converge(&subject.sub, &wanted).await {
            Err(IdpError::UnknownSubject) => return Ok(()),
            other => other?,
        };
        // What could only be taken once our record knew of it is taken at once, and nothing is said before.
        let more = done.again && done.owes != wanted.owed;
        if more {
            done.cannot = None;
        }
        write_down(flow, subject, &record, &wanted, &done).await?;
        remember(flow, subject, &wanted, &done).await?;
        if more {
            continue;
        }
        if let (Some(why), true) = (&done.cannot, done.again) {
            return Err(IdpError::Unexpected(why.clone()).into());
        }
        let again = flow.store.read(&key, Parts::RECORD).await?;
        let same = again.record.as_ref().is_some_and(|r| {
            r.epoch == record.epoch && self::wanted(r, flow.now(again.store_time)).posture == wanted.posture
        });
        if same {
            return Ok(());
        }
    }
    Err(StoreError::Contended.into())
}

/// What the IdP has to agree with.
#[must_use]
pub fn wanted(record: &Record, now: Now) -> Wanted {
    let posture = record.posture(now);
    // A freeze rewritten as a hold, and a lift, end nothing new; token mode asks for a fresh log-in by ending
    // the sessions that began before the end of the hold.
    let ended = (posture == Posture::Free && record.fresh_login_at_end())
        .then(|| last_end(record))
        .flatten();
    Wanted {
        posture,
        cuts: record.cuts.clone(),
        end_before: ended,
        owed: record.owed.clone(),
        barred: record.barred(now),
    }
}

/// Writes down what the lift of this hold has to give back, so that it does not hang on the IdP's notes alone.
async fn remember(
    flow: &Flow,
    subject: &Subject,
    wanted: &Wanted,
    done: &Converged,
) -> Result<(), FlowError> {
    if done.owes == wanted.owed {
        return Ok(());
    }
    let noted = |loaded: &Loaded| {
        let record = loaded.record.as_ref().filter(|r| r.owed != done.owes)?;
        let mut record = record.clone();
        record.owed.clone_from(&done.owes);
        Some(Write {
            record: Some(record),
            ..Write::default()
        })
    };
    let key = flow.key(subject);
    flow.store.update(&key, Parts::RECORD, None, &noted).await?;
    Ok(())
}

fn last_end(record: &Record) -> Option<Timestamp> {
    record
        .causes
        .iter()
        .filter(|c| c.holds())
        .map(crate::domain::hold::Cause::end)
        .max()
}

async fn write_down(
    flow: &Flow,
    subject: &Subject,
    record: &Record,
    wanted: &Wanted,
    done: &Converged,
) -> Result<(), FlowError> {
    if done.acts.is_empty() && done.cannot.is_none() {
        return Ok(());
    }
    let id = format!(
        "converged:{}:{}:{:?}",
        record.epoch,
        record.updated.millis(),
        wanted.posture
    );
    // What is tried again and again, and refused for the same reason, is one line and one alarm.
    let mark = done.again.then(|| Mark {
        name: format!("{id}:{}", done.cannot.as_deref().unwrap_or_default()),
        keep: REMEMBERED,
    });
    let case = record.causes.last().map(|c| c.reference.as_str());
    let mut entry = Entry::system(id, flow.clock.now(), "idp_converged", case)
        .with("posture", format!("{:?}", wanted.posture))
        .with("acts", done.acts.join("; "));
    if let Some(why) = &done.cannot {
        metrics::counter!("reentry_cannot_hold_total").increment(1);
        tracing::error!(
            upstream = %subject.upstream, sub = subject.sub, why,
            "an account cannot be held at the identity provider"
        );
        entry = entry.alarming().with("alarm", why).with("sub", &subject.sub);
    }
    let key = flow.key(subject);
    if mark.is_none() && done.cannot.is_none() {
        flow.store.note(subject, &key, &entry).await?;
        return Ok(());
    }
    // An alarm is announced, too.
    let said = |_: &Loaded| Some(Write::saying(subject, entry.clone()));
    flow.store
        .update(&key, Parts::RECORD, mark.as_ref(), &said)
        .await?;
    Ok(())
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
