//! Held accounts first. When the IdP may have forgotten what it was told (a realm restored from a copy, its log shorter
//! than it was, our groups deleted or wired anew, a role that gives full rights inside another one), those who have to be
//! held are compared with their records at once, long before a round through everybody is due.
//!
//! The wish stands in the store, so that the process that hears of it and the one that does it may be different ones.

use crate::domain::hold::{Effect, Record};
use crate::domain::subject::UpstreamId;
use crate::domain::time::{Span, Timestamp};
use crate::flow::{Flow, FlowError};
use crate::ports::store::{Loaded, Parts, Write};
use crate::ports::trace;

/// How long one process keeps it to itself.
const LEASE: Span = Span::from_mins(5);
/// After a round in which an account could not be compared.
const AGAIN: Span = Span::from_secs(30);
/// The most accounts of one round: who is due comes by the end of its hold, so nobody is left out but behind so many.
const MOST: usize = 100_000;

fn name(upstream: &UpstreamId) -> String {
    format!("held-first:{upstream}")
}

/// Asks that held accounts be compared at once.
///
/// # Errors
/// [`FlowError::Store`].
pub async fn ask(flow: &Flow, upstream: &UpstreamId) -> Result<(), FlowError> {
    let now = flow.clock.now().millis().to_string();
    flow.store.set_setting(&name(upstream), &now, None).await?;
    Ok(())
}

/// Compares them when somebody asked. Says how many differed; `None` when nobody asked, or another process does it.
///
/// # Errors
/// [`FlowError`]: the wish stands, and it is tried again.
pub async fn if_asked(flow: &Flow, upstream: &UpstreamId, owner: &str) -> Result<Option<usize>, FlowError> {
    let name = name(upstream);
    let asked = flow.store.setting(&name).await?;
    let at = asked.as_ref().and_then(|at| at.parse().ok());
    let due = at.is_some_and(|at| Timestamp::from_millis(at) <= flow.clock.now());
    let Some(asked) = asked.filter(|_| due) else {
        return Ok(None);
    };
    let Some(lease) = flow.store.lease(&name, owner, LEASE).await? else {
        return Ok(None);
    };
    let done = Box::pin(trace::scope(flow.trace(), all(flow, upstream))).await;
    let next = match done {
        Ok((_, true)) => String::new(),
        // Not at once again: one account that cannot be read must not have all the others read in a loop.
        Ok((_, false)) | Err(_) => flow.clock.now().plus(AGAIN).millis().to_string(),
    };
    // Who asked meanwhile is heard again.
    if flow.store.setting(&name).await?.as_deref() == Some(&asked) {
        flow.store.set_setting(&name, &next, Some(&lease)).await?;
    }
    flow.store.release(&name, owner).await?;
    let (differed, _) = done?;
    tracing::info!(%upstream, differed, "held accounts compared");
    Ok(Some(differed))
}

/// Compares every held account. Says how many differed, and whether all could be read: one that cannot be holds up
/// nobody else.
async fn all(flow: &Flow, upstream: &UpstreamId) -> Result<(usize, bool), FlowError> {
    let due = flow.store.due(Timestamp::from_millis(i64::MAX / 2), MOST).await?;
    let (mut differed, mut whole) = (0, true);
    for key in due {
        let loaded = match flow.store.read(&key, Parts::RECORD).await {
            Ok(loaded) => loaded,
            // It is being made anew, and compared then.
            Err(error) if error.heals() => continue,
            Err(error) => return Err(error.into()),
        };
        let now = flow.now(loaded.store_time);
        let held = |r: &Record| {
            r.subject.upstream == *upstream && (r.restriction(now).is_some() || !r.owed.is_empty())
        };
        let Some(record) = loaded.record.filter(held) else {
            continue;
        };
        match super::compared(flow, &record.subject).await {
            Ok(found) => {
                differed += usize::from(found.differed);
                if found.off && !found.differed {
                    again(flow, &record).await?;
                }
            }
            Err(error) => {
                whole = false;
                tracing::warn!(%upstream, %error, "a held account could not be compared; it is tried again");
            }
        }
    }
    Ok((differed, whole))
}

/// One that is switched off agrees with every hold. Whether it has to be off any more (it could not be held otherwise, or
/// could have undone its hold) only the IdP tells: it is made to agree once more.
async fn again(flow: &Flow, record: &Record) -> Result<(), FlowError> {
    let id = format!("converge:reopened:{}:{}", record.epoch, flow.clock.now().millis());
    let effect = |_: &Loaded| {
        Some(Write {
            subject: Some(record.subject.clone()),
            effects: vec![(id.clone(), Effect::Converge)],
            ..Write::default()
        })
    };
    let key = flow.key(&record.subject);
    flow.store.update(&key, Parts::RECORD, None, &effect).await?;
    Ok(())
}
