//! The policy that is in force: a looser one waits and is told (P14).
//!
//! What was in force last is kept in the store, with a MAC, so that a restart and the other replicas know it. A store in
//! which nothing is kept, or which forgot, is a new installation: today's policy is in force at once, and what was loose
//! in it is as loose as the operator wrote it. Running holds and freezes carry their own clocks and are not touched by it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::audit::Entry;
use crate::domain::policy::Policy;
use crate::domain::policy::inforce::{InForce, Settled};
use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::{Now, Timestamp};
use crate::ports::seal::{Purpose, Seal};
use crate::ports::store::{Loaded, Parts, Store, StoreError, Write};

/// Where it is kept.
const SETTING: &str = "policy_in_force";
/// The name under which a policy's own audit lines stand; no account of an identity provider is called so.
const POLICY: &str = "(policy)";

fn message(text: &str) -> Vec<u8> {
    format!("policy\0{text}").into_bytes()
}

fn sealed(seal: &dyn Seal, kept: &InForce) -> Option<String> {
    let text = serde_json::to_string(kept).ok()?;
    let mac = seal.mac(Purpose::Installation, &message(&text));
    Some(format!("{}.{text}", URL_SAFE_NO_PAD.encode(mac)))
}

fn opened(seal: &dyn Seal, value: &str) -> Option<InForce> {
    let (mac, text) = value.split_once('.')?;
    let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
    seal.verify(Purpose::Installation, &message(text), &mac)
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

/// Works out which policy holds now, keeps that, and tells what got looser. `upstream` is the one under which the audit
/// lines stand; `own` the time by our clock.
///
/// # Errors
/// [`StoreError`]: nothing is kept and nothing told; whoever asks tries again.
pub async fn settle(
    store: &dyn Store,
    seal: &dyn Seal,
    upstream: &UpstreamId,
    today: &Policy,
    own: Timestamp,
) -> Result<Settled, StoreError> {
    let value = store.setting(SETTING).await?;
    let before = value.filter(|v| !v.is_empty()).and_then(|v| opened(seal, &v));
    let subject = Subject::new(upstream.clone(), POLICY);
    let time = match &subject {
        Some(subject) => {
            store
                .read(&seal.subject(subject), Parts::RECORD)
                .await?
                .store_time
        }
        None => None,
    };
    let now = time.map_or(Now::exact(own), |store| Now::between(own, store));
    let settled = InForce::settle(before.as_ref(), today, now);
    if let Some(subject) = subject.filter(|_| !settled.loosened.is_empty()) {
        told(store, seal, &subject, today, &settled, now).await?;
    }
    if let Some(value) = settled.keep.as_ref().and_then(|keep| sealed(seal, keep)) {
        store.set_setting(SETTING, &value, None).await?;
    }
    Ok(settled)
}

async fn told(
    store: &dyn Store,
    seal: &dyn Seal,
    subject: &Subject,
    today: &Policy,
    settled: &Settled,
    now: Now,
) -> Result<(), StoreError> {
    let what = settled.loosened.join("; ");
    let from = settled.until.unwrap_or_else(|| now.latest());
    let id = format!("policy_loosened:{}:{}", today.digest, now.latest().millis());
    let entry = Entry::system(id, now.latest(), "policy_loosened", None)
        .alarming()
        .with("what", &what)
        .with("policy", &today.digest)
        .with("from", from.secs());
    let said = |_: &Loaded| Some(Write::saying(subject, entry.clone()));
    store
        .update(&seal.subject(subject), Parts::RECORD, None, &said)
        .await?;
    tracing::warn!(
        what,
        policy = today.digest,
        from = crate::domain::wording::Wording::machine(from),
        "the policy became looser; until then the stricter of the former and this one is in force"
    );
    Ok(())
}
