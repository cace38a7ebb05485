//! How many effects are in which state, for the gauge `reentry_outbox_now`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lane::Lane;
use crate::domain::time::Span;
use crate::flow::{Flow, FlowError};

/// How often the outbox is counted.
const PAUSE: Duration = Duration::from_secs(15);
/// The most entries that are counted of each list; beyond, the gauge stays there.
const MOST: usize = 10_000;
/// What can be in the outbox.
const KINDS: [&str; 5] = ["email", "phone", "webhook", "idp", "event"];
/// How it can stand. What was delivered is in `reentry_effects_total`.
const STATES: [&str; 3] = ["pending", "retrying", "dead"];

/// What was never tried for so long is worked on by nobody: whoever should has died, or somebody keeps its leases.
const OVERDUE: Span = Span::from_mins(2);

/// Counts until `stop` says so. `watch` is told what is wrong, and that nothing is any more.
pub async fn run(
    flow: &Flow,
    watch: &(dyn Fn(Option<String>) + Sync),
    stop: &tokio_util::sync::CancellationToken,
) {
    let mut said = false;
    while !stop.is_cancelled() {
        match count(flow).await {
            Ok(fault) => {
                if let Some(fault) = fault.as_ref().filter(|_| !said) {
                    tracing::error!(fault, "the outbox is not worked on");
                }
                said = fault.is_some();
                watch(fault);
            }
            Err(error) => tracing::debug!(%error, "the outbox could not be counted"),
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Counts once, and says what is wrong with it.
///
/// # Errors
/// [`FlowError::Store`]; the gauge stays as it was.
pub async fn count(flow: &Flow) -> Result<Option<String>, FlowError> {
    let (waiting, dead) = (flow.store.waiting(MOST).await?, flow.store.dead(MOST).await?);
    let oldest = waiting.iter().filter(|e| e.attempts == 0).map(|e| e.since).min();
    let age = oldest.map_or(Span::ZERO, |since| flow.clock.now().since(since).max(Span::ZERO));
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    metrics::gauge!("reentry_outbox_oldest_seconds").set(age.secs() as f64);
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
    Ok((age > OVERDUE).then(|| {
        format!(
            "messages, or holds at the identity provider, wait for {} s and nobody has tried them: look whether a replica hangs, and who writes to the store",
            age.secs()
        )
    }))
}
