//! What a token may be used for: store read, then the domain's one function. A store error is a restricted answer.

use crate::domain::entitlement::{self, Entitlement, Request, State};
use crate::domain::subject::UpstreamId;
use crate::domain::time::Now;
use crate::flow::Flow;
use crate::flow::watch::Known;
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Loaded, Parts, StoreError};

/// Why nothing can be decided about accounts of `upstream`: its log was not read to its end since the start, so that
/// what is stored may be younger than what happened (P5).
///
/// # Errors
/// [`StoreError::Unsound`].
pub fn heard(flow: &Flow, upstream: &UpstreamId) -> Result<(), StoreError> {
    match flow.watch.known(upstream, flow.clock.now()) {
        Known::Never => Err(StoreError::Unsound(
            "it is older than the identity provider's log, which was not read to its end since the start; \
             it takes care of itself as soon as the identity provider answers"
                .to_owned(),
        )),
        Known::Now | Known::Late => Ok(()),
    }
}

/// Reads the subject and decides. Never fails: what cannot be read is `none` and `unreadable` (ISS-2).
pub async fn entitle(flow: &Flow, key: &SubjectKey, request: &Request<'_>) -> Entitlement {
    let loaded = flow.store.read(key, Parts::RECORD).await;
    decide(flow, loaded.as_ref(), request)
}

/// Decides on what was read already, for use cases that need more than the record in the same round trip.
#[must_use]
pub fn decide(flow: &Flow, loaded: Result<&Loaded, &StoreError>, request: &Request<'_>) -> Entitlement {
    let policy = flow.policy.load();
    let (state, now) = match loaded {
        Ok(loaded) => (State::Known(loaded.record.as_ref()), flow.now(loaded.store_time)),
        Err(error) => {
            metrics::counter!("reentry_unreadable_total").increment(1);
            tracing::warn!(%error, "state unreadable: restricted");
            (State::Unreadable, Now::exact(flow.clock.now()))
        }
    };
    let answer = entitlement::entitle(state, request, now, &policy);
    if let Some(shadow) = &answer.shadow {
        tracing::info!(would_be = %shadow, "roll-out: this answer would be reduced if every tier were on");
    }
    answer
}
