//! Two different administrators end a freeze. Each is checked live at the IdP at the moment of approving, and
//! both again at the moment of use; each has held the role for the probation, and the others were told of it (P11).

use std::sync::Mutex;

use crate::domain::audit::{Actor, Entry};
use crate::domain::hold::Record;
use crate::domain::hold::contest::{self, Contest, Finding, ThawRefusal};
use crate::domain::holders::Weight;
use crate::domain::subject::Subject;
use crate::domain::time::{Span, Timestamp};
use crate::flow::{Flow, FlowError, holders};
use crate::ports::idp::IdpError;
use crate::ports::store::{Parts, Write};

/// Why an approval was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ThawError {
    /// The person is no administrator (any more).
    #[error("you do not have a role that may approve this")]
    NotEligible,
    /// The person has the role for too short a time.
    #[error("you have this role for too short a time")]
    TooNew(Timestamp),
    /// The domain refused.
    #[error(transparent)]
    Refused(#[from] ThawRefusal),
    /// State or IdP.
    #[error(transparent)]
    Flow(#[from] FlowError),
}

/// What an approval led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Approved {
    /// How many have approved.
    pub approvals: usize,
    /// When the thaw takes effect, once two have.
    pub ready: Option<Timestamp>,
    /// What the administrator found whose word this one replaced: they do not agree.
    pub instead_of: Option<Finding>,
}

/// Whether somebody's word counts now, by the roles the IdP gives them at this moment and by how long they have them.
/// `probation` is the one that the freeze began with.
///
/// # Errors
/// [`FlowError::Idp`] when the IdP cannot say: nobody approves then.
pub async fn eligible(flow: &Flow, approver: &Subject, probation: Span) -> Result<Weight, FlowError> {
    let reading = match flow.reading(approver).await {
        Err(FlowError::Idp(IdpError::UnknownSubject)) => return Ok(Weight::Nothing),
        other => other?,
    };
    let held = holders::counting(flow, reading.facts.as_ref());
    let key = flow.key(approver);
    let loaded = flow.store.read(&key, Parts::RECORD).await?;
    let now = flow.now(loaded.store_time);
    // Somebody whose own account is restricted approves nothing, unless it may still act on others.
    let free = loaded.record.and_then(|r| r.restriction(now)).is_none_or(|r| {
        crate::domain::ceiling::Class::parse("admin").is_some_and(|admin| r.allowed.allows(&admin))
    });
    if !free || !reading.account.enabled {
        return Ok(Weight::Nothing);
    }
    holders::weight(flow, approver, &held, probation, now).await
}

/// The probation that the freeze of an account began with.
async fn probation(flow: &Flow, subject: &Subject) -> Result<Span, FlowError> {
    let loaded = flow.store.read(&flow.key(subject), Parts::RECORD).await?;
    let contest = loaded.record.as_ref().and_then(Record::disputed);
    Ok(contest.map_or(Span::ZERO, |contest| contest.clocks.probation))
}

/// An administrator approves the thaw of `subject`.
///
/// # Errors
/// [`ThawError`]; a refusal is written down.
pub async fn approve(
    flow: &Flow,
    subject: &Subject,
    approver: &Subject,
    finding: Finding,
) -> Result<Approved, ThawError> {
    let key = flow.key(subject);
    may_decide(flow, subject, approver).await?;
    let policy = flow.policy.load_full();
    let name = approver.name();
    let outcome: Mutex<Option<Result<Approved, ThawRefusal>>> = Mutex::new(None);
    flow.store
        .update(&key, Parts::ACCOUNT, None, &|loaded| {
            let now = flow.now(loaded.store_time);
            let account = loaded.account.clone().unwrap_or_default();
            let result = loaded
                .record
                .as_ref()
                .ok_or(ThawRefusal::NotContested)
                .and_then(|record| contest::approve_thaw(record, &account, &name, finding, now, &policy));
            let (answer, write) = match result {
                Ok(t) => {
                    let thaw = t.record.disputed().and_then(|c| c.thaw.as_ref());
                    let approvals = thaw.map_or(0, |t| t.approvals.len());
                    let ready = thaw.and_then(|t| t.ready);
                    let instead_of = loaded.record.as_ref().and_then(|r| overruled(r, &name, finding));
                    let answer = Approved {
                        approvals,
                        ready,
                        instead_of,
                    };
                    (Ok(answer), Some(Write::from(t)))
                }
                Err(refusal) => (Err(refusal), None),
            };
            if let Ok(mut slot) = outcome.lock() {
                *slot = Some(answer);
            }
            write
        })
        .await
        .map_err(FlowError::from)?;
    let outcome = outcome.into_inner().ok().flatten();
    let outcome = outcome.unwrap_or(Err(ThawRefusal::NotContested));
    if let Err(refusal) = &outcome {
        refused(flow, subject, approver, &refusal.to_string()).await?;
    }
    Ok(outcome?)
}

/// Whether the word of `approver` on the account of `subject` counts now; a refusal is written down.
async fn may_decide(flow: &Flow, subject: &Subject, approver: &Subject) -> Result<(), ThawError> {
    let began_with = probation(flow, subject).await?;
    match eligible(flow, approver, began_with).await? {
        Weight::Counts => {}
        Weight::From(at) => {
            refused(flow, subject, approver, "role too new").await?;
            return Err(ThawError::TooNew(at));
        }
        Weight::Nothing => {
            refused(flow, subject, approver, "not eligible").await?;
            return Err(ThawError::NotEligible);
        }
    }
    if subject == approver {
        refused(flow, subject, approver, "own account").await?;
        return Err(ThawRefusal::OwnAccount.into());
    }
    Ok(())
}

/// What another administrator had found, when this one finds otherwise.
fn overruled(before: &Record, approver: &str, finding: Finding) -> Option<Finding> {
    let thaw = before.disputed()?.thaw.as_ref()?;
    let another = thaw.approvals.iter().any(|a| a != approver);
    (another && thaw.finding != finding).then_some(thaw.finding)
}

/// Writes down that somebody was refused.
async fn refused(flow: &Flow, subject: &Subject, approver: &Subject, why: &str) -> Result<(), FlowError> {
    let now = flow.clock.now();
    let entry = Entry::system(
        format!("thaw_refused:{}", flow.random::<9>()),
        now,
        "thaw_refused",
        None,
    )
    .by(Actor::Administrator(approver.name()))
    .with("why", why);
    flow.store.note(subject, &flow.key(subject), &entry).await?;
    Ok(())
}

/// Checks the approvers of a freeze's thaw again, at the moment of use.
///
/// # Errors
/// [`FlowError`] when the IdP cannot say: the thaw waits.
pub async fn recheck(flow: &Flow, contest: &Contest) -> Result<Vec<(String, bool)>, FlowError> {
    let approvals = contest.thaw.as_ref().map(|t| t.approvals.as_slice());
    let began_with = contest.clocks.probation;
    let mut checked = Vec::new();
    for name in approvals.unwrap_or_default() {
        let subject = name.split_once('/').and_then(|(upstream, sub)| {
            crate::domain::subject::UpstreamId::parse(upstream).and_then(|u| Subject::new(u, sub))
        });
        let ok = match subject {
            Some(subject) => eligible(flow, &subject, began_with).await? == Weight::Counts,
            None => false,
        };
        checked.push((name.clone(), ok));
    }
    Ok(checked)
}
