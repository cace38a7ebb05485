//! The ID token of an IdP: checked, then read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::{CoreClient, CoreIdToken, CoreJwsSigningAlgorithm};
use openidconnect::{
    AccessToken, AccessTokenHash, ClaimsVerificationError, ClientId, Nonce, SignatureVerificationError,
};
use serde_json::{Map, Value};

use super::{Answer, Metadata, UpstreamFault, describe, secret};
use crate::domain::time::Timestamp;
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

/// Reads a token that has been verified.
pub(super) fn answer(token: &str) -> Result<Answer, UpstreamFault> {
    let shape = || UpstreamFault::Invalid("its ID token has claims of the wrong kind".to_owned());
    let payload = token.split('.').nth(1).ok_or_else(shape)?;
    let octets = URL_SAFE_NO_PAD.decode(payload).map_err(|_| shape())?;
    let claims: Map<String, Value> = serde_json::from_slice(&octets).map_err(|_| shape())?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
    let amr = claims.get("amr").and_then(Value::as_array).into_iter().flatten();
    Ok(Answer {
        sub: text("sub").ok_or_else(shape)?,
        sid: text("sid").or_else(|| text("session_state")),
        auth_time: claims
            .get("auth_time")
            .and_then(Value::as_i64)
            .map(Timestamp::from_secs),
        acr: text("acr"),
        amr: amr.filter_map(Value::as_str).map(str::to_owned).collect(),
        claims,
        id_token: token.to_owned(),
    })
}
