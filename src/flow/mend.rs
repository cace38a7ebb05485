//! Single accounts whose values somebody altered, took away or put back are made anew from what their IdPs still know
//! (P5, P15).
//!
//! The store finds them when they are read: their values do not belong together, or are older than what was seen. From
//! then on everybody restricts the account, and no other. This worker says so, marks the account in the store, has it
//! rebuilt as a whole lost partition would be, and takes it back into use. What is left of it is the ground that this is
//! laid on; its sessions are gone, since nobody knows which were ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::audit::Entry;
use crate::domain::hold::rebuild::reach;
use crate::domain::subject::Subject;
use crate::domain::subject::versions::Stale;
use crate::domain::time::Timestamp;
use crate::flow::rebuild::{self, Marks};
use crate::flow::{Flow, FlowError, reconcile};
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Altered, Loaded, Parts, Write};

/// Between two looks at what was found.
const LOOK: Duration = Duration::from_secs(1);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// Accounts that are made anew in one round; others wait for the next.
const AT_ONCE: usize = 64;

/// Makes altered accounts anew until `stop` says so.
pub async fn run(flow: &Flow, stop: &CancellationToken) {
    let mut said: BTreeSet<SubjectKey> = BTreeSet::new();
    while !stop.is_cancelled() {
        let pause = if round(flow, &mut said).await { LOOK } else { AGAIN };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Looks once. `false` when something has to be tried again.
async fn round(flow: &Flow, said: &mut BTreeSet<SubjectKey>) -> bool {
    let mut found = flow.store.altered();
    said.retain(|key| found.iter().any(|a| a.key == *key));
    found.truncate(AT_ONCE);
    if found.is_empty() {
        return true;
    }
    for altered in &found {
        if said.insert(altered.key) && altered.why != Stale::Mending {
            metrics::counter!("reentry_accounts_altered_total").increment(1);
            tracing::error!(
                partition = altered.key.partition(), why = %altered.why,
                "values of an account were altered in the store behind our back: the account is restricted until it was made anew. Find out who writes to the store, and change its password"
            );
        }
    }
    let named = match name(flow, &found).await {
        Ok(named) => named,
        Err(error) => {
            tracing::warn!(%error, "accounts whose values were altered stay restricted; it is tried again");
            return false;
        }
    };
    let mut whole = true;
    for altered in &found {
        let subject = altered.subject.as_ref().or_else(|| named.get(&altered.key));
        if let Err(error) = one(flow, altered, subject).await {
            // One that cannot be made anew holds up none of the others.
            tracing::warn!(%error, "an account whose values were altered stays restricted; it is tried again");
            whole = false;
        }
    }
    whole
}

/// Finds out whose accounts they are of which no genuine value tells: the IdPs are asked for the names of all.
async fn name(flow: &Flow, found: &[Altered]) -> Result<BTreeMap<SubjectKey, Subject>, FlowError> {
    let wanted: BTreeSet<SubjectKey> = found
        .iter()
        .filter(|a| a.subject.is_none())
        .map(|a| a.key)
        .collect();
    let mut named = BTreeMap::new();
    if wanted.is_empty() {
        return Ok(named);
    }
    for upstream in flow.upstreams.keys() {
        let mut pages = reconcile::Pages::default();
        let who = format!("{}:mend", flow.random::<6>());
        while let Some(subs) = pages.next(flow, upstream, &who).await? {
            let subjects = subs.iter().filter_map(|sub| Subject::new(upstream.clone(), sub));
            let keyed = subjects.map(|s| (flow.key(&s), s));
            named.extend(keyed.filter(|(key, _)| wanted.contains(key)));
        }
    }
    Ok(named)
}

async fn one(flow: &Flow, altered: &Altered, subject: Option<&Subject>) -> Result<(), FlowError> {
    if !flow.store.begin_mend(&altered.key).await? {
        return Ok(());
    }
    if let Some(subject) = subject {
        let since = flow.now(None).earliest().minus(reach(&flow.policy.load()));
        rebuild::account(flow, subject, since, Marks::Kept).await?;
        write_down(flow, altered, subject).await?;
    }
    if flow.store.finish_mend(&altered.key).await? {
        tracing::warn!(
            partition = altered.key.partition(),
            "an account whose values were altered was made anew and counts again"
        );
    }
    Ok(())
}

/// The line of the audit log, which is an alarm to whoever is told of events.
async fn write_down(flow: &Flow, altered: &Altered, subject: &Subject) -> Result<(), FlowError> {
    let line = |at: Timestamp| {
        let id = format!("altered:{}:{}", subject.name(), at.millis());
        Entry::system(id, at, "store_altered", None)
            .alarming()
            .with("alarm", "values of the account were altered in the store")
            .with("why", altered.why)
    };
    let parts = Parts::RECORD.while_rebuilding();
    let said = |loaded: &Loaded| Some(Write::saying(subject, line(flow.now(loaded.store_time).latest())));
    flow.store.update(&altered.key, parts, None, &said).await?;
    Ok(())
}
