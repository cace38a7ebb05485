//! The outbox worker: at least once, idempotent by effect id. An entry leaves the outbox only after its effect
//! is done and what follows from it is stored.

use std::time::Duration;

use crate::domain::audit::Entry;
use crate::domain::hold::Effect;
use crate::domain::hold::apply::told;
use crate::domain::hold::contest::freeze_told;
use crate::domain::notice::{Message, Notice};
use crate::domain::time::{Span, Timestamp};
use crate::flow::link::{self, Link};
use crate::flow::{Flow, FlowError, converge};
use crate::ports::notifier::{NotifyError, Outgoing};
use crate::ports::store::{Parts, Pending, Write};

/// The most entries taken at once.
const BATCH: usize = 64;
/// The longest pause between two tries.
const LONGEST_PAUSE: Span = Span::from_hours(1);

/// How one entry ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Done {
    /// It is done.
    Yes,
    /// It never will be: written down, out of the outbox.
    Never(String),
    /// Again later.
    Later(String),
}

/// Works until `stop` says so. `owner` names this process in leases.
pub async fn run(flow: &Flow, owner: &str, stop: &tokio_util::sync::CancellationToken) {
    while !stop.is_cancelled() {
        match round(flow, owner, stop).await {
            Ok(0) => {
                tokio::select! {
                    () = flow.store.wait_for_work(Duration::from_millis(500)) => {}
                    () = stop.cancelled() => {}
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the outbox cannot be worked on");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }
}

/// Takes what is due once. Gives how many entries were dealt with or put back.
///
/// # Errors
/// [`FlowError::Store`]: what was not dealt with comes again.
pub async fn round(
    flow: &Flow,
    owner: &str,
    stop: &tokio_util::sync::CancellationToken,
) -> Result<usize, FlowError> {
    let batch = flow.store.pending(flow.clock.now(), BATCH).await?;
    let mut count = 0;
    for entry in batch {
        if stop.is_cancelled() {
            break;
        }
        one(flow, owner, &entry).await?;
        count += 1;
    }
    Ok(count)
}

async fn one(flow: &Flow, owner: &str, entry: &Pending) -> Result<(), FlowError> {
    let done = match &entry.effect {
        Effect::Notice(notice) => notify(flow, entry, notice).await?,
        Effect::Converge => match converge::converge(flow, &entry.subject, owner).await {
            Ok(()) => Done::Yes,
            Err(error) => Done::Later(error.to_string()),
        },
    };
    let kind = if matches!(entry.effect, Effect::Converge) {
        "converge"
    } else {
        "notice"
    };
    match done {
        Done::Yes => {
            metrics::counter!("reentry_effects_total", "kind" => kind, "outcome" => "done").increment(1);
            flow.store.done(&entry.at).await?;
        }
        Done::Never(why) => {
            metrics::counter!("reentry_effects_total", "kind" => kind, "outcome" => "never").increment(1);
            undeliverable(flow, entry, &why).await?;
            flow.store.done(&entry.at).await?;
        }
        Done::Later(why) => {
            metrics::counter!("reentry_effects_total", "kind" => kind, "outcome" => "later").increment(1);
            tracing::warn!(
                kind,
                attempts = entry.attempts,
                why,
                "an effect is tried again later"
            );
            let at = flow.clock.now().plus(pause(flow, entry.attempts));
            flow.store.retry(entry, at, &why).await?;
        }
    }
    Ok(())
}

/// 1 s, 2 s, 4 s, ... up to an hour, with up to a quarter more at random.
fn pause(flow: &Flow, attempts: u32) -> Span {
    let base = Span::from_secs(1_i64 << attempts.min(12)).min(LONGEST_PAUSE);
    let mut byte = [0_u8; 1];
    flow.entropy.fill(&mut byte);
    let [jitter] = byte;
    Span::from_millis(base.millis() + base.quarter().millis() * i64::from(jitter) / 255)
}

async fn notify(flow: &Flow, entry: &Pending, notice: &Notice) -> Result<Done, FlowError> {
    let link = notice.link.then(|| {
        let link = Link {
            key: flow.key(&entry.subject),
            issued: entry.since,
            case: notice.case.clone(),
            channel: notice.channel.clone(),
        };
        format!("{}/cancel/{}", flow.issuer, link::seal(flow, &link))
    });
    let outgoing = Outgoing {
        id: &entry.id,
        notice,
        link,
        account_page: format!("{}/account", flow.issuer),
    };
    match flow.notifier.deliver(&outgoing).await {
        Ok(()) => {
            accepted(flow, entry, notice).await?;
            Ok(Done::Yes)
        }
        Err(NotifyError::Later(why)) => Ok(Done::Later(why)),
        Err(NotifyError::Never(why)) => Ok(Done::Never(why)),
    }
}

/// The gateway accepted a notice: the owner counts as told if the channel was one of before.
async fn accepted(flow: &Flow, entry: &Pending, notice: &Notice) -> Result<(), FlowError> {
    let key = flow.key(&entry.subject);
    let line = |at: Timestamp| {
        Entry::system(
            format!("{}:accepted", entry.id),
            at,
            "notice_accepted",
            Some(&notice.case),
        )
        .with("message", notice.content.message.as_str())
        .with("channel", &notice.channel.0)
        .with("before", notice.before)
    };
    flow.store
        .update(&key, Parts::RECORD, None, &|loaded| {
            let now = flow.now(loaded.store_time);
            let record = loaded.record.as_ref()?;
            let transition = match notice.content.message {
                _ if !notice.before => None,
                Message::AccountFrozen => freeze_told(record, now),
                // They tell of an attempt, not of the change itself.
                Message::ReportRepeated | Message::RestrictionKept => None,
                _ => told(record, &notice.case, now),
            };
            let mut write = transition.map_or_else(Write::default, Write::from);
            write.audit.push(line(now.latest()));
            Some(write)
        })
        .await?;
    Ok(())
}

/// A notice that will never arrive is no silence: it is written down and raises an alarm (row C14).
async fn undeliverable(flow: &Flow, entry: &Pending, why: &str) -> Result<(), FlowError> {
    let mut line = Entry::system(
        format!("{}:undeliverable", entry.id),
        flow.clock.now(),
        "notice_undeliverable",
        None,
    )
    .alarming()
    .with("why", why);
    if let Effect::Notice(notice) = &entry.effect {
        line = line
            .with("message", notice.content.message.as_str())
            .with("channel", &notice.channel.0);
        line.case = Some(notice.case.clone());
    }
    flow.store
        .note(&entry.subject, &flow.key(&entry.subject), &line)
        .await?;
    Ok(())
}
