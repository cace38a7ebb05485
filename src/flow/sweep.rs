//! What the passing of time asks for. Truth never waits for the sweeper; the IdP's own tokens, and the end of a
//! freeze, do.

use std::time::Duration;

use crate::domain::hold::Record;
use crate::domain::hold::apply;
use crate::domain::hold::contest::{ThawStep, end_freeze, thaw_step};
use crate::domain::subject::account::Account;
use crate::flow::{Flow, FlowError, thaw};
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Parts, StoreError, Write};
use crate::ports::trace;

/// The most subjects taken at once.
const BATCH: usize = 256;

/// Works until `stop` says so, looking every `pause`.
pub async fn run(flow: &Flow, pause: Duration, stop: &tokio_util::sync::CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = round(flow).await {
            tracing::warn!(%error, "the sweep could not be finished");
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Looks once at everything that is due. One account's fault does not keep the others waiting.
///
/// # Errors
/// [`FlowError::Store`] when the due queue cannot be read.
pub async fn round(flow: &Flow) -> Result<usize, FlowError> {
    let due = flow.store.due(flow.clock.now(), BATCH).await?;
    let count = due.len();
    for key in due {
        match trace::scope(flow.trace(), one(flow, &key)).await {
            // A lost partition is said once, by those who watch them; it stays due until it was rebuilt.
            Ok(()) | Err(FlowError::Store(StoreError::Lost { .. })) => {}
            Err(error) => tracing::warn!(%error, "a due account could not be swept; it stays due"),
        }
    }
    Ok(count)
}

async fn one(flow: &Flow, key: &SubjectKey) -> Result<(), FlowError> {
    let loaded = flow.store.read(key, Parts::ACCOUNT).await?;
    let Some(record) = loaded.record else {
        return Ok(());
    };
    let now = flow.now(loaded.store_time);
    match thaw_step(&record, now) {
        ThawStep::Wait => {}
        ThawStep::Restore(since) => {
            let account = loaded.account.unwrap_or_default();
            let eligible = recheck(flow, &record).await?;
            // Nothing is taken away on the word of somebody who may no longer give it.
            let restored = eligible.iter().all(|(_, ok)| *ok);
            if restored {
                let subject = &record.subject;
                let done = flow
                    .idp(&subject.upstream)?
                    .restore(&subject.sub, since, &account)
                    .await?;
                tracing::info!(upstream = %subject.upstream, acts = done.join("; "), "contested credentials removed");
            }
            return finish(flow, key, &eligible, true).await;
        }
        ThawStep::Complete => {
            let eligible = recheck(flow, &record).await?;
            return finish(flow, key, &eligible, true).await;
        }
        ThawStep::Lapse => return finish(flow, key, &[], true).await,
    }
    flow.store
        .update(key, Parts::RECORD, None, &|loaded| {
            let record = loaded.record.as_ref()?;
            apply::sweep(record, flow.now(loaded.store_time)).map(Write::from)
        })
        .await?;
    Ok(())
}

async fn recheck(flow: &Flow, record: &Record) -> Result<Vec<(String, bool)>, FlowError> {
    match &record.contest {
        Some(contest) => thaw::recheck(flow, contest).await,
        None => Ok(Vec::new()),
    }
}

async fn finish(
    flow: &Flow,
    key: &SubjectKey,
    eligible: &[(String, bool)],
    restored: bool,
) -> Result<(), FlowError> {
    let policy = flow.policy.load_full();
    let case = flow.case_id();
    flow.store
        .update(key, Parts::ACCOUNT, None, &|loaded| {
            let record = loaded.record.as_ref()?;
            let account = loaded.account.clone().unwrap_or_else(Account::default);
            let now = flow.now(loaded.store_time);
            end_freeze(record, &account, eligible, restored, &case, now, &policy).map(Write::from)
        })
        .await?;
    Ok(())
}
