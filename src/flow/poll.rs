//! The poller: reads the IdP's log, line by line into transitions, and moves its cursor only when every line of
//! a page is stored. Lines are read again by design; marks make that harmless.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::subject::UpstreamId;
use crate::domain::time::Span;
use crate::flow::{Flow, FlowError, ingest};
use crate::ports::idp::Cursor;

/// How a poller stands, for readiness and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The log was read to its end at least once since the start.
    pub caught_up: bool,
    /// The last fault, until a poll succeeds.
    pub fault: Option<String>,
    /// Alarms of the last poll: the log is switched off, was shrunk, or does not record what we need.
    pub alarms: Vec<String>,
}

/// Where pollers report their standing.
pub type Report = Arc<dyn Fn(&UpstreamId, &Standing) + Send + Sync>;

/// Polls one IdP every `interval` until `stop` says so. `owner` names this process in the lease.
pub async fn run(
    flow: &Flow,
    upstream: &UpstreamId,
    interval: Duration,
    owner: &str,
    report: &Report,
    stop: &tokio_util::sync::CancellationToken,
) {
    let mut standing = Standing::default();
    while !stop.is_cancelled() {
        let more = match once(flow, upstream, owner).await {
            Ok(Some((more, alarms))) => {
                for alarm in alarms.iter().filter(|a| !standing.alarms.contains(a)) {
                    metrics::counter!("reentry_log_alarms_total").increment(1);
                    tracing::error!(%upstream, alarm, "the identity provider's log cannot be relied on");
                }
                standing = Standing {
                    caught_up: standing.caught_up || !more,
                    fault: None,
                    alarms,
                };
                more
            }
            // Another replica polls: what it stores, we see.
            Ok(None) => {
                standing.caught_up = true;
                standing.fault = None;
                false
            }
            Err(error) => {
                metrics::counter!("reentry_poll_failures_total").increment(1);
                tracing::warn!(%upstream, %error, "the identity provider could not be polled");
                standing.fault = Some(error.to_string());
                false
            }
        };
        report(upstream, &standing);
        if !more {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// Polls once. `None` when another process has the lease; otherwise whether more is waiting, and alarms.
///
/// # Errors
/// [`FlowError`]: the cursor stays where it was, nothing is missed.
pub async fn once(
    flow: &Flow,
    upstream: &UpstreamId,
    owner: &str,
) -> Result<Option<(bool, Vec<String>)>, FlowError> {
    let name = format!("poll:{upstream}");
    let Some(lease) = flow.store.lease(&name, owner, Span::from_secs(30)).await? else {
        return Ok(None);
    };
    let setting = format!("cursor:{upstream}");
    let cursor = Cursor(flow.store.setting(&setting).await?.unwrap_or_default());
    let polled = flow.idp(upstream)?.poll(&cursor, flow.now(None)).await?;
    for line in &polled.lines {
        ingest::line(flow, upstream, line).await?;
    }
    if polled.next != cursor {
        flow.store
            .set_setting(&setting, &polled.next.0, Some(&lease))
            .await?;
    }
    Ok(Some((polled.more, polled.alarms)))
}
