//! Partitions that were lost are made anew from what the IdPs still know, by one process at a time (P5).
//!
//! A partition whose marker is gone, or lower than one that was seen, is restricted from the first reading on; nobody
//! has to decide that. This worker finds it, says so, and takes it back into use: it marks the partition as being
//! rebuilt, under a fence above every one that was seen, and only then asks the IdPs about every account of it. So what
//! a poller stored, or held back, before the mark is in the log by then, and what comes after it is taken in as always:
//! no change falls between the two. When every account was seen the partition is released, unless somebody else has
//! begun anew meanwhile.
//!
//! An account that cannot be read, although the IdP answers, is marked as such and restricted alone: its partition counts
//! again with the others.
//!
//! A store of other keys, or for other IdPs, is somebody's mistake: nothing is written into it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::audit::Entry;
use crate::domain::change::Change;
use crate::domain::hold::apply::Setting;
use crate::domain::hold::rebuild::{Evidence, reach, rebuild, was_told};
use crate::domain::subject::account::Account;
use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::{Now, Span, Timestamp};
use crate::flow::unreadable::{self, Failed};
use crate::flow::{Flow, FlowError, ingest, reconcile, told};
use crate::ports::idp::{Heard, IdpError, Look, Observation, Reading, Told};
use crate::ports::store::{Loss, Lost, Parts, Rebuild, Write};

/// Between two looks at the markers.
const LOOK: Duration = Duration::from_secs(1);
/// So many of them are glances in a row, at most, when nothing has happened that a look could have missed.
const GLANCES: u32 = 9;
/// After a rebuild that failed.
const AGAIN: Duration = Duration::from_secs(3);
/// How long one process keeps rebuilding to itself without a word.
const LEASE: Span = Span::from_secs(60);
const LEASE_NAME: &str = "rebuild";
/// What was seen of the fences, for processes that start later.
const WITNESS: &str = "fences";
/// Accounts that are asked about side by side.
const SIDE_BY_SIDE: usize = 4;
/// Changes that came this long before a loss that nobody watched are told again.
const UNWATCHED: Span = Span::from_mins(10);
/// Between two looks at what waits in the outbox; well within [`crate::domain::hold::rebuild::UNCERTAIN`].
const TOLD_EVERY: Span = Span::from_secs(5);
/// The most waiting effects that are looked at; when there are more, nobody knows which waits longest.
const MOST: usize = 10_000;
/// What is enrolled this soon after an account was made belongs to its making.
const AT_CREATION: Span = Span::from_mins(5);

/// Keeps a line of text where a loss of the store does not reach it.
pub type Keep = Arc<dyn Fn(&str) + Send + Sync>;

/// What this process remembers between two looks.
#[derive(Debug, Default)]
struct Watch {
    /// Until when everything that each partition had to tell was told.
    told: BTreeMap<u8, Timestamp>,
    /// When that was last looked at.
    asked: Option<Timestamp>,
    /// When each log was last read to its end, as far as was told.
    polled: BTreeMap<UpstreamId, Timestamp>,
    /// What was said.
    said: BTreeMap<u8, Loss>,
    published: Option<String>,
    /// Glances since the last look.
    glances: u32,
}

/// Watches the markers until `stop` says so. `owner` names this process in leases.
pub async fn run(flow: &Flow, owner: &str, keep: Option<&Keep>, stop: &tokio_util::sync::CancellationToken) {
    let mut watch = Watch::default();
    while !stop.is_cancelled() {
        let pause = match look(flow, owner, keep, &mut watch).await {
            Ok(()) => LOOK,
            Err(error) => {
                tracing::warn!(%error, "lost partitions stay restricted; it is tried again");
                AGAIN
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Looks once, and rebuilds what has to be.
async fn look(flow: &Flow, owner: &str, keep: Option<&Keep>, watch: &mut Watch) -> Result<(), FlowError> {
    let told = flow.store.setting(WITNESS).await?;
    if let Some(told) = &told {
        flow.store.remember(told);
    }
    let now = flow.now(None).earliest();
    // Before the markers are: what was rolled back must not look as if it had been delivered.
    let waiting = oldest_waiting(flow, now, watch).await;
    let calm = watch.glances < GLANCES && flow.store.still_sound().await?;
    let lost = if calm {
        watch.glances += 1;
        Vec::new()
    } else {
        watch.glances = 0;
        flow.store.lost().await?
    };
    publish(
        flow,
        keep,
        watch,
        told.is_some() && lost.is_empty(),
        lost.is_empty(),
    )
    .await?;
    for upstream in flow.upstreams.keys() {
        if let Some(at) = crate::flow::poll::caught_up_at(flow, upstream).await {
            watch.polled.insert(upstream.clone(), at);
        }
    }
    say(&lost, watch);
    let names: BTreeSet<u8> = lost.iter().map(|l| l.partition).collect();
    if let Some(waiting) = waiting {
        for partition in (0..=u8::MAX).filter(|p| !names.contains(p)) {
            let oldest = waiting.get(&partition).copied().unwrap_or(now);
            watch.told.insert(partition, oldest.min(now));
        }
    }
    let heal: BTreeSet<u8> = lost.iter().filter(|l| l.heals).map(|l| l.partition).collect();
    if heal.is_empty() || flow.store.lease(LEASE_NAME, owner, LEASE).await?.is_none() {
        return Ok(());
    }
    let done = all(flow, owner, &heal, watch).await;
    flow.store.release(LEASE_NAME, owner).await?;
    let outcome = if done.is_ok() { "done" } else { "failed" };
    metrics::counter!("reentry_rebuilds_total", "outcome" => outcome).increment(1);
    done
}

/// Since when the oldest effect of each partition waits, where any does. `None` when it is not time to ask yet, or
/// nobody knows: then what counts as told stays where it was, and a message is rather repeated than lost (P8).
async fn oldest_waiting(flow: &Flow, now: Timestamp, watch: &mut Watch) -> Option<BTreeMap<u8, Timestamp>> {
    if watch.asked.is_some_and(|at| now < at.plus(TOLD_EVERY)) {
        return None;
    }
    let waiting = match flow.store.waiting(MOST).await {
        Ok(waiting) if waiting.len() < MOST => waiting,
        Ok(_) => return None,
        Err(error) => {
            tracing::debug!(%error, "what waits in the outbox could not be looked at");
            return None;
        }
    };
    watch.asked = Some(now);
    let mut oldest: BTreeMap<u8, Timestamp> = BTreeMap::new();
    for entry in waiting {
        let since = oldest.entry(entry.at.partition).or_insert(entry.since);
        *since = entry.since.min(*since);
    }
    Some(oldest)
}

/// Tells the others, and those to come, what was seen of the fences. A store that cannot be believed keeps what it
/// said; ours is in memory then, and in the file.
async fn publish(
    flow: &Flow,
    keep: Option<&Keep>,
    watch: &mut Watch,
    there: bool,
    sound: bool,
) -> Result<(), FlowError> {
    let Some(own) = flow.store.witness() else {
        return Ok(());
    };
    if there && watch.published.as_ref() == Some(&own) {
        return Ok(());
    }
    if let Some(keep) = keep {
        keep(&own);
    }
    if sound {
        flow.store.set_setting(WITNESS, &own, None).await?;
        watch.published = Some(own);
    }
    Ok(())
}

/// Says what was lost, once.
fn say(lost: &[Lost], watch: &mut Watch) {
    let now: BTreeMap<u8, Loss> = lost.iter().map(|l| (l.partition, l.loss.clone())).collect();
    let fresh = |l: &&Lost| {
        let before = watch.said.get(&l.partition);
        before != Some(&l.loss) && l.loss != Loss::Rebuilding
    };
    let news: Vec<&Lost> = lost.iter().filter(fresh).collect();
    if let Some(first) = news.first() {
        metrics::counter!("reentry_partitions_lost_total").increment(u64::try_from(news.len()).unwrap_or(0));
        tracing::error!(
            partitions = news.len(), first = first.partition, why = %first.loss, heals = first.heals,
            "partitions of the store were lost: their accounts are restricted until they are rebuilt"
        );
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 256")]
    metrics::gauge!("reentry_partitions_lost_now").set(lost.len() as f64);
    watch.said = now;
}

/// Rebuilds these partitions, all of them or none.
async fn all(
    flow: &Flow,
    owner: &str,
    partitions: &BTreeSet<u8>,
    watch: &mut Watch,
) -> Result<(), FlowError> {
    let now = flow.now(None);
    let unwatched = now.earliest().minus(UNWATCHED);
    let polled = flow
        .upstreams
        .keys()
        .map(|u| watch.polled.get(u).copied().unwrap_or(unwatched));
    let polled = polled.min().unwrap_or(unwatched);
    let mut begun: Vec<Rebuild> = Vec::new();
    for partition in partitions {
        let told = watch.told.get(partition).copied().unwrap_or(unwatched);
        let told_before = told.min(polled);
        begun.push(
            flow.store
                .begin_rebuild(*partition, told_before, now.latest())
                .await?,
        );
    }
    tracing::warn!(
        partitions = begun.len(),
        "rebuilding lost partitions from the identity providers"
    );
    let since = now.earliest().minus(reach(&flow.policy.load()));
    let mut count = 0;
    for upstream in flow.upstreams.keys() {
        count += walk(flow, upstream, owner, &begun, since).await?;
    }
    for rebuild in &begun {
        if !flow.store.finish_rebuild(rebuild).await? {
            tracing::warn!(
                partition = rebuild.partition,
                "somebody else rebuilds this partition anew"
            );
        }
    }
    tracing::warn!(
        partitions = begun.len(),
        accounts = count,
        "lost partitions were rebuilt and count again"
    );
    said(flow, begun.len(), count, now).await
}

/// Writes down what was rebuilt, and has everything else compared.
async fn said(flow: &Flow, partitions: usize, accounts: usize, began: Now) -> Result<(), FlowError> {
    for upstream in flow.upstreams.keys() {
        let entry = Entry::system(
            format!("rebuilt:{upstream}:{}", began.latest().millis()),
            flow.now(None).latest(),
            "store_rebuilt",
            None,
        )
        .alarming()
        .with("alarm", "partitions of the store were lost and rebuilt")
        .with("partitions", partitions)
        .with("accounts", accounts);
        reconcile::write_down(flow, upstream, &entry).await?;
        reconcile::ask(flow, upstream).await?;
    }
    Ok(())
}

/// Goes through every account of an IdP and rebuilds those of these partitions.
async fn walk(
    flow: &Flow,
    upstream: &UpstreamId,
    owner: &str,
    begun: &[Rebuild],
    since: Timestamp,
) -> Result<usize, FlowError> {
    let mut pages = reconcile::Pages::default();
    let who = format!("{owner}:rebuild");
    let mut count = 0;
    loop {
        let next = pages.next(flow, upstream, &who).await?;
        // Somebody who is not even listed cannot be marked: his partition may not count again.
        if let Some(place) = pages.missing.first() {
            let why = format!("the account at place {place} in the order of user names cannot be listed");
            return Err(IdpError::Unexpected(why).into());
        }
        let Some(subs) = next else {
            return Ok(count);
        };
        let ours: Vec<Subject> = subs
            .iter()
            .filter_map(|sub| Subject::new(upstream.clone(), sub))
            .filter(|s| begun.iter().any(|r| r.partition == flow.key(s).partition()))
            .collect();
        count += ours.len();
        for some in ours.chunks(SIDE_BY_SIDE) {
            if flow.store.lease(LEASE_NAME, owner, LEASE).await?.is_none() {
                return Err(crate::ports::store::StoreError::StaleLease(LEASE_NAME.to_owned()).into());
            }
            let each = some
                .iter()
                .map(|subject| async move { (account(flow, subject, since, Marks::Lost).await, subject) });
            let mut failed = Vec::new();
            for (done, subject) in futures_util::future::join_all(each).await {
                match done {
                    Err(FlowError::Idp(error)) => failed.push(Failed {
                        subject: subject.clone(),
                        error,
                        from: since,
                        lost: true,
                    }),
                    other => other?,
                }
            }
            let again = |subject: Subject| async move { account(flow, &subject, since, Marks::Lost).await };
            unreadable::settle(flow, upstream, failed, usize::MAX, again).await?;
        }
    }
}

/// What is left of the marks by which a change is known to have been stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marks {
    /// They are as they were: a change without one was never stored, and its owner never told.
    Kept,
    /// They may be gone with the rest.
    Lost,
}

/// Makes one account's record and snapshot anew, on what is left of them. Also for an account that the IdP holds and
/// of which the store knows nothing.
///
/// # Errors
/// [`FlowError`]; an account that the IdP no longer has is no error.
pub(super) async fn account(
    flow: &Flow,
    subject: &Subject,
    since: Timestamp,
    marks: Marks,
) -> Result<(), FlowError> {
    let now = flow.now(None);
    let look = Look { since, now };
    let Some(Observation { reading, told }) = observed(flow, subject, look).await? else {
        return Ok(());
    };
    let changes = changes(told, &reading, look);
    let policy = flow.policy.load_full();
    let tier = policy.choose(reading.facts.as_ref());
    let tier = tier.ok_or_else(|| FlowError::Unknown("the policy has no tier".to_owned()))?;
    let carried = reading.carried.clone().unwrap_or_default();
    let key = flow.key(subject);
    let unheard = match marks {
        Marks::Kept => ingest::unheard(flow, &key, &changes).await?,
        Marks::Lost => BTreeSet::new(),
    };
    let parts = Parts::ACCOUNT.while_rebuilding();
    flow.store
        .update(&key, parts, None, &|loaded| {
            let now = flow.now(loaded.store_time);
            let before = loaded.account.as_ref();
            let unheard = since_lost(&changes, &unheard, loaded.told_before);
            let judged = |c: &Change| ingest::judged(c, before, Some(&reading.account));
            let news = |c: &&Change| !ingest::is_old_news(flow, before, c);
            let changes: Vec<Change> = changes.iter().filter(news).map(judged).collect();
            let evidence = Evidence {
                changes: &changes,
                before,
                after: Some(&reading.account),
                carried: &carried,
                witnessed: loaded.witnessed,
                lost: loaded.rebuilding,
                told_before: loaded.told_before.unwrap_or_else(|| now.latest()),
                unheard: &unheard,
            };
            let setting = Setting {
                policy: &policy,
                tier,
                place: key.place(),
                now,
                reference: "",
            };
            let case = |change: &str| flow.case_of(subject, change);
            let known = |effect: &str| flow.store.told(effect);
            let made = rebuild(subject, loaded.record.as_ref(), evidence, &case, &known, setting);
            let mut made = made.map(Write::from).unwrap_or_default();
            made.subject = Some(subject.clone());
            made.account = made
                .account
                .or_else(|| Some(snapshot(before, &reading.account, now)));
            Some(made)
        })
        .await?;
    Ok(())
}

/// What there is to be known of an account; nothing of one that the IdP no longer has.
async fn observed(flow: &Flow, subject: &Subject, look: Look) -> Result<Option<Observation>, FlowError> {
    let observation = match flow.observe(subject, look).await {
        Err(FlowError::Idp(IdpError::UnknownSubject)) => return Ok(None),
        other => other?,
    };
    let reading = &observation.reading;
    if reading.facts.is_none() && reading.carried.is_none() {
        let why = "roles and groups of an account cannot be read".to_owned();
        return Err(IdpError::Unexpected(why).into());
    }
    Ok(Some(observation))
}

/// Those that were never taken down. The whole partition may have been lost once, and the marks of until then with it.
fn since_lost(
    changes: &[Change],
    unheard: &BTreeSet<String>,
    told_before: Option<Timestamp>,
) -> BTreeSet<String> {
    let lost = |c: &Change| told_before.is_some_and(|then| was_told(c.start(), then));
    let since = changes.iter().filter(|c| unheard.contains(&c.id) && !lost(c));
    since.map(|c| c.id.clone()).collect()
}

/// The snapshot, of an account that no change tells of.
fn snapshot(before: Option<&Account>, after: &Account, now: Now) -> Account {
    before.map_or_else(|| after.clone(), |b| b.refreshed(after, now.latest()))
}

/// Every change that was told of an account, and those that only the dates of its credentials show.
fn changes(told: Vec<Told>, reading: &Reading, look: Look) -> Vec<Change> {
    let change = |told: Told| match told.heard {
        Heard::Change(change) => Some(change),
        Heard::Withdrawn { .. }
        | Heard::Tampered { .. }
        | Heard::Acted { .. }
        | Heard::Entered { .. }
        | Heard::Touched { .. } => None,
    };
    let mut changes: Vec<Change> = told.into_iter().filter_map(change).collect();
    let silent = silent(reading, &changes, look.since, look.now);
    changes.extend(silent);
    changes.sort_by_key(Change::start);
    changes
}

/// Credentials that are younger than `since` and the account, and that no known change tells of. One without a date says
/// nothing about when it came.
pub(super) fn silent(reading: &Reading, known: &[Change], since: Timestamp, now: Now) -> Vec<Change> {
    let account = &reading.account;
    let untold = told::silent(account, None, known).into_iter();
    untold
        .filter(|f| f.is_dated() && f.created >= since && !account.is_young(f.created, AT_CREATION))
        .map(|f| told::by_date(f, (now, reading.ahead)))
        .collect()
}
