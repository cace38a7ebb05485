//! The check at a log-in: the account is read and what the IdP knows of it taken in before the first token.

use super::{Era, changed};
use crate::domain::subject::Subject;
use crate::domain::time::{Now, Span};
use crate::flow::unreadable::{self, Failed};
use crate::flow::{Flow, FlowError, ingest, kin, untold};
use crate::ports::idp::{Heard, IdpError, Look, Reading};
use crate::ports::store::Parts;

/// How far a log-in-time check looks back. The poller is there for the rest; it alarms when it is not.
const LOGIN_CHECK: Span = Span::from_days(7);

/// What a log-in-time check found out about the account.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The live reading.
    pub reading: Reading,
    /// Whether every factor one could have logged in with is past its probation.
    pub eligible: bool,
}

/// Asks the IdP for this account's latest changes and ingests them: before the first issuance after each log-in
/// (contract section 3, profile "broker"). What the log does not tell is found by comparing credentials and contacts.
/// An account that cannot be read, although others can, is marked.
///
/// # Errors
/// [`FlowError`]: tokens of that log-in say `none` until a later check succeeds.
pub async fn login_check(flow: &Flow, subject: &Subject) -> Result<Checked, FlowError> {
    let now = flow.now(None);
    let parts = Parts::ACCOUNT.while_rebuilding();
    let loaded = flow.store.read(&flow.key(subject), parts).await?;
    let marked = loaded.record.and_then(|record| record.unreadable);
    let recent = now.earliest().minus(LOGIN_CHECK);
    let look = Look {
        since: marked.as_ref().map_or(recent, |marked| marked.from.min(recent)),
        now,
    };
    let observation = match flow.observe(subject, look).await {
        Err(FlowError::Idp(error)) => return Err(not_read(flow, subject, error, now).await),
        other => other?,
    };
    // Only changes matter to the token that is about to be issued; the rest is the poller's.
    let changes = observation.told.iter().filter_map(|told| match &told.heard {
        Heard::Change(change) => Some(change),
        Heard::Withdrawn { .. }
        | Heard::Tampered { .. }
        | Heard::Acted { .. }
        | Heard::Entered { .. }
        | Heard::Touched { .. } => None,
    });
    let mut read = Some(observation.reading.clone());
    for change in changes {
        changed(flow, subject, change, &mut read, Era::Ours).await?;
    }
    let reading = observation.reading;
    untold::check(flow, subject, &reading).await?;
    untold::contacts(flow, subject, &reading).await?;
    if loaded.account.is_none() {
        first_snapshot(flow, subject, &reading).await?;
    }
    kin::returned(flow, subject, &reading).await?;
    if marked.is_some_and(|marked| !marked.lost) {
        unreadable::readable(flow, subject).await?;
    }
    let policy = flow.policy.load();
    let record = flow.store.read(&flow.key(subject), Parts::RECORD).await?.record;
    let doubt = record.and_then(|r| r.doubt());
    let eligible = reading.account.proves(now.earliest(), policy.probation, doubt);
    Ok(Checked { reading, eligible })
}

/// An account of which no line ever told (one that a directory brought) has no snapshot yet. What changes after this
/// log-in without a line is found by comparing with it. One that is being made anew gets its own by that.
async fn first_snapshot(flow: &Flow, subject: &Subject, reading: &Reading) -> Result<(), FlowError> {
    match ingest::refresh(flow, &flow.key(subject), &reading.account).await {
        Err(FlowError::Store(error)) if error.heals() => Ok(()),
        other => other.map(drop),
    }
}

/// The account could not be read at its log-in. When others can, that is noted of it.
async fn not_read(flow: &Flow, subject: &Subject, error: IdpError, now: Now) -> FlowError {
    if matches!(error, IdpError::UnknownSubject) {
        return error.into();
    }
    let failed = Failed {
        subject: subject.clone(),
        error,
        from: now.earliest().minus(LOGIN_CHECK),
        lost: false,
    };
    let look = Look {
        since: now.earliest(),
        now,
    };
    let again = |subject: Subject| async move { flow.observe(&subject, look).await.map(|_| ()) };
    match unreadable::settle(flow, &subject.upstream, vec![failed], 1, again).await {
        Ok(_) => IdpError::Unreachable("the account could not be read at its log-in".to_owned()).into(),
        Err(error) => error,
    }
}
