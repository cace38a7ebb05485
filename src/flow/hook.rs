//! Calls of hooks: a wake-up for the poller of this process, or a change that is stored before it is acknowledged.
//!
//! What the IdP proves to have ended is ended here before the call is answered. A wake-up is never believed by itself. The replica that has the poller's lease reads the log; any other one asks
//! the IdP about the account that was named, which needs no lease: marks make a second reading harmless.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::domain::subject::UpstreamId;
use crate::flow::{Flow, FlowError, ingest};
use crate::ports::hook::{Heeded, HookCall, HookRefusal};
use crate::ports::idp::{Heard, IdpError};
use crate::ports::store::Updated;

/// Most accounts that are remembered until the poller gets to them; the log tells of the rest.
const NAMED: usize = 1_000;

/// Wake-ups for the pollers of this process.
#[derive(Debug, Default)]
pub struct Wakes(BTreeMap<UpstreamId, Wake>);

#[derive(Debug, Default)]
struct Wake {
    notify: Notify,
    named: Mutex<BTreeSet<String>>,
}

impl Wakes {
    /// One for each IdP.
    #[must_use]
    pub fn new(upstreams: impl IntoIterator<Item = UpstreamId>) -> Self {
        Self(upstreams.into_iter().map(|id| (id, Wake::default())).collect())
    }

    /// Wakes the poller of an IdP at once; `sub` is the account that was named.
    pub fn wake(&self, upstream: &UpstreamId, sub: Option<String>) {
        let Some(wake) = self.0.get(upstream) else { return };
        if let Some(sub) = sub {
            let mut named = wake.named.lock().unwrap_or_else(PoisonError::into_inner);
            if named.len() < NAMED {
                named.insert(sub);
            }
        }
        wake.notify.notify_one();
    }

    /// Waits for the next wake-up; one that came meanwhile counts.
    pub async fn woken(&self, upstream: &UpstreamId) {
        match self.0.get(upstream) {
            Some(wake) => wake.notify.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Takes the accounts that were named since the last time.
    #[must_use]
    pub fn named(&self, upstream: &UpstreamId) -> BTreeSet<String> {
        let Some(wake) = self.0.get(upstream) else {
            return BTreeSet::new();
        };
        std::mem::take(&mut *wake.named.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why a call was not taken.
#[derive(Debug, thiserror::Error)]
pub enum HookFault {
    /// The caller is told what is wrong.
    #[error(transparent)]
    Refused(#[from] HookRefusal),
    /// State or the IdP could not be had: the caller repeats.
    #[error(transparent)]
    Flow(FlowError),
}

/// Takes one call. A change is stored when this returns; told again it is stored once.
///
/// # Errors
/// [`HookFault`]: nothing was stored.
pub async fn take(
    flow: &Flow,
    wakes: &Wakes,
    upstream: &UpstreamId,
    call: &HookCall<'_>,
) -> Result<(), HookFault> {
    let idp = flow.upstreams.get(upstream).ok_or(HookRefusal::NotConfigured)?;
    let kind = call.kind.as_str();
    let heeded = match idp.heed(call, flow.clock.now()).await {
        Ok(heeded) => heeded,
        Err(refusal) => {
            metrics::counter!("reentry_hooks_total", "kind" => kind, "outcome" => outcome(&refusal))
                .increment(1);
            return Err(refusal.into());
        }
    };
    match heeded {
        Heeded::Wake { sub } => {
            metrics::counter!("reentry_hooks_total", "kind" => kind, "outcome" => "woken").increment(1);
            wakes.wake(upstream, sub);
            Ok(())
        }
        Heeded::Told(line) => {
            if let Heard::Withdrawn { .. } = line.heard {
                // Something may have happened to the account before: the log tells what.
                metrics::counter!("reentry_hooks_total", "kind" => kind, "outcome" => "woken").increment(1);
                wakes.wake(upstream, Some(line.sub.clone()));
            }
            let updated = ingest::pushed(flow, upstream, &line)
                .await
                .map_err(|error| match error {
                    FlowError::Idp(IdpError::UnknownSubject) | FlowError::Unknown(_) => {
                        HookFault::Refused(HookRefusal::Invalid(
                            "the identity provider knows no account with this `sub`".to_owned(),
                        ))
                    }
                    other => HookFault::Flow(other),
                })?;
            if let Heard::Withdrawn { id, .. } = &line.heard {
                idp.heeded(id);
            }
            let outcome = match updated {
                Updated::Stored => "stored",
                Updated::Duplicate | Updated::Unchanged => "known",
            };
            metrics::counter!("reentry_hooks_total", "kind" => kind, "outcome" => outcome).increment(1);
            Ok(())
        }
    }
}

const fn outcome(refusal: &HookRefusal) -> &'static str {
    match refusal {
        HookRefusal::NotConfigured | HookRefusal::Malformed(_) | HookRefusal::Invalid(_) => "malformed",
        HookRefusal::Unproven(_) => "unproven",
        HookRefusal::Replayed(_) => "replayed",
        HookRefusal::Unavailable(_) => "unavailable",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_wake_up_that_came_before_the_wait_counts_and_names_stay_bounded() {
        let id = UpstreamId::parse("a").unwrap();
        let wakes = Wakes::new([id.clone()]);
        for n in 0..2 * NAMED {
            wakes.wake(&id, Some(n.to_string()));
        }
        tokio::time::timeout(Duration::from_secs(1), wakes.woken(&id))
            .await
            .unwrap();
        assert_eq!(wakes.named(&id).len(), NAMED);
        assert!(wakes.named(&id).is_empty());
        let again = tokio::time::timeout(Duration::from_millis(20), wakes.woken(&id)).await;
        assert!(again.is_err(), "one wake-up for all of them");
    }
}
