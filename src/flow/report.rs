//! "This was not me". GET looks, POST freezes: mail scanners open links.
//!
//! A link was only ever sent to a channel that had a voice then, so that its being genuine proves the voice: no loss of
//! the store, and nothing that a snapshot read anew does not know, silences it.

use std::sync::Mutex;

use crate::domain::audit::Entry;
use crate::domain::change::Row;
use crate::domain::hold::Cause;
use crate::domain::hold::contest::report::{self as words, ReportRefusal, Word};
use crate::domain::hold::contest::{Contest, Finding};
use crate::domain::hold::{Record, Transition};
use crate::domain::notice::{self, Content};
use crate::domain::policy::Policy;
use crate::domain::subject::account::Account;
use crate::domain::time::{Now, Timestamp};
use crate::flow::link::{self, Link, LinkRefusal};
use crate::flow::{Flow, FlowError};
use crate::ports::store::{Parts, Updated, Write};

/// What the page of a link shows.
#[derive(Clone, Debug)]
pub struct View {
    /// The link.
    pub link: Link,
    /// What it is about.
    pub cause: Cause,
    /// The freeze under way.
    pub contest: Option<Contest>,
    /// When this channel said last that something after this change was not the owner.
    pub reported: Option<Timestamp>,
    /// Whether what it says would have an effect.
    pub heard: bool,
    /// When this channel said that it was the owner after all.
    pub owned: Option<Timestamp>,
    /// How the whole account stands: the restriction in force, if any.
    pub stands: Content,
    /// Administrators found that what this is about was not the owner's: it was taken back.
    pub taken_back: bool,
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
    /// This channel has spoken before: nothing changes by it.
    Repeated,
    /// The account's rules are only observed (shadow, outside the cohort): recorded and told, nothing is frozen.
    Observed,
}

fn word(link: &Link) -> Word<'_> {
    Word {
        channel: &link.channel,
        case: &link.case,
        proven: true,
    }
}

/// Looks at a link; changes nothing.
///
/// # Errors
/// [`ReportError`].
pub async fn look(flow: &Flow, token: &str) -> Result<View, ReportError> {
    let policy = flow.policy.load_full();
    let link = link::open(flow, token, policy.link_validity)?;
    let loaded = flow
        .store
        .read(&link.key, Parts::ACCOUNT)
        .await
        .map_err(FlowError::from)?;
    let record = loaded.record.ok_or(ReportRefusal::UnknownCase)?;
    let account = loaded.account.unwrap_or_default();
    let cause = record
        .cause(&link.case)
        .cloned()
        .ok_or(ReportRefusal::UnknownCase)?;
    let tried = words::report(
        &record,
        &account,
        &word(&link),
        flow.now(loaded.store_time),
        &policy,
    );
    let heard = tried.is_ok_and(|t| t.record.reports != record.reports);
    let mine = record
        .reports
        .iter()
        .filter(|(c, at)| *c == link.channel && *at >= cause.at);
    let reported = mine.map(|(_, at)| *at).max();
    let disputed = record.disputed().cloned();
    let owned = disputed
        .as_ref()
        .and_then(|c| c.owned.iter().find(|(by, _)| *by == link.channel));
    let now = flow.now(loaded.store_time);
    Ok(View {
        stands: record.stated(notice::nothing(now.latest()), None, now),
        taken_back: taken_back(flow, &link, &record, &cause).await?,
        cause,
        reported,
        heard,
        owned: owned.map(|(_, at)| *at),
        contest: record.contest,
        now: flow.clock.now(),
        link,
    })
}

/// Whether a freeze about `cause`, or about what came before it, ended with the finding that it was not the owner.
async fn taken_back(flow: &Flow, link: &Link, record: &Record, cause: &Cause) -> Result<bool, FlowError> {
    let lines = flow
        .store
        .audit(Some(&link.key), Timestamp::from_millis(i64::MAX), 200)
        .await?;
    let contested = |e: &Entry| {
        let found = e.case.as_deref().and_then(|case| record.cause(case));
        found.is_some_and(|contested| contested.at <= cause.at)
    };
    let found = |e: &Entry| {
        let owner = e.details.get("finding").map(String::as_str) == Some(Finding::Owner.as_str());
        e.action == "thawed" && owner && e.at >= cause.at && contested(e) && cause.row != Row::AfterContest
    };
    Ok(lines.iter().any(|(_, entry)| found(entry)))
}

/// Acts on a link.
///
/// # Errors
/// [`ReportError`]; nothing was stored then.
pub async fn act(flow: &Flow, token: &str) -> Result<Reported, ReportError> {
    let told = say(flow, token, &words::report).await;
    let (old, new) = match told {
        Err(ReportError::Refused(ReportRefusal::Already)) => return Ok(Reported::Repeated),
        other => other?,
    };
    if new.reports == old.reports {
        return Ok(Reported::Repeated);
    }
    metrics::counter!("reentry_reports_total").increment(1);
    let frozen = new.contest.is_some_and(|c| c.enforced);
    Ok(if frozen {
        Reported::Frozen
    } else {
        Reported::Observed
    })
}

/// Says on a link that what is contested was its reader after all.
///
/// # Errors
/// [`ReportError`]; nothing was stored then.
pub async fn own(flow: &Flow, token: &str) -> Result<(), ReportError> {
    match say(flow, token, &words::own).await {
        Err(ReportError::Refused(ReportRefusal::Already)) => Ok(()),
        other => other.map(drop),
    }
}

/// What a channel says.
type Saying =
    dyn Fn(&Record, &Account, &Word<'_>, Now, &Policy) -> Result<Transition, ReportRefusal> + Send + Sync;

/// Stores what a channel says by its link; gives the record before and after.
async fn say(flow: &Flow, token: &str, saying: &Saying) -> Result<(Record, Record), ReportError> {
    let policy = flow.policy.load_full();
    let link = link::open(flow, token, policy.link_validity)?;
    let outcome: Mutex<Result<(Record, Record), ReportRefusal>> = Mutex::new(Err(ReportRefusal::UnknownCase));
    let keep = |result| {
        if let Ok(mut slot) = outcome.lock() {
            *slot = result;
        }
    };
    let updated = flow
        .store
        .update(&link.key, Parts::ACCOUNT, None, &|loaded| {
            let Some(record) = &loaded.record else {
                keep(Err(ReportRefusal::UnknownCase));
                return None;
            };
            let account = loaded.account.clone().unwrap_or_default();
            let now = flow.now(loaded.store_time);
            match saying(record, &account, &word(&link), now, &policy) {
                Ok(transition) => {
                    keep(Ok((record.clone(), transition.record.clone())));
                    Some(Write::from(transition))
                }
                Err(refused) => {
                    keep(Err(refused));
                    None
                }
            }
        })
        .await
        .map_err(FlowError::from)?;
    let outcome = outcome.into_inner().unwrap_or(Err(ReportRefusal::UnknownCase));
    match updated {
        Updated::Stored => Ok(outcome?),
        _ => Err(outcome.err().unwrap_or(ReportRefusal::Already).into()),
    }
}
