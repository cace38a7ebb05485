//! The outbox worker: at least once, idempotent by effect id. An entry leaves the outbox only after its effect
//! is done and what follows from it is stored.
//!
//! Effects go by lanes: one for each IdP, one for each kind of channel, one for each receiver of webhooks. A lane has
//! places of its own, so a server that hangs holds up nobody but those who want to go to it. What fails is set aside
//! in the store with exponential back-off and jitter; what fails for good, or for longer than the gateway's patience,
//! becomes a dead letter, which an operator sees and can send again. What is to be done at an IdP never becomes one:
//! it is tried until it is done.

pub mod gauge;
mod lane;
mod share;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use self::lane::{Lane, Lanes, Turn};
use self::share::{Share, Ticket};
use crate::domain::audit::Entry;
use crate::domain::event::{Delivery, Event};
use crate::domain::hold::Effect;
use crate::domain::hold::apply::told;
use crate::domain::hold::contest::freeze_told;
use crate::domain::notice::{Message, Notice};
use crate::domain::time::{Span, Timestamp};
use crate::flow::link::{self, Link};
use crate::flow::{Flow, FlowError, converge, farewell};
use crate::ports::notifier::{Announcement, NotifyError, Outgoing};
use crate::ports::store::{Parts, Pending, PendingId, StoreError, Write};
use crate::ports::trace;

/// The most entries asked for at once, on top of those under way.
const BATCH: usize = 64;
/// The longest pause between two tries.
const LONGEST_PAUSE: Span = Span::from_hours(1);
/// The longest one before an account is made to agree at its IdP again: as long as that fails, a hold may not hold there.
const LONGEST_APART: Span = Span::from_mins(3);
/// How long the worker rests after a fault of the store.
const REST: Duration = Duration::from_secs(1);

/// How one entry ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Done {
    /// It is done.
    Yes,
    /// It never will be.
    Never(String),
    /// Again later.
    Later(String),
}

/// Works until `stop` says so. `owner` names this process in leases.
pub async fn run(flow: &Flow, owner: &str, stop: &tokio_util::sync::CancellationToken) {
    let lanes = Lanes::default();
    let share = Share::new(owner, flow.store.exclusive());
    let mut busy = FuturesUnordered::new();
    let mut held: BTreeSet<PendingId> = BTreeSet::new();
    while !stop.is_cancelled() {
        match taken(flow, &share, &held).await {
            Ok(batch) => {
                for (entry, ticket) in batch {
                    if held.insert(entry.at.clone()) {
                        busy.push(worked(flow, owner, (&lanes, &share, ticket), entry));
                    }
                }
            }
            Err(error) => rest(&error).await,
        }
        tokio::select! {
            Some(at) = busy.next(), if !busy.is_empty() => {
                held.remove(&at);
                while let Some(Some(at)) = busy.next().now_or_never() {
                    held.remove(&at);
                }
            }
            () = flow.store.wait_for_work(Duration::from_millis(500)) => {}
            () = stop.cancelled() => {}
        }
    }
    // Each after the step it is in; whoever waits for a place in its lane goes back as it is.
    lanes.close();
    while busy.next().await.is_some() {}
    drop(busy);
    share.hand_back(flow).await;
}

/// What is due in our share, each with leave to deliver it.
async fn taken(
    flow: &Flow,
    share: &Share,
    under_way: &BTreeSet<PendingId>,
) -> Result<Vec<(Pending, Ticket)>, StoreError> {
    share.renew(flow, under_way).await?;
    let (now, max) = (flow.clock.now(), BATCH + under_way.len());
    let batch = flow.store.pending_in(&share.partitions(), now, max).await?;
    let with_ticket = |entry: Pending| Some((share.ticket(entry.at.partition)?, entry));
    let batch = batch.into_iter().filter_map(with_ticket);
    Ok(batch.map(|(ticket, entry)| (entry, ticket)).collect())
}

async fn rest(error: &StoreError) {
    tracing::warn!(%error, "the outbox cannot be worked on");
    tokio::time::sleep(REST).await;
}

/// The lanes, our share, and leave to deliver an entry in it.
type Leave<'a> = (&'a Lanes, &'a Share, Ticket);

async fn worked(flow: &Flow, owner: &str, leave: Leave<'_>, entry: Pending) -> PendingId {
    let work = trace::scope(flow.step(entry.trace.as_ref()), one(flow, owner, leave, &entry));
    if let Err(error) = work.await {
        // It is still in the outbox and comes again, but not at once.
        tracing::warn!(%error, "an effect could not be brought to an end");
        tokio::time::sleep(REST).await;
    }
    entry.at
}

/// Takes what is due once, by lanes. Gives how many entries were dealt with or put back.
///
/// # Errors
/// [`FlowError::Store`]: what was not dealt with comes again.
pub async fn round(
    flow: &Flow,
    owner: &str,
    stop: &tokio_util::sync::CancellationToken,
) -> Result<usize, FlowError> {
    let lanes = Lanes::default();
    let share = Share::new(owner, true);
    let batch = taken(flow, &share, &BTreeSet::new()).await?;
    if stop.is_cancelled() {
        lanes.close();
    }
    let works = batch.iter().map(|(entry, ticket)| {
        let leave = (&lanes, &share, *ticket);
        trace::scope(flow.step(entry.trace.as_ref()), one(flow, owner, leave, entry))
    });
    let ended = futures_util::future::join_all(works).await;
    let count = ended.len();
    ended.into_iter().collect::<Result<(), _>>()?;
    Ok(count)
}

async fn one(flow: &Flow, owner: &str, leave: Leave<'_>, entry: &Pending) -> Result<(), FlowError> {
    let (lanes, share, ticket) = leave;
    if entry.effect == Effect::Converge {
        // Relying parties do not wait for an IdP that is away.
        farewell::after_cut(flow, &entry.subject).await?;
    }
    let lane = Lane::of(entry);
    let place = match lanes.enter(&lane, flow.clock.now()).await {
        Turn::Yours(place) => place,
        Turn::Later(wait) => {
            let at = flow.clock.now().plus(spread(flow, wait));
            return Ok(flow.store.postpone(entry, at).await?);
        }
        Turn::Closed => return Ok(()),
    };
    // It waited for its place, or the process slept: by now it may be another's.
    if !share.stands(ticket) {
        return Ok(());
    }
    let done = match &entry.effect {
        Effect::Notice(notice) => notify(flow, entry, notice).await?,
        Effect::Converge => match converge::converge(flow, &entry.subject, owner).await {
            Ok(()) => Done::Yes,
            Err(error) => Done::Later(error.to_string()),
        },
        Effect::Announce(event) => fan_out(flow, entry, event).await?,
        Effect::Webhook(_) | Effect::Farewell(_) if came_back(flow, entry) => Done::Yes,
        Effect::Webhook(delivery) => {
            let announcement = Announcement {
                receiver: &delivery.receiver,
                id: &delivery.id,
                subject: &entry.subject,
                event: &delivery.event,
                now: flow.clock.now(),
            };
            sent(flow, entry, flow.notifier.announce(&announcement).await)
        }
        Effect::Farewell(farewell) => {
            let (subject, now) = (&entry.subject, flow.clock.now());
            let outcome = flow.notifier.farewell(subject, farewell, &entry.id, now).await;
            sent(flow, entry, outcome)
        }
    };
    lanes.left(&lane, done == Done::Yes, flow.clock.now());
    drop(place);
    conclude(flow, entry, &lane, done).await
}

/// Whether this process delivered it before: a store that was rolled back, or rebuilt by another process, tells of it
/// again. What follows from the delivery is stored again then, and nothing is sent twice.
fn came_back(flow: &Flow, entry: &Pending) -> bool {
    flow.store.told(&entry.id) == Some(true)
}

/// An event becomes one entry for each receiver that wants it; their ids are the same if this happens twice.
async fn fan_out(flow: &Flow, entry: &Pending, event: &Event) -> Result<Done, FlowError> {
    let receivers = flow.notifier.receivers(event.kind);
    if receivers.is_empty() {
        return Ok(Done::Yes);
    }
    let each = |receiver: &String| {
        let delivery = Delivery {
            receiver: receiver.clone(),
            id: entry.id.clone(),
            event: event.clone(),
        };
        let id = format!("{}@{receiver}", entry.id);
        (id, Effect::Webhook(Box::new(delivery)))
    };
    let effects: Vec<_> = receivers.iter().map(each).collect();
    flow.store
        .update(&flow.key(&entry.subject), Parts::RECORD, None, &|_| {
            Some(Write {
                subject: Some(entry.subject.clone()),
                effects: effects.clone(),
                ..Write::default()
            })
        })
        .await?;
    Ok(Done::Yes)
}

/// How a message ended. What was accepted is known to be from here on: what follows from it may not be stored yet, when
/// the store cannot be believed about the account, and the message is not sent again for that.
fn sent(flow: &Flow, entry: &Pending, result: Result<(), NotifyError>) -> Done {
    match result {
        Ok(()) => {
            flow.store.delivered(entry);
            Done::Yes
        }
        Err(NotifyError::Later(why)) => Done::Later(why),
        Err(NotifyError::Never(why)) => Done::Never(why),
    }
}

async fn conclude(flow: &Flow, entry: &Pending, lane: &Lane, done: Done) -> Result<(), FlowError> {
    let kind = lane.kind();
    let count = |outcome: &'static str| {
        metrics::counter!("reentry_effects_total", "kind" => kind, "outcome" => outcome).increment(1);
    };
    let mortal = !matches!(entry.effect, Effect::Converge | Effect::Announce(_));
    let tired = flow.clock.now().since(entry.since) > flow.notifier.patience();
    match done {
        Done::Yes => {
            count("delivered");
            flow.store.done(&entry.at).await?;
        }
        Done::Later(why) if !(mortal && tired) => {
            count("retried");
            tracing::warn!(
                kind,
                attempts = entry.attempts,
                why,
                "an effect is tried again later"
            );
            let longest = if entry.effect == Effect::Converge {
                LONGEST_APART
            } else {
                LONGEST_PAUSE
            };
            let at = flow.clock.now().plus(pause(flow, entry.attempts, longest));
            flow.store.retry(entry, at, &why).await?;
        }
        Done::Never(why) | Done::Later(why) => {
            count("dead");
            undeliverable(flow, entry, &why).await?;
            flow.store.bury(entry, &why).await?;
        }
    }
    Ok(())
}

/// 1 s, 2 s, 4 s, ... up to the longest, with up to a quarter more at random.
fn pause(flow: &Flow, attempts: u32, longest: Span) -> Span {
    spread(flow, Span::from_secs(1_i64 << attempts.min(12)).min(longest))
}

/// The same length, with up to a quarter more at random, so that what failed together does not come back together.
fn spread(flow: &Flow, base: Span) -> Span {
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
    let late = entry.attempts > 0 && notice.content.change.is_some();
    let current = if late {
        Some(with_current_end(flow, entry, notice).await?)
    } else {
        None
    };
    let outgoing = Outgoing {
        id: &entry.id,
        notice: current.as_ref().unwrap_or(notice),
        link,
        account_page: format!("{}/account", flow.issuer),
    };
    let done = if came_back(flow, entry) {
        Done::Yes
    } else {
        sent(flow, entry, flow.notifier.deliver(&outgoing).await)
    };
    if done == Done::Yes {
        accepted(flow, entry, notice).await?;
    }
    Ok(done)
}

/// The notice with how the account stands when it is accepted now: while mail was down its end moved (domain "End"), and
/// it may have been frozen.
async fn with_current_end(flow: &Flow, entry: &Pending, notice: &Notice) -> Result<Notice, FlowError> {
    let loaded = flow.store.read(&flow.key(&entry.subject), Parts::RECORD).await?;
    let now = flow.now(loaded.store_time);
    let mut notice = notice.clone();
    let record = loaded.record.as_ref();
    let record = record.map(|r| told(r, &notice.case, now).map_or_else(|| r.clone(), |t| t.record));
    if let Some(record) = record {
        notice.content = record.stated(notice.content, None, now);
    }
    Ok(notice)
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
                Message::ReportRepeated | Message::RestrictionKept | Message::AdministratorAdded => None,
                _ => told(record, &notice.case, now),
            };
            let mut write = transition.map_or_else(Write::default, Write::from);
            write.audit.push(line(now.latest()));
            Some(write)
        })
        .await?;
    Ok(())
}

/// What will not arrive is no silence: it is written down and raises an alarm (row C14). That a message to an owner
/// is undeliverable is announced; that an announcement is, is not.
async fn undeliverable(flow: &Flow, entry: &Pending, why: &str) -> Result<(), FlowError> {
    let line = |action: &str| {
        let id = format!("{}:undeliverable", entry.id);
        Entry::system(id, flow.clock.now(), action, None)
            .alarming()
            .with("why", why)
    };
    let line = match &entry.effect {
        Effect::Notice(notice) => {
            let mut line = line("notice_undeliverable")
                .with("message", notice.content.message.as_str())
                .with("channel", &notice.channel.0);
            line.case = Some(notice.case.clone());
            line
        }
        Effect::Webhook(delivery) => {
            let mut line = line("webhook_undeliverable")
                .with("receiver", &delivery.receiver)
                .with("event", delivery.event.kind.as_str());
            line.case.clone_from(&delivery.event.case);
            line
        }
        Effect::Farewell(farewell) => line("logout_undeliverable")
            .with("client", &farewell.client)
            .with("sid", &farewell.session),
        Effect::Converge | Effect::Announce(_) => line("effect_undeliverable"),
    };
    flow.store
        .update(&flow.key(&entry.subject), Parts::RECORD, None, &|_| {
            Some(Write::saying(&entry.subject, line.clone()))
        })
        .await?;
    Ok(())
}
