//! Once a day, and after a rebuild: what the IdP has is compared with what we know, account by account (domain
//! "Roll-out", row "reconcile"). Keycloak emits nothing for some changes, and a log can be purged while nobody reads
//! it; the dates of credentials and the addresses themselves still tell.
//!
//! One process at a time, gently, page by page. Where it stands is written down, so that another one goes on from
//! there.

pub mod held;
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
use crate::flow::{Flow, FlowError, rebuild, tamper, told};
use crate::ports::idp::{Heard, IdpError, Reading};
use crate::ports::store::{Lease, Loaded, Parts, StoreError, Write};
use crate::ports::trace;

/// Between two looks at whether it is time.
const LOOK: Duration = Duration::from_secs(1);
/// After a round that failed.
const AGAIN: Duration = Duration::from_secs(10);
/// How long one process keeps it to itself without a word.
const LEASE: Span = Span::from_secs(60);
/// Accounts asked for at once.
const PAGE: u32 = 100;
/// Accounts of the page before that are asked for again: when somebody is deleted meanwhile the rest moves up.
const OVERLAP: u32 = 10;
/// Accounts that are looked at side by side.
const SIDE_BY_SIDE: usize = 2;
/// The account under which lines about the whole installation are written down.
const INSTALLATION: &str = "reentry";

/// Every account of an IdP, page by page, nobody left out who is there all the while.
#[derive(Debug, Default)]
pub(super) struct Pages {
    first: u32,
    before: BTreeSet<String>,
    end: bool,
}

impl Pages {
    /// From the place where somebody else stopped.
    fn from(first: u32) -> Self {
        Self {
            first,
            ..Self::default()
        }
    }

    /// The next accounts; `None` at the end.
    pub(super) async fn next(
        &mut self,
        flow: &Flow,
        upstream: &UpstreamId,
    ) -> Result<Option<Vec<String>>, FlowError> {
        if self.end {
            return Ok(None);
        }
        let page = flow.idp(upstream)?.accounts(self.first, PAGE).await?;
        let size = u32::try_from(page.len()).unwrap_or(PAGE);
        self.end = size < PAGE;
        self.first += size.saturating_sub(OVERLAP).max(1);
        let fresh = page.iter().filter(|sub| !self.before.contains(*sub));
        let fresh: Vec<String> = fresh.cloned().collect();
        self.before = page.into_iter().collect();
        Ok(Some(fresh))
    }
}

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
                Ok(true) => trace::scope(flow.trace(), whole(flow, upstream, owner))
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

async fn due(flow: &Flow, upstream: &UpstreamId, interval: Duration) -> Result<bool, FlowError> {
    let stamp = flow.store.setting(&stamp_name(upstream)).await?;
    let last = stamp.and_then(|s| s.parse().ok()).map(Timestamp::from_millis);
    let interval = Span::from_millis(i64::try_from(interval.as_millis()).unwrap_or(i64::MAX));
    Ok(last.is_none_or(|at| at.plus(interval) <= flow.clock.now()))
}

/// Asks for a round at the next look.
///
/// # Errors
/// [`FlowError::Store`].
pub async fn ask(flow: &Flow, upstream: &UpstreamId) -> Result<(), FlowError> {
    flow.store.set_setting(&stamp_name(upstream), "0", None).await?;
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
    while let Some(subs) = pages.next(flow, upstream).await? {
        let (looked, differed) = page(flow, upstream, &subs).await?;
        seen += looked;
        found += differed;
        held::if_asked(flow, upstream, owner).await?;
        lease = renew(flow, &name, owner).await?;
        flow.store
            .set_setting(&name, &pages.first.to_string(), Some(&lease))
            .await?;
        tracing::info!(%upstream, accounts = seen, differed = found, "reconciling");
    }
    found += drift(flow, upstream).await?;
    unseen::tell(flow, upstream, &lease).await?;
    flow.store.set_setting(&name, "", Some(&lease)).await?;
    let stamp = began.millis().to_string();
    flow.store
        .set_setting(&stamp_name(upstream), &stamp, Some(&lease))
        .await?;
    flow.store.release(&name, owner).await?;
    metrics::counter!("reentry_reconciles_total").increment(1);
    tracing::info!(%upstream, accounts = seen, differed = found, "reconciled");
    Ok(Some(found))
}

async fn renew(flow: &Flow, name: &str, owner: &str) -> Result<Lease, FlowError> {
    let lease = flow.store.lease(name, owner, LEASE).await?;
    lease.ok_or_else(|| StoreError::StaleLease(name.to_owned()).into())
}

/// Looks at some accounts. Gives how many were there and how many differed.
async fn page(flow: &Flow, upstream: &UpstreamId, subs: &[String]) -> Result<(usize, usize), FlowError> {
    let subjects: Vec<Subject> = subs
        .iter()
        .filter_map(|sub| Subject::new(upstream.clone(), sub))
        .collect();
    let each = subjects
        .iter()
        .cloned()
        .map(|subject| async move { one(flow, &subject).await });
    let mut done = futures_util::stream::iter(each).buffer_unordered(SIDE_BY_SIDE);
    let (mut seen, mut found) = (0, 0);
    while let Some(differed) = done.next().await {
        match differed {
            Ok(differed) => found += usize::from(differed),
            // A partition that is lost is being rebuilt, and asks for another round afterwards.
            Err(FlowError::Store(StoreError::Lost { .. })) => {}
            Err(error) => return Err(error),
        }
        seen += 1;
        metrics::counter!("reentry_reconciled_accounts_total").increment(1);
    }
    Ok((seen, found))
}

/// Compares one account. Says whether anything differed.
///
/// # Errors
/// [`FlowError`]; an account that is gone is no error.
pub async fn one(flow: &Flow, subject: &Subject) -> Result<bool, FlowError> {
    let key = flow.key(subject);
    // First what we know, then what is there: what changes in between is there, and in the log.
    let loaded = flow.store.read(&key, Parts::ACCOUNT).await?;
    let reading = match flow.reading(subject).await {
        Err(FlowError::Idp(IdpError::UnknownSubject)) => return Ok(false),
        other => other?,
    };
    let held_there = reading.carried.as_ref().is_some_and(|c| !c.is_free());
    if loaded.record.is_none() && held_there {
        // Held at the IdP, and nobody knows why: never below that.
        let since = flow.now(None).earliest().minus(reach(&flow.policy.load()));
        rebuild::account(flow, subject, since).await?;
        return Ok(counted("unknown_hold"));
    }
    let differed = differences(flow, subject, &loaded, &reading).await?;
    let drifted = match &reading.carried {
        Some(carried) => posture(flow, subject, &loaded, carried).await?,
        None => false,
    };
    Ok(differed || drifted)
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
            let explained = change.kind != ChangeKind::FactorRemoved && !silent.contains(&change.id);
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

/// Writes a line about the whole installation down.
///
/// # Errors
/// [`FlowError::Store`].
pub(super) async fn write_down(flow: &Flow, upstream: &UpstreamId, entry: &Entry) -> Result<(), FlowError> {
    if let Some(subject) = Subject::new(upstream.clone(), INSTALLATION) {
        let said = |_: &Loaded| Some(Write::saying(&subject, entry.clone()));
        let key = flow.key(&subject);
        flow.store.update(&key, Parts::RECORD, None, &said).await?;
    }
    Ok(())
}
