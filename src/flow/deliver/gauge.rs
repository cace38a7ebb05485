//! How many effects are in which state, for the gauge `reentry_outbox_now`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lane::Lane;
use crate::flow::{Flow, FlowError};

/// How often the outbox is counted.
const PAUSE: Duration = Duration::from_secs(15);
/// The most entries that are counted of each list; beyond, the gauge stays there.
const MOST: usize = 10_000;
/// What can be in the outbox.
const KINDS: [&str; 5] = ["email", "phone", "webhook", "idp", "event"];
/// How it can stand. What was delivered is in `reentry_effects_total`.
const STATES: [&str; 3] = ["pending", "retrying", "dead"];

/// Counts until `stop` says so.
pub async fn run(flow: &Flow, stop: &tokio_util::sync::CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = count(flow).await {
            tracing::debug!(%error, "the outbox could not be counted");
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Counts once.
///
/// # Errors
/// [`FlowError::Store`]; the gauge stays as it was.
pub async fn count(flow: &Flow) -> Result<(), FlowError> {
    let (waiting, dead) = (flow.store.waiting(MOST).await?, flow.store.dead(MOST).await?);
    let mut counted: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let every = KINDS
        .iter()
        .flat_map(|kind| STATES.iter().map(move |s| (*kind, *s)));
    counted.extend(every.map(|place| (place, 0)));
    let states = waiting
        .iter()
        .map(|e| (e, if e.attempts == 0 { "pending" } else { "retrying" }));
    for (entry, state) in states.chain(dead.iter().map(|e| (e, "dead"))) {
        let number = counted.entry((Lane::of(entry).kind(), state)).or_default();
        *number = number.saturating_add(1);
    }
    for ((kind, state), number) in counted {
        metrics::gauge!("reentry_outbox_now", "kind" => kind, "state" => state).set(f64::from(number));
    }
    Ok(())
}
