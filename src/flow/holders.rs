//! Keeps since when somebody holds a role that may end a freeze, and tells of everybody who newly gets one (P11, P14).
//!
//! Every reading of an account passes here: a log-in, the poller, the import, reconcile, and the approval itself. What is
//! kept is one small value for each identity provider, with a MAC: whoever writes to the store can take it away, and then
//! everybody begins anew, but can make nobody older. It is written only after the others were told, so that a telling
//! that failed is tried again with the next reading.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::audit::Entry;
use crate::domain::hold::{Effect, Record};
use crate::domain::holders::{Holders, Sighting, Weight};
use crate::domain::notice::{self, Content, Message};
use crate::domain::subject::account::Facts;
use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::{Now, Span};
use crate::flow::{Flow, FlowError};
use crate::ports::seal::{Purpose, Seal};
use crate::ports::store::{Loaded, Parts, Store, StoreError, Write};

/// Whose turn it is in this process to change what is kept. Another process may still come between: then somebody is
/// seen anew by the next reading, and waits.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn setting(upstream: &UpstreamId) -> String {
    format!("holders:{upstream}")
}

fn message(upstream: &UpstreamId, text: &str) -> Vec<u8> {
    format!("holders\0{upstream}\0{text}").into_bytes()
}

fn sealed(seal: &dyn Seal, upstream: &UpstreamId, holders: &Holders) -> Option<String> {
    let text = serde_json::to_string(holders).ok()?;
    let mac = seal.mac(Purpose::Installation, &message(upstream, &text));
    Some(format!("{}.{text}", URL_SAFE_NO_PAD.encode(mac)))
}

fn opened(seal: &dyn Seal, upstream: &UpstreamId, value: &str) -> Option<Holders> {
    let (mac, text) = value.split_once('.')?;
    let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
    seal.verify(Purpose::Installation, &message(upstream, text), &mac)
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

/// Whoever is known to hold such a role. What is missing, or is not ours, is nobody: everybody waits then.
///
/// # Errors
/// [`StoreError`].
pub async fn known(store: &dyn Store, seal: &dyn Seal, upstream: &UpstreamId) -> Result<Holders, StoreError> {
    Ok(stored(store, seal, upstream).await?.unwrap_or_default())
}

async fn stored(
    store: &dyn Store,
    seal: &dyn Seal,
    upstream: &UpstreamId,
) -> Result<Option<Holders>, StoreError> {
    let value = store.setting(&setting(upstream)).await?;
    let Some(value) = value.filter(|v| !v.is_empty()) else {
        return Ok(None);
    };
    let holders = opened(seal, upstream, &value);
    if holders.is_none() {
        tracing::error!(%upstream, "what was kept about administrators is not ours");
    }
    Ok(holders)
}

/// The same for a process that runs: what it knew before the store lost it is known still.
async fn here(flow: &Flow, upstream: &UpstreamId) -> Result<Holders, StoreError> {
    let stored = stored(flow.store.as_ref(), flow.seal.as_ref(), upstream).await?;
    Ok(flow.watch.holders(upstream, stored))
}

/// Begins an installation, or one more identity provider of it: those who hold such a role when their accounts are
/// imported for the first time count at once. Where something is kept already, nothing changes.
///
/// # Errors
/// [`StoreError`].
pub async fn found(store: &dyn Store, seal: &dyn Seal, upstream: &UpstreamId) -> Result<(), StoreError> {
    let name = setting(upstream);
    if store.setting(&name).await?.is_some_and(|v| !v.is_empty()) {
        return Ok(());
    }
    match sealed(seal, upstream, &Holders::founding()) {
        Some(value) => store.set_setting(&name, &value, None).await,
        None => Ok(()),
    }
}

/// Every account has been looked at once: from here on a new holder waits. What is kept gets the MAC of today's key, so
/// that it outlives the one it was made with.
///
/// # Errors
/// [`FlowError::Store`].
pub async fn founded(flow: &Flow, upstream: &UpstreamId) -> Result<(), FlowError> {
    let holders = here(flow, upstream).await?;
    keep(flow, upstream, &holders.founded().unwrap_or(holders)).await
}

async fn keep(flow: &Flow, upstream: &UpstreamId, holders: &Holders) -> Result<(), FlowError> {
    if let Some(value) = sealed(flow.seal.as_ref(), upstream, holders) {
        flow.store.set_setting(&setting(upstream), &value, None).await?;
    }
    Ok(())
}

/// The roles of an account that count.
#[must_use]
pub fn counting(flow: &Flow, facts: Option<&Facts>) -> BTreeSet<String> {
    let policy = flow.policy.load();
    let roles = facts.map(|f| &f.roles).into_iter().flatten();
    roles
        .filter(|r| policy.admin_roles.contains(*r))
        .cloned()
        .collect()
}

/// A reading of an account: who got such a role is told to the others, and kept.
///
/// # Errors
/// [`FlowError::Store`]: nothing is kept, and the next reading does it.
pub async fn looked(flow: &Flow, subject: &Subject, facts: &Facts) -> Result<(), FlowError> {
    let held = counting(flow, Some(facts));
    let at = flow.clock.now();
    let holders = here(flow, &subject.upstream).await?;
    if holders.seen(&subject.sub, &held, at).is_none() {
        return Ok(());
    }
    // What is kept is one value: of two accounts that are read side by side neither may be forgotten for the other.
    let _turn = TURN.lock().await;
    let holders = here(flow, &subject.upstream).await?;
    let Some(sighting) = holders.seen(&subject.sub, &held, at) else {
        return Ok(());
    };
    written_down(flow, subject, &sighting).await?;
    if !sighting.gained.is_empty() {
        tracing::warn!(upstream = %subject.upstream, roles = sighting.gained.join(" "), "an account got a role that may end freezes");
        for other in holders.others(&subject.sub) {
            told(flow, subject, other).await?;
        }
    }
    keep(flow, &subject.upstream, &sighting.holders).await
}

fn case(flow: &Flow, subject: &Subject) -> String {
    flow.case_of(subject, "administrator")
}

async fn written_down(flow: &Flow, subject: &Subject, sighting: &Sighting) -> Result<(), FlowError> {
    let at = flow.clock.now();
    let case = case(flow, subject);
    let line = |action: &str, roles: &[String]| {
        let id = format!("{action}:{}:{}", at.millis(), flow.random::<6>());
        Entry::system(id, at, action, Some(&case)).with("what", roles.join(" "))
    };
    let mut lines = Vec::new();
    if !sighting.gained.is_empty() {
        lines.push(line("administrator_added", &sighting.gained).alarming());
    }
    if !sighting.lost.is_empty() {
        lines.push(line("administrator_removed", &sighting.lost));
    }
    for line in lines {
        let said = |_: &Loaded| Some(Write::saying(subject, line.clone()));
        flow.store
            .update(&flow.key(subject), Parts::RECORD, None, &said)
            .await?;
    }
    Ok(())
}

/// Tells another holder on every channel of theirs.
async fn told(flow: &Flow, subject: &Subject, other: &str) -> Result<(), FlowError> {
    let Some(other) = Subject::new(subject.upstream.clone(), other) else {
        return Ok(());
    };
    let policy = flow.policy.load_full();
    let case = case(flow, subject);
    let plan = |loaded: &Loaded| {
        let now: Now = flow.now(loaded.store_time);
        let account = loaded.account.as_ref()?;
        let record = loaded
            .record
            .clone()
            .unwrap_or_else(|| Record::new(other.clone()));
        let content = Content {
            message: Message::AdministratorAdded,
            change: None,
            at: now.latest(),
            origin: None,
            allowed: None,
            until: None,
            locale: None,
            name: String::new(),
            count: None,
            frozen: false,
            ended: None,
            at_end: None,
        };
        let notices = notice::plan(&record, account, &case, now.latest(), &content, &policy);
        let effects = notices.into_iter().filter(|n| n.before).map(|mut notice| {
            notice.link = false;
            let id = format!(
                "{case}:administrator:{}:{}",
                now.latest().secs(),
                notice.channel.0
            );
            (id, Effect::Notice(Box::new(notice)))
        });
        Some(Write {
            subject: Some(other.clone()),
            effects: effects.collect(),
            ..Write::default()
        })
    };
    flow.store
        .update(&flow.key(&other), Parts::ACCOUNT, None, &plan)
        .await?;
    Ok(())
}

/// What the word of `subject` weighs now, who holds `held` by a live reading that was [`looked`] at. `probation` is the
/// one that the case began with; today's counts where it is longer.
///
/// # Errors
/// [`FlowError::Store`].
pub async fn weight(
    flow: &Flow,
    subject: &Subject,
    held: &BTreeSet<String>,
    probation: Span,
    now: Now,
) -> Result<Weight, FlowError> {
    let holders = here(flow, &subject.upstream).await?;
    let probation = probation.max(flow.policy.load().probation);
    Ok(holders.weight(&subject.sub, held, probation, now))
}
