//! Accounts that a page of the log names and that could not be read.

use super::standing::write_down;
use crate::domain::subject::{Subject, UpstreamId};
use crate::flow::ingest::Era;
use crate::flow::unreadable::{self, Failed, MARKS};
use crate::flow::{Flow, FlowError, ingest};
use crate::ports::idp::{IdpError, Look, Unread};
use crate::ports::store::Parts;

/// Takes the lines of accounts that could not be read with the others in hand: a second try, or a mark. Says whether
/// there are more of them than are marked at once.
pub(super) async fn unread(
    flow: &Flow,
    upstream: &UpstreamId,
    accounts: &[Unread],
    era: Era,
) -> Result<bool, FlowError> {
    let mut failed = Vec::new();
    for account in accounts {
        let Some(subject) = Subject::new(upstream.clone(), &account.sub) else {
            nameless(flow, upstream, &account.sub).await;
            continue;
        };
        let parts = Parts::RECORD.while_rebuilding();
        let record = match flow.store.read(&flow.key(&subject), parts).await {
            // What makes it anew reads its whole log.
            Err(error) if error.heals() => continue,
            other => other?.record,
        };
        if record.is_some_and(|record| record.unreadable.is_some()) {
            unreadable::waits(flow, &subject, account.since).await?;
            continue;
        }
        failed.push(Failed {
            subject,
            error: IdpError::Unreachable("the account could not be read".to_owned()),
            from: account.since,
            lost: false,
        });
    }
    let since = failed.iter().map(|one| one.from).min().unwrap_or_default();
    let again = |subject: Subject| async move {
        let now = flow.now(None);
        let observation = flow.observe(&subject, Look { since, now }).await?;
        ingest::observed(flow, &subject, &observation, None, era).await
    };
    let left = unreadable::settle(flow, upstream, failed, MARKS, again).await?;
    Ok(left > 0)
}

/// An id that no account can have here: said, and left out.
pub(super) async fn nameless(flow: &Flow, upstream: &UpstreamId, sub: &str) {
    let what = format!(
        "the account {sub:?} cannot be named here (longer than {} octets, or with control characters): it is not held in the identity provider's own tokens",
        Subject::MAX
    );
    tracing::error!(%upstream, what, "an account cannot be held");
    write_down(flow, upstream, "log_alarm", &what).await;
}
