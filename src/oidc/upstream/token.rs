//! The ID token of an IdP: checked, then read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::{CoreClient, CoreIdToken, CoreJwsSigningAlgorithm};
use openidconnect::{
    AccessToken, AccessTokenHash, ClaimsVerificationError, ClientId, Nonce, SignatureVerificationError,
};
use serde_json::{Map, Value};

use super::{Answer, Metadata, UpstreamFault, describe, secret};
use crate::domain::time::{Span, Timestamp};
use crate::oidc::settings::Upstream;

/// What is wrong with an ID token.
#[derive(Debug, thiserror::Error)]
pub(super) enum Verdict {
    #[error("its ID token is signed with a key it does not publish")]
    UnknownKey,
    #[error("its ID token does not verify: {0}")]
    Wrong(String),
}

/// Checks signature, issuer, audience, nonce, expiry, and `at_hash` where there is one.
pub(super) fn verify(
    upstream: &Upstream,
    metadata: &Metadata,
    token: &CoreIdToken,
    access: &AccessToken,
    nonce: &Nonce,
    now: Timestamp,
) -> Result<(), Verdict> {
    let client = CoreClient::from_provider_metadata(
        metadata.clone(),
        ClientId::new(upstream.client_id.clone()),
        secret(upstream),
    );
    // Asymmetric ones only: a shared secret proves nothing about who signed.
    let verifier = client
        .id_token_verifier()
        .set_allowed_algs([
            CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
            CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
            CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
            CoreJwsSigningAlgorithm::RsaSsaPssSha256,
            CoreJwsSigningAlgorithm::RsaSsaPssSha384,
            CoreJwsSigningAlgorithm::RsaSsaPssSha512,
            CoreJwsSigningAlgorithm::EcdsaP256Sha256,
            CoreJwsSigningAlgorithm::EcdsaP384Sha384,
            CoreJwsSigningAlgorithm::EdDsa,
        ])
        .set_time_fn(move || chrono::DateTime::from_timestamp_millis(now.millis()).unwrap_or_default());
    let wrong = |e: &dyn std::error::Error| Verdict::Wrong(describe(e));
    let claims = token.claims(&verifier, nonce).map_err(|e| match e {
        ClaimsVerificationError::SignatureVerification(
            SignatureVerificationError::NoMatchingKey | SignatureVerificationError::CryptoError(_),
        ) => Verdict::UnknownKey,
        other => wrong(&other),
    })?;
    if let Some(expected) = claims.access_token_hash() {
        let algorithm = token.signing_alg().map_err(|e| wrong(&e))?;
        let key = token.signing_key(&verifier).map_err(|e| wrong(&e))?;
        let actual = AccessTokenHash::from_token(access, algorithm, key).map_err(|e| wrong(&e))?;
        if actual != *expected {
            return Err(Verdict::Wrong(
                "at_hash is that of another access token".to_owned(),
            ));
        }
    }
    Ok(())
}

/// An IdP's clock that is ahead by less is as good as ours: its tokens have whole seconds.
const NOISE: Span = Span::from_secs(5);

/// When a log-in was, by our clock. Both instants of a token are by the IdP's clock, and it was issued just now, so an
/// `iat` to come tells how far that clock is ahead. Without this a log-in would look as much younger than a change, the
/// end of a hold or a `max_age` (P6, ISS-6, ISS-7). A clock that is behind makes it older, which asks for more.
fn by_our_clock(auth_time: Timestamp, iat: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let ahead = iat.map_or(Span::ZERO, |iat| iat.since(now));
    let ours = if ahead > NOISE {
        auth_time.minus(ahead)
    } else {
        auth_time
    };
    ours.min(now)
}

/// Reads a token that has been verified, at `now`.
pub(super) fn answer(token: &str, now: Timestamp) -> Result<Answer, UpstreamFault> {
    let shape = || UpstreamFault::Invalid("its ID token has claims of the wrong kind".to_owned());
    let payload = token.split('.').nth(1).ok_or_else(shape)?;
    let octets = URL_SAFE_NO_PAD.decode(payload).map_err(|_| shape())?;
    let claims: Map<String, Value> = serde_json::from_slice(&octets).map_err(|_| shape())?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
    let instant = |name: &str| {
        let seconds = claims.get(name).and_then(Value::as_i64);
        seconds.map(Timestamp::from_secs)
    };
    let amr = claims.get("amr").and_then(Value::as_array).into_iter().flatten();
    Ok(Answer {
        sub: text("sub").ok_or_else(shape)?,
        sid: text("sid").or_else(|| text("session_state")),
        auth_time: instant("auth_time").map(|at| by_our_clock(at, instant("iat"), now)),
        acr: text("acr"),
        amr: amr.filter_map(Value::as_str).map(str::to_owned).collect(),
        claims,
        id_token: token.to_owned(),
    })
}
