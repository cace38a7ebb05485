//! How full the store is: watched, said, and kept free for what tightens.
//!
//! A hold that cannot be stored holds nobody. So the store refuses what only fills it, log-ins and what waits for them,
//! from a part of its room on; it learns here, every second, how much is used. Crossing that line is an alarm.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::audit::Entry;
use crate::flow::{Flow, FlowError, reconcile};
use crate::ports::store::Room;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Watches until `stop` says so.
pub async fn run(flow: &Flow, stop: &CancellationToken) {
    let mut tight = false;
    while !stop.is_cancelled() {
        match look(flow, &mut tight).await {
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, "how full the store is could not be asked"),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn look(flow: &Flow, tight: &mut bool) -> Result<(), FlowError> {
    let Some(room) = flow.store.room().await? else {
        return Ok(());
    };
    #[expect(clippy::cast_precision_loss, reason = "an amount of memory to be looked at")]
    let (used, most) = (room.used as f64, room.most as f64);
    metrics::gauge!("reentry_store_used_bytes").set(used);
    metrics::gauge!("reentry_store_limit_bytes").set(most);
    if room.is_tight() == *tight {
        return Ok(());
    }
    *tight = room.is_tight();
    say(flow, room).await
}

/// Says that the line was crossed, in whichever direction.
async fn say(flow: &Flow, room: Room) -> Result<(), FlowError> {
    let now = flow.now(None).latest();
    let percent = room.percent();
    let entry = |action: &str| Entry::system(format!("{action}:{}", now.millis()), now, action, None);
    let entry = if room.is_tight() {
        tracing::error!(
            percent,
            "the store is nearly full: log-ins are refused, what is left is kept for holds and reports. Give it more memory, and look for what fills it"
        );
        entry("store_full")
            .alarming()
            .with("alarm", "the store is nearly full: log-ins are refused")
    } else {
        tracing::warn!(percent, "the store has room again");
        entry("store_full_over")
    };
    let entry = entry.with("percent", percent);
    match flow.upstreams.keys().next() {
        Some(upstream) => reconcile::write_down(flow, upstream, &entry).await,
        None => Ok(()),
    }
}
