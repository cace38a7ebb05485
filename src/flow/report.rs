//! "This was not me". GET looks, POST freezes: mail scanners open links.

use crate::domain::hold::Cause;
use crate::domain::hold::contest::{self, ReportRefusal};
use crate::domain::time::Timestamp;
use crate::flow::link::{self, Link, LinkRefusal};
use crate::flow::{Flow, FlowError};
use crate::ports::store::{Parts, Updated, Write};

/// What the page of a link shows before anything happens.
#[derive(Clone, Debug)]
pub struct View {
    /// The link.
    pub link: Link,
    /// What it is about.
    pub cause: Cause,
    /// The account is frozen already.
    pub frozen: bool,
    /// What time it is, for the words on the page.
    pub now: Timestamp,
}

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The link.
    #[error(transparent)]
    Link(#[from] LinkRefusal),
    /// The channel or the case.
    #[error(transparent)]
    Refused(#[from] ReportRefusal),
    /// State.
    #[error(transparent)]
    Flow(#[from] FlowError),
}

/// How a report ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// The account is frozen now, or was.
    Frozen,
    /// This channel has spoken before: recorded and told, without effect.
    Repeated,
    /// The account's rules are only observed (shadow, outside the cohort): recorded and told, nothing is frozen.
    Observed,
}

/// Looks at a link; changes nothing.
///
/// # Errors
/// [`ReportError`].
pub async fn look(flow: &Flow, token: &str) -> Result<View, ReportError> {
    let link = link::open(flow, token, flow.policy.load().link_validity)?;
    let loaded = flow
        .store
        .read(&link.key, Parts::RECORD)
        .await
        .map_err(FlowError::from)?;
    let record = loaded.record.ok_or(ReportRefusal::UnknownCase)?;
    let frozen = record.contest.is_some();
    let cause = record
        .cause(&link.case)
        .cloned()
        .ok_or(ReportRefusal::UnknownCase)?;
    Ok(View {
        link,
        cause,
        frozen,
        now: flow.clock.now(),
    })
}

/// Acts on a link.
///
/// # Errors
/// [`ReportError`]; nothing was stored then.
pub async fn act(flow: &Flow, token: &str) -> Result<Reported, ReportError> {
    let policy = flow.policy.load_full();
    let link = link::open(flow, token, policy.link_validity)?;
    let refusal = std::sync::Mutex::new(None);
    let spent = std::sync::atomic::AtomicBool::new(false);
    let in_force = std::sync::atomic::AtomicBool::new(false);
    let keep = |r: Option<ReportRefusal>| {
        if let Ok(mut slot) = refusal.lock() {
            *slot = r;
        }
    };
    let updated = flow
        .store
        .update(&link.key, Parts::ACCOUNT, None, &|loaded| {
            let (Some(record), Some(account)) = (&loaded.record, &loaded.account) else {
                keep(Some(ReportRefusal::UnknownCase));
                return None;
            };
            let now = flow.now(loaded.store_time);
            match contest::report(record, account, &link.channel, &link.case, now, &policy) {
                Ok(transition) => {
                    keep(None);
                    let repeated = transition.record.reports == record.reports;
                    spent.store(repeated, std::sync::atomic::Ordering::Relaxed);
                    let frozen = transition.record.contest.as_ref().is_some_and(|c| c.enforced);
                    in_force.store(frozen, std::sync::atomic::Ordering::Relaxed);
                    Some(Write::from(transition))
                }
                Err(refused) => {
                    keep(Some(refused));
                    None
                }
            }
        })
        .await
        .map_err(FlowError::from)?;
    if let Ok(Some(refused)) = refusal.into_inner() {
        return Err(refused.into());
    }
    if matches!(updated, Updated::Stored) {
        metrics::counter!("reentry_reports_total").increment(1);
    }
    Ok(match (spent.into_inner(), in_force.into_inner()) {
        (true, _) => Reported::Repeated,
        (false, true) => Reported::Frozen,
        (false, false) => Reported::Observed,
    })
}
