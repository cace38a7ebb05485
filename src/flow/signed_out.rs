//! Keeps until when everybody was signed out at an IdP, for every replica and after a restart (P16).
//!
//! What is kept is one small value for each identity provider, with a MAC: nobody who writes to the store signs anybody out.
//! It is stored before the cursor of the log moves, so that a line that says so is never lost, and every poller reads it in
//! every round, whether it is its turn to read the log or not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::poll::write_down;
use crate::domain::session::signed_out::SignedOut;
use crate::domain::subject::{Subject, UpstreamId};
use crate::flow::session::ending;
use crate::flow::{Flow, FlowError};
use crate::ports::seal::{Purpose, Seal};
use crate::ports::store::{Lease, Loaded, StoreError, Updated};

fn setting(upstream: &UpstreamId) -> String {
    format!("signed_out:{upstream}")
}

fn message(upstream: &UpstreamId, text: &str) -> Vec<u8> {
    format!("signed_out\0{upstream}\0{text}").into_bytes()
}

fn sealed(seal: &dyn Seal, upstream: &UpstreamId, out: SignedOut) -> Option<String> {
    let text = serde_json::to_string(&out).ok()?;
    let mac = seal.mac(Purpose::Installation, &message(upstream, &text));
    Some(format!("{}.{text}", URL_SAFE_NO_PAD.encode(mac)))
}

fn opened(seal: &dyn Seal, upstream: &UpstreamId, value: &str) -> Option<SignedOut> {
    let (mac, text) = value.split_once('.')?;
    let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
    seal.verify(Purpose::Installation, &message(upstream, text), &mac)
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

/// Reads what is kept, and gives all that is known.
///
/// # Errors
/// [`FlowError::Store`].
pub(super) async fn read(flow: &Flow, upstream: &UpstreamId) -> Result<SignedOut, FlowError> {
    let value = flow.store.setting(&setting(upstream)).await?;
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(flow.watch.signed_out(upstream));
    };
    let kept = opened(flow.seal.as_ref(), upstream, &value).unwrap_or_else(|| {
        tracing::error!(%upstream, "what was kept about everybody's being signed out is not ours: it counts for nothing");
        SignedOut::default()
    });
    Ok(flow.watch.sign_out(upstream, kept))
}

/// Takes in what a page of the log says of it.
///
/// # Errors
/// [`FlowError::Store`]: the line has to come again.
pub(super) async fn heard(
    flow: &Flow,
    upstream: &UpstreamId,
    out: SignedOut,
    lease: &Lease,
) -> Result<(), FlowError> {
    let known = read(flow, upstream).await?;
    let after = known.and(out);
    if after == known {
        return Ok(());
    }
    if let Some(value) = sealed(flow.seal.as_ref(), upstream, after) {
        flow.store
            .set_setting(&setting(upstream), &value, Some(lease))
            .await?;
    }
    flow.watch.sign_out(upstream, after);
    tracing::warn!(%upstream, "everybody was signed out at the identity provider: no session of before goes on here");
    write_down(flow, upstream, "everybody_signed_out", "at the identity provider").await;
    Ok(())
}

/// What everybody's being signed out at the IdP has ended of this account, ended here for good, and told.
///
/// # Errors
/// [`StoreError`]: nothing has been told; it ended all the same.
pub(super) async fn sign_out(flow: &Flow, subject: &Subject) -> Result<Updated, StoreError> {
    let out = signed_out(flow, subject);
    ending(flow, subject, "everybody signed out", &|grants, now| {
        grants.sign_out(&out, now)
    })
    .await
}

/// Until when everybody was signed out at the IdP of this subject.
pub(super) fn signed_out(flow: &Flow, subject: &Subject) -> SignedOut {
    flow.watch.signed_out(&subject.upstream)
}

/// The account whose sessions here have ended so, while they do not say so yet.
pub(super) fn left_over(flow: &Flow, loaded: &Loaded) -> Option<Subject> {
    let sessions = loaded.grants.as_ref().map(|grants| &grants.sessions);
    let mut open = sessions.into_iter().flatten().filter(|s| s.ended.is_none());
    let over = open.find(|s| signed_out(flow, &s.subject).ends(s))?;
    Some(over.subject.clone())
}
