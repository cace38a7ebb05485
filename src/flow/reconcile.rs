//! Once a day, and after a rebuild: what the IdP has is compared with what we know, account by account (domain
//! "Roll-out", row "reconcile"). Keycloak emits nothing for some changes, and a log can be purged while nobody reads
//! it; the dates of credentials and the addresses themselves still tell.
//!
//! One process at a time, gently, page by page. Where it stands is written down, so that another one goes on from
//! there.

pub mod held;
mod pages;
mod unseen;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;

use crate::domain::audit::Entry;
use crate::domain::change::{Change, ChangeKind};
use crate::domain::hold::Effect;
use crate::domain::hold::rebuild::carried::Carried;
use crate::domain::hold::rebuild::reach;
use crate::domain::subject::account::{Account, Factor, FactorClass};
use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::{Span, Timestamp};
use crate::flow::ingest::{self, Era};
use crate::flow::unreadable::{self, Failed, MARKS};
use crate::flow::{Flow, FlowError, holders, rebuild, tamper, told};
use crate::ports::idp::{Heard, IdpError, Reading};
use crate::ports::store::{Lease, Loaded, Parts, StoreError, Write};
use crate::ports::trace;

pub(super) use pages::Pages;

/// Between two looks at whether it is time.
const LOOK: Duration = Duration::from_secs(1);
/// After a round that failed.
const AGAIN: Duration = Duration::from_secs(10);
/// How long one process keeps it to itself without a word.
const LEASE: Span = Span::from_secs(60);
/// Accounts that are looked at side by side.
const SIDE_BY_SIDE: usize = 2;
/// An account that is marked has its log read from so far back, once it can be read.
const LOOKS_BACK: Span = Span::from_days(7);
/// What could not be read is looked for again after this.
const RETRY: Span = Span::from_mins(10);
/// The account under which lines about the whole installation are written down.
const INSTALLATION: &str = "reentry";

/// Works until `stop` says so: every `interval`, and when asked. `owner` names this process in the lease.
pub async fn run(
    flow: &Flow,
    upstream: &UpstreamId,
    interval: Duration,
    owner: &str,
    stop: &tokio_util::sync::CancellationToken,
) {
    while !stop.is_cancelled() {
        let round = async {
            // Before anybody else: those of whom it is known that they have to be held.
            held::if_asked(flow, upstream, owner).await?;
            match due(flow, upstream, interval).await {
                Ok(true) => Box::pin(trace::scope(flow.trace(), whole(flow, upstream, owner)))
                    .await
                    .map(|_| ()),
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            }
        };
        let done = tokio::select! {
            done = round => done,
            () = stop.cancelled() => return,
        };
        let pause = match done {
            Ok(()) => LOOK,
            Err(error) => {
                tracing::warn!(%upstream, %error, "reconciling was not finished; it goes on later");
                AGAIN.min(interval)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// The setting that says when the last round began, in ms: `0` asks for one.
#[must_use]
pub fn stamp_name(upstream: &UpstreamId) -> String {
    format!("reconciled:{upstream}")
}

fn place_name(upstream: &UpstreamId) -> String {
    format!("reconcile:{upstream}")
}

/// The setting that says from when on another round is wanted, whatever the interval.
fn wanted_name(upstream: &UpstreamId) -> String {
    format!("reconcile_wanted:{upstream}")
}

async fn instant(flow: &Flow, name: &str) -> Result<Option<Timestamp>, FlowError> {
    let stamp = flow.store.setting(name).await?;
    Ok(stamp.and_then(|s| s.parse().ok()).map(Timestamp::from_millis))
}

async fn due(flow: &Flow, upstream: &UpstreamId, interval: Duration) -> Result<bool, FlowError> {
    let now = flow.clock.now();
    let Some(last) = instant(flow, &stamp_name(upstream)).await? else {
        return Ok(true);
    };
    // What was asked for in the middle of a round is another round: the first of it knew nothing of why.
    let wanted = instant(flow, &wanted_name(upstream)).await?;
    let interval = Span::from_millis(i64::try_from(interval.as_millis()).unwrap_or(i64::MAX));
    Ok(last.plus(interval) <= now || wanted.is_some_and(|at| last <= at && at <= now))
}

/// Asks for a round at the next look.
///
/// # Errors
/// [`FlowError::Store`].
pub async fn ask(flow: &Flow, upstream: &UpstreamId) -> Result<(), FlowError> {
    ask_at(flow, upstream, flow.clock.now()).await
}

async fn ask_at(flow: &Flow, upstream: &UpstreamId, at: Timestamp) -> Result<(), FlowError> {
    let at = at.millis().to_string();
    flow.store.set_setting(&wanted_name(upstream), &at, None).await?;
    Ok(())
}

/// Asks for a round when the last one began longer ago than `age`.
///
/// # Errors
/// [`FlowError::Store`].
pub(super) async fn ask_after(flow: &Flow, upstream: &UpstreamId, age: Span) -> Result<(), FlowError> {
    let last = instant(flow, &stamp_name(upstream)).await?;
    if last.is_some_and(|at| at.plus(age) <= flow.clock.now()) {
        ask(flow, upstream).await?;
    }
    Ok(())
}

/// Goes through every account once. `None` when another process does; otherwise how many differed.
///
/// # Errors
/// [`FlowError`]: it goes on from the last page.
pub async fn whole(flow: &Flow, upstream: &UpstreamId, owner: &str) -> Result<Option<usize>, FlowError> {
    let name = place_name(upstream);
    let Some(mut lease) = flow.store.lease(&name, owner, LEASE).await? else {
        return Ok(None);
    };
    let began = flow.clock.now();
    let place = flow.store.setting(&name).await?.and_then(|at| at.parse().ok());
    let mut pages = Pages::from(place.unwrap_or(0));
    let (mut seen, mut found) = (0, 0);
    let who = format!("{owner}:reconcile");
    let mut left = 0;
    while let Some(subs) = pages.next(flow, upstream, &who).await? {
        let done = page(flow, upstream, &subs).await?;
        seen += done.looked;
        found += done.differed;
        left += done.left;
        held::if_asked(flow, upstream, owner).await?;
        lease = renew(flow, &name, owner).await?;
        flow.store
            .set_setting(&name, &pages.first.to_string(), Some(&lease))
            .await?;
        tracing::info!(%upstream, accounts = seen, differed = found, "reconciling");
    }
    left += pages.missing.len();
    tell_missing(flow, upstream, &pages.missing).await?;
    found += drift(flow, upstream).await?;
    unseen::tell(flow, upstream, &lease).await?;
    holders::founded(flow, upstream).await?;
    flow.store.set_setting(&name, "", Some(&lease)).await?;
    let stamp = began.millis().to_string();
    flow.store
        .set_setting(&stamp_name(upstream), &stamp, Some(&lease))
        .await?;
    if left > 0 {
        ask_at(flow, upstream, flow.clock.now().plus(RETRY)).await?;
    }
    flow.store.release(&name, owner).await?;
    metrics::counter!("reentry_reconciles_total").increment(1);
    tracing::info!(%upstream, accounts = seen, differed = found, "reconciled");
    Ok(Some(found))
}

async fn renew(flow: &Flow, name: &str, owner: &str) -> Result<Lease, FlowError> {
    let lease = flow.store.lease(name, owner, LEASE).await?;
    lease.ok_or_else(|| StoreError::StaleLease(name.to_owned()).into())
}

/// Says which places could not be listed.
async fn tell_missing(flow: &Flow, upstream: &UpstreamId, missing: &[u32]) -> Result<(), FlowError> {
    let Some(first) = missing.first() else {
        return Ok(());
    };
    let alarm = format!(
        "{} accounts could not be listed and were not compared, the first of them at place {first} in the order of user names; it is tried again",
        missing.len()
    );
    tracing::error!(%upstream, alarm, "accounts could not be listed");
    let now = flow.now(None).latest();
    let id = format!("unlisted:{upstream}:{}", now.millis());
    let entry = Entry::system(id, now, "accounts_unlisted", None);
    write_down(flow, upstream, &entry.alarming().with("alarm", &alarm)).await
}

/// What came of some accounts.
#[derive(Debug, Default)]
struct Done {
    looked: usize,
    differed: usize,
    /// That could not be read, and are not marked yet.
    left: usize,
}

/// Looks at some accounts. One that cannot be read is marked, and costs no other.
async fn page(flow: &Flow, upstream: &UpstreamId, subs: &[String]) -> Result<Done, FlowError> {
    let subjects: Vec<Subject> = subs
        .iter()
        .filter_map(|sub| Subject::new(upstream.clone(), sub))
        .collect();
    let each = subjects
        .iter()
        .cloned()
        .map(|subject| async move { (one(flow, &subject).await, subject) });
    let mut looks = futures_util::stream::iter(each).buffer_unordered(SIDE_BY_SIDE);
    let (mut done, mut failed) = (Done::default(), Vec::new());
    while let Some((differed, subject)) = looks.next().await {
        match differed {
            Ok(differed) => done.differed += usize::from(differed),
            // A partition that is lost is being rebuilt, and asks for another round afterwards.
            Err(FlowError::Store(error)) if error.heals() => {}
            Err(FlowError::Idp(error)) => failed.push(Failed {
                subject,
                error,
                from: flow.now(None).earliest().minus(LOOKS_BACK),
                lost: false,
            }),
            Err(error) => return Err(error),
        }
        done.looked += 1;
        metrics::counter!("reentry_reconciled_accounts_total").increment(1);
    }
    let again = |subject: Subject| async move { one(flow, &subject).await.map(|_| ()) };
    done.left = unreadable::settle(flow, upstream, failed, MARKS, again).await?;
    Ok(done)
}

/// What came of comparing an account.
#[derive(Clone, Copy, Debug, Default)]
struct Compared {
    /// Something differed.
    differed: bool,
    /// It is switched off there, by us.
    off: bool,
}

/// Compares one account. Says whether anything differed.
///
/// # Errors
/// [`FlowError`]; an account that is gone is no error.
pub async fn one(flow: &Flow, subject: &Subject) -> Result<bool, FlowError> {
    Ok(compared(flow, subject).await?.differed)
}

async fn compared(flow: &Flow, subject: &Subject) -> Result<Compared, FlowError> {
    let key = flow.key(subject);
    // First what we know, then what is there: what changes in between is there, and in the log.
    let loaded = flow.store.read(&key, Parts::ACCOUNT).await?;
    if loaded.record.as_ref().is_some_and(|r| r.unreadable.is_some()) {
        // It is tried again by itself.
        return Ok(Compared::default());
    }
    let reading = match flow.reading(subject).await {
        Err(FlowError::Idp(IdpError::UnknownSubject)) => return Ok(Compared::default()),
        other => other?,
    };
    let held_there = reading.carried.as_ref().is_some_and(|c| !c.is_free());
    if loaded.record.is_none() && held_there {
        // Held at the IdP, and nobody knows why: never below that.
        let since = flow.now(None).earliest().minus(reach(&flow.policy.load()));
        rebuild::account(flow, subject, since, rebuild::Marks::Lost).await?;
        return Ok(Compared {
            differed: counted("unknown_hold"),
            off: false,
        });
    }
    let differed = differences(flow, subject, &loaded, &reading).await?;
    let drifted = match &reading.carried {
        Some(carried) => posture(flow, subject, &loaded, carried).await?,
        None => false,
    };
    Ok(Compared {
        differed: differed || drifted,
        off: reading.carried.is_some_and(|carried| carried.disabled),
    })
}

fn counted(kind: &'static str) -> bool {
    metrics::counter!("reentry_reconcile_findings_total", "kind" => kind).increment(1);
    true
}

/// Factors and addresses of the IdP that are not those of the snapshot: the log explains them, or they came in
/// silence.
pub(super) async fn differences(
    flow: &Flow,
    subject: &Subject,
    loaded: &Loaded,
    reading: &Reading,
) -> Result<bool, FlowError> {
    let key = flow.key(subject);
    let Some(before) = &loaded.account else {
        ingest::refresh(flow, &key, &reading.account).await?;
        return Ok(false);
    };
    let mut differed = false;
    let factors = moved(before, reading, flow.now(loaded.store_time).latest());
    if let Some(first) = factors.iter().map(|c| c.at).min() {
        let now = flow.now(None);
        let since = first.minus(told::TELLS);
        let idp = flow.idp(&subject.upstream)?;
        let mut changes = Vec::new();
        for line in idp.story(&subject.sub, since, now).await? {
            if let Heard::Change(change) = &line.heard {
                ingest::line(flow, &subject.upstream, &line, Era::Ours).await?;
                changes.push(change.clone());
            }
        }
        let silent = told::silent(&reading.account, Some(before), &changes);
        let silent: BTreeSet<String> = silent.into_iter().map(told::id).collect();
        let known = flow
            .store
            .read(&key, Parts::ACCOUNT)
            .await?
            .account
            .unwrap_or_default();
        let still = moved(&known, reading, now.latest());
        for change in &factors {
            // The account may have been read with its line a moment too early, when the IdP already told of the change
            // and still showed the credentials of before.
            let dated = !matches!(
                change.kind,
                ChangeKind::FactorRemoved | ChangeKind::RecoveryCodeUsed
            );
            let explained = dated && !silent.contains(&change.id);
            if !explained && still.iter().any(|s| s.id == change.id) {
                ingest::store_change(flow, subject, change, Some(reading), Era::Ours).await?;
                differed |= counted("credential");
            }
        }
    }
    for change in ingest::contacts_lost(flow, before, &reading.account, loaded.store_time) {
        ingest::store_change(flow, subject, &change, Some(reading), Era::Ours).await?;
        differed |= counted("contact");
    }
    ingest::refresh(flow, &key, &reading.account).await?;
    Ok(differed)
}

/// Factors that came, were replaced or went, as the changes that they would be if no log explains them.
fn moved(before: &Account, reading: &Reading, at: Timestamp) -> Vec<Change> {
    let after = &reading.account;
    let now = (crate::domain::time::Now::exact(at), reading.ahead);
    let credential = |f: &&Factor| f.class != FactorClass::FederatedLink && f.gone.is_none();
    let known = |f: &Factor| {
        before
            .factors
            .iter()
            .any(|b| b.id == f.id && b.created == f.created)
    };
    let came = after.factors.iter().filter(credential).filter(|f| !known(f));
    let mut changes: Vec<Change> = came.map(|f| told::by_date(f, now)).collect();
    changes.extend(told::spent(before, after, now));
    let there = |f: &Factor| after.factors.iter().any(|a| a.id == f.id && a.gone.is_none());
    let went = before.factors.iter().filter(credential).filter(|f| !there(f));
    changes.extend(went.map(|f| Change {
        id: format!("{}-{}", f.id, f.created.millis()),
        kind: ChangeKind::FactorRemoved,
        at,
        offset: Span::ZERO,
        ..told::by_date(f, now)
    }));
    changes
}

/// What the IdP carries is not what the record says: it is made to agree again.
async fn posture(
    flow: &Flow,
    subject: &Subject,
    loaded: &Loaded,
    carried: &Carried,
) -> Result<bool, FlowError> {
    let differs = |loaded: &Loaded| {
        let record = loaded.record.as_ref()?;
        let now = flow.now(loaded.store_time);
        (!carried.agrees(&record.posture(now))).then_some((record.clone(), now))
    };
    if differs(loaded).is_none() {
        return Ok(false);
    }
    let key = flow.key(subject);
    flow.store
        .update(&key, Parts::RECORD, None, &|loaded| {
            let (record, now) = differs(loaded)?;
            let id = format!("drift:{}:{}", record.epoch, now.latest().millis());
            let entry = Entry::system(id.clone(), now.latest(), "posture_drift", None)
                .alarming()
                .with(
                    "alarm",
                    "the identity provider no longer carries what the record says",
                )
                .with("wanted", format!("{:?}", record.posture(now)))
                .with("found", format!("{carried:?}"));
            // What is being done this moment looks like that, too: without a word then, but not without an act.
            let settled = tamper::settled(&record, now.earliest());
            Some(Write {
                record: Some(record),
                effects: vec![(format!("converge:{id}"), Effect::Converge)],
                audit: settled.then_some(entry).into_iter().collect(),
                ..Write::default()
            })
        })
        .await?;
    tracing::warn!(upstream = %subject.upstream, ?carried, "an account is not held as it should be: made to agree again");
    Ok(counted("posture"))
}

/// What the IdP's own set-up no longer agrees with.
async fn drift(flow: &Flow, upstream: &UpstreamId) -> Result<usize, FlowError> {
    let faults = flow.idp(upstream)?.drift().await?;
    for fault in &faults {
        counted("defaults");
        tracing::error!(%upstream, fault, "what holds rest on has drifted");
        let now = flow.now(None).latest();
        let entry = Entry::system(format!("drift:{upstream}:{}", now.millis()), now, "drift", None)
            .alarming()
            .with("alarm", fault);
        write_down(flow, upstream, &entry).await?;
    }
    Ok(faults.len())
}

/// The name under which the store keeps what is about the whole installation.
pub(super) fn installation(upstream: &UpstreamId) -> Option<Subject> {
    Subject::new(upstream.clone(), INSTALLATION)
}

/// Writes a line about the whole installation down.
///
/// # Errors
/// [`FlowError::Store`].
pub(super) async fn write_down(flow: &Flow, upstream: &UpstreamId, entry: &Entry) -> Result<(), FlowError> {
    if let Some(subject) = installation(upstream) {
        let said = |_: &Loaded| Some(Write::saying(&subject, entry.clone()));
        let key = flow.key(&subject);
        flow.store.update(&key, Parts::RECORD, None, &said).await?;
    }
    Ok(())
}
