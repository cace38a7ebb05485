//! Accounts that cannot be read at an IdP that answers (P15): one is marked, restricted and tried again by itself, and
//! everybody else goes on. The same for everyone who reads accounts: the poller, the check at a log-in, reconciling and
//! rebuilding.
//!
//! Which of the two it is, an account or the IdP as a whole, is asked of the IdP: an account is marked only when it could
//! not be read twice, and the IdP answered a call about no account before the second try and after it. So an IdP that
//! dies marks nobody.

use std::time::Duration;

use futures_util::StreamExt as _;

use crate::domain::hold::Record;
use crate::domain::hold::apply::Setting;
use crate::domain::hold::unreadable::{self, Trouble, Unreadable, Why};
use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::Timestamp;
use crate::flow::ingest::Era;
use crate::flow::{Flow, FlowError, ingest, rebuild, untold};
use crate::ports::idp::{IdpError, Look};
use crate::ports::store::{Parts, Write};

/// Accounts that are marked of one page, at most: the rest of them come with the next try.
pub(super) const MARKS: usize = 16;
/// Second tries side by side.
const SIDE_BY_SIDE: usize = 8;
/// How long the sweeper waits for an account that could not be read before.
const AGAIN: Duration = Duration::from_secs(10);

/// An account whose reading failed once.
#[derive(Debug)]
pub(super) struct Failed {
    /// Whose.
    pub(super) subject: Subject,
    /// Why.
    pub(super) error: IdpError,
    /// Lines since then wait for it.
    pub(super) from: Timestamp,
    /// Its record has to be made anew.
    pub(super) lost: bool,
}

/// Looks at accounts whose reading failed once a second time, by `again`, and marks those that fail again, so many at
/// `most`. Says how many are left.
///
/// # Errors
/// [`FlowError`]: the IdP as a whole does not answer, or the store; nothing was marked.
pub(super) async fn settle<F>(
    flow: &Flow,
    upstream: &UpstreamId,
    failed: Vec<Failed>,
    most: usize,
    again: impl Fn(Subject) -> F,
) -> Result<usize, FlowError>
where
    F: Future<Output = Result<(), FlowError>>,
{
    if failed.is_empty() {
        return Ok(0);
    }
    let idp = flow.idp(upstream)?;
    idp.answers().await?;
    let tries = failed.into_iter().map(|one| {
        let second = again(one.subject.clone());
        async move { (second.await, one) }
    });
    let mut tries = futures_util::stream::iter(tries).buffer_unordered(SIDE_BY_SIDE);
    let mut still = Vec::new();
    while let Some((second, one)) = tries.next().await {
        match second {
            Ok(()) | Err(FlowError::Idp(IdpError::UnknownSubject)) => {}
            Err(FlowError::Idp(error)) => still.push(Failed { error, ..one }),
            Err(other) => return Err(other),
        }
    }
    if !still.is_empty() {
        idp.answers().await?;
    }
    for one in still.iter().take(most) {
        mark(flow, one).await?;
    }
    Ok(still.len().saturating_sub(most))
}

/// Marks an account as unreadable, or puts off its next try when it is marked.
///
/// # Errors
/// [`FlowError::Store`].
pub(super) async fn mark(flow: &Flow, failed: &Failed) -> Result<(), FlowError> {
    let (subject, key) = (&failed.subject, flow.key(&failed.subject));
    let policy = flow.policy.load_full();
    let Some(tier) = policy.choose(None) else {
        return Err(FlowError::Unknown("the policy has no tier".to_owned()));
    };
    let why = match failed.error {
        IdpError::Refused(_) => Why::Refused,
        IdpError::Unexpected(_) => Why::Malformed,
        IdpError::Unreachable(_) | IdpError::UnknownSubject => Why::NoAnswer,
    };
    let trouble = Trouble {
        why,
        from: failed.from,
        lost: failed.lost,
    };
    let case = flow.case_of(subject, &format!("unreadable:{}", failed.from.millis()));
    metrics::counter!("reentry_accounts_unreadable_total").increment(1);
    tracing::error!(
        upstream = %subject.upstream, sub = subject.sub, error = %failed.error,
        "an account cannot be read at the identity provider: nothing is allowed to it until it can"
    );
    let parts = Parts::RECORD.while_rebuilding();
    flow.store
        .update(&key, parts, None, &|loaded| {
            let setting = Setting {
                policy: &policy,
                tier,
                place: key.place(),
                now: flow.now(loaded.store_time),
                reference: &case,
            };
            let t = unreadable::failed(subject, loaded.record.as_ref(), trouble, setting);
            Some(Write::from(t))
        })
        .await?;
    Ok(())
}

/// Of an account that is marked, lines have turned up that wait for its reading: from then on its log is read.
///
/// # Errors
/// [`FlowError::Store`].
pub(super) async fn waits(flow: &Flow, subject: &Subject, from: Timestamp) -> Result<(), FlowError> {
    let parts = Parts::RECORD.while_rebuilding();
    flow.store
        .update(&flow.key(subject), parts, None, &|loaded| {
            let now = flow.now(loaded.store_time);
            unreadable::waits(loaded.record.as_ref()?, from, now).map(Write::from)
        })
        .await?;
    Ok(())
}

/// The account was read and everything of it taken in: the mark goes.
///
/// # Errors
/// [`FlowError::Store`].
pub(super) async fn readable(flow: &Flow, subject: &Subject) -> Result<(), FlowError> {
    flow.store
        .update(&flow.key(subject), Parts::RECORD, None, &|loaded| {
            unreadable::read(loaded.record.as_ref()?, flow.now(loaded.store_time)).map(Write::from)
        })
        .await?;
    tracing::info!(upstream = %subject.upstream, sub = subject.sub, "an account can be read again");
    Ok(())
}

/// Tries an account that is marked again, when it is time: what its log tells since is taken in before the mark goes.
///
/// # Errors
/// [`FlowError::Store`]: it stays due.
pub(super) async fn again(flow: &Flow, record: &Record, known: &Unreadable) -> Result<(), FlowError> {
    let subject = &record.subject;
    let read = tokio::time::timeout(AGAIN, whole(flow, subject, known)).await;
    let error = match read {
        Ok(Ok(()) | Err(FlowError::Idp(IdpError::UnknownSubject))) => return readable(flow, subject).await,
        Ok(Err(FlowError::Idp(error))) => error,
        Ok(Err(other)) => return Err(other),
        Err(_) => IdpError::Unreachable("not in time".to_owned()),
    };
    let failed = Failed {
        subject: subject.clone(),
        error,
        from: known.from,
        lost: known.lost,
    };
    mark(flow, &failed).await
}

/// Reads the account and takes in what waits.
async fn whole(flow: &Flow, subject: &Subject, known: &Unreadable) -> Result<(), FlowError> {
    if known.lost {
        return rebuild::account(flow, subject, known.from, rebuild::Marks::Lost).await;
    }
    let look = Look {
        since: known.from,
        now: flow.now(None),
    };
    let observation = flow.observe(subject, look).await?;
    ingest::observed(flow, subject, &observation, None, Era::Ours).await?;
    untold::check(flow, subject, &observation.reading).await
}
