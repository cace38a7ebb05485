//! What the passing of time asks for. Truth never waits for the sweeper; the IdP's own tokens, and the end of a
//! freeze, do. So does an account that could not be read.
//!
//! Whom it cannot serve it leaves alone for a while, ever longer, and looks past: however many fail for good, nobody
//! else waits for them.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt as _;

use crate::domain::hold::Record;
use crate::domain::hold::apply;
use crate::domain::hold::contest::remind::remind;
use crate::domain::hold::contest::{ThawStep, end_freeze, thaw_step};
use crate::domain::subject::account::{Account, Factor};
use crate::domain::time::{Span, Timestamp};
use crate::flow::{Flow, FlowError, ingest, thaw, unreadable};
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Parts, Write};
use crate::ports::trace;

/// How far an instant of ours and the date of a factor, which is the IdP's, can lie apart.
const APART: Span = Span::from_mins(10);
/// The most subjects taken at once.
const BATCH: usize = 256;
/// The most that are left alone and looked past.
const MOST_RESTING: usize = 10_000;
/// Subjects served side by side.
const SIDE_BY_SIDE: usize = 8;
/// The first rest, and the longest.
const RESTS: (Span, Span) = (Span::from_secs(2), Span::from_mins(5));

/// Who could not be served, until when each is left alone, and how often it failed.
#[derive(Debug, Default)]
pub struct Resting(HashMap<SubjectKey, (Timestamp, u32)>);

impl Resting {
    fn is_resting(&self, key: &SubjectKey, now: Timestamp) -> bool {
        self.0.get(key).is_some_and(|(until, _)| now < *until)
    }

    fn failed(&mut self, key: SubjectKey, now: Timestamp) {
        let tries = self.0.get(&key).map_or(0, |(_, tries)| *tries);
        let rest = RESTS.0.times(1 << tries.min(8)).min(RESTS.1);
        if self.0.len() < MOST_RESTING {
            self.0.insert(key, (now.plus(rest), tries.saturating_add(1)));
        }
    }
}

/// Works until `stop` says so, looking every `pause`.
pub async fn run(flow: &Flow, pause: Duration, stop: &tokio_util::sync::CancellationToken) {
    let mut resting = Resting::default();
    while !stop.is_cancelled() {
        if let Err(error) = round(flow, &mut resting).await {
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
pub async fn round(flow: &Flow, resting: &mut Resting) -> Result<usize, FlowError> {
    let now = flow.clock.now();
    let due = flow.store.due(now, BATCH + resting.0.len()).await?;
    let ready = due.into_iter().filter(|key| !resting.is_resting(key, now));
    let ready: Vec<SubjectKey> = ready.take(BATCH).collect();
    let count = ready.len();
    let each = ready
        .into_iter()
        .map(|key| async move { (key, Box::pin(trace::scope(flow.trace(), one(flow, &key))).await) });
    let mut done = futures_util::stream::iter(each).buffer_unordered(SIDE_BY_SIDE);
    while let Some((key, result)) = done.next().await {
        match result {
            Ok(()) => {
                resting.0.remove(&key);
            }
            // A lost partition is said once, by those who watch them; it stays due until it was rebuilt.
            Err(FlowError::Store(error)) if error.heals() => resting.failed(key, now),
            Err(error) => {
                tracing::warn!(%error, "a due account could not be swept; it stays due");
                resting.failed(key, now);
            }
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
    if let Some(known) = record.unreadable.as_ref().filter(|u| u.next <= now.earliest()) {
        return unreadable::again(flow, &record, known).await;
    }
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
                let enrolled = |factor: &Factor| !factor.is_dated() || factor.created >= since.minus(APART);
                ingest::took_away(flow, subject, &enrolled, true).await?;
            }
            return finish(flow, key, &eligible, true).await;
        }
        ThawStep::Complete => {
            let eligible = recheck(flow, &record).await?;
            return finish(flow, key, &eligible, true).await;
        }
        ThawStep::Lapse => return finish(flow, key, &[], true).await,
        ThawStep::Remind => return reminded(flow, key).await,
    }
    flow.store
        .update(key, Parts::RECORD, None, &|loaded| {
            let record = loaded.record.as_ref()?;
            apply::sweep(record, flow.now(loaded.store_time)).map(Write::from)
        })
        .await?;
    Ok(())
}

/// Tells of a freeze that stands.
async fn reminded(flow: &Flow, key: &SubjectKey) -> Result<(), FlowError> {
    let policy = flow.policy.load_full();
    flow.store
        .update(key, Parts::ACCOUNT, None, &|loaded| {
            let account = loaded.account.clone().unwrap_or_else(Account::default);
            let now = flow.now(loaded.store_time);
            remind(loaded.record.as_ref()?, &account, now, &policy).map(Write::from)
        })
        .await?;
    Ok(())
}

async fn recheck(flow: &Flow, record: &Record) -> Result<Vec<(String, bool)>, FlowError> {
    match record.disputed() {
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
