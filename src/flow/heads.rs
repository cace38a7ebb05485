//! The newest lines of the audit log leave the store by themselves: as a line of the program's own log, and as an event.
//!
//! Whoever can write to the store can cut off the end of the audit log and put back the head that was genuine then; it
//! looks whole afterwards. What left before shows it: `reentry audit verify --witness` takes both. One process at a time
//! sends them, only those that moved on, and no more than once in a few minutes.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::audit::Head;
use crate::domain::event::Event;
use crate::domain::hold::Effect;
use crate::domain::time::Span;
use crate::flow::{Flow, FlowError, reconcile};
use crate::ports::store::{Loaded, Parts, Write};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(30);
/// Between two messages, unless many lines came.
const PAUSE: Duration = Duration::from_mins(5);
/// So many lines do not wait.
const MANY: u64 = 100;
/// Heads of one message.
const TOGETHER: usize = 64;
/// How long one process keeps this to itself.
const LEASE: Span = Span::from_mins(2);
const LEASE_NAME: &str = "heads";

/// What was sent last.
#[derive(Debug, Default)]
struct Sent {
    heads: BTreeMap<u8, Head>,
    at: Option<Instant>,
}

/// Sends what moved on until `stop` says so, and once more then.
pub async fn run(flow: &Flow, owner: &str, stop: &CancellationToken) {
    let mut sent = Sent::default();
    loop {
        let last = stop.is_cancelled();
        if let Err(error) = look(flow, owner, last, &mut sent).await {
            tracing::debug!(%error, "the heads of the audit log could not be sent; it is tried again");
        }
        if last {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn look(flow: &Flow, owner: &str, last: bool, sent: &mut Sent) -> Result<(), FlowError> {
    if flow.store.lease(LEASE_NAME, owner, LEASE).await?.is_none() {
        return Ok(());
    }
    let heads = flow.store.heads().await?;
    let moved: Vec<&(u8, Head)> = heads
        .iter()
        .filter(|(partition, head)| sent.heads.get(partition) != Some(head))
        .collect();
    let before = |partition: &u8| sent.heads.get(partition).map_or(0, |h| h.n);
    let lines: u64 = moved
        .iter()
        .map(|(partition, head)| head.n.saturating_sub(before(partition)))
        .sum();
    let due = sent.at.is_none_or(|at| at.elapsed() >= PAUSE) || lines >= MANY || last;
    if moved.is_empty() || !due {
        return Ok(());
    }
    for some in moved.chunks(TOGETHER) {
        let words: Vec<String> = some
            .iter()
            .map(|(partition, head)| head.word(*partition))
            .collect();
        tracing::info!(heads = words.join(" "), "the newest lines of the audit log");
        send(flow, &words).await?;
    }
    sent.heads = heads.into_iter().collect();
    sent.at = Some(Instant::now());
    if last {
        flow.store.release(LEASE_NAME, owner).await?;
    }
    Ok(())
}

/// Puts the event into the outbox.
async fn send(flow: &Flow, words: &[String]) -> Result<(), FlowError> {
    let Some(subject) = flow.upstreams.keys().next().and_then(reconcile::installation) else {
        return Ok(());
    };
    let now = flow.now(None).latest();
    let first = words.first().map(String::as_str).unwrap_or_default();
    let id = format!("event:heads:{}:{first}", now.millis());
    let write = Write {
        subject: Some(subject.clone()),
        effects: vec![(id, Effect::Announce(Box::new(Event::heads(now, words))))],
        ..Write::default()
    };
    let said = |_: &Loaded| Some(write.clone());
    let key = flow.key(&subject);
    flow.store.update(&key, Parts::RECORD, None, &said).await?;
    Ok(())
}
