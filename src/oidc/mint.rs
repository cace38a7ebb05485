//! Our tokens: access tokens after RFC 9068, ID tokens after OIDC Core §2, both with the claims of the contract.
//!
//! A token that our own endpoints would refuse for its size is never made: an account in hundreds of groups gets one
//! without groups, then without roles, then without the IdP's claims. Fewer rights are the safe side, and the log says
//! what was left out.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::domain::entitlement::Entitlement;
use crate::domain::session::{Family, Session};
use crate::domain::time::{Span, Timestamp};
use crate::oidc::settings::{ADMIN_SCOPE, BrokerSettings, Client};
use crate::oidc::{Broker, claims, digest, verify};
use crate::ports::signer::SignerError;

/// What tokens are made of.
#[derive(Clone, Copy, Debug)]
pub struct Minting<'a> {
    /// For whom.
    pub client: &'a Client,
    /// `sub`.
    pub sub: &'a str,
    /// The session.
    pub session: &'a Session,
    /// The family.
    pub family: &'a Family,
    /// What they may say.
    pub entitlement: &'a Entitlement,
    /// `jti` of the access token: the family's id, a dot, and what is random.
    pub jti: &'a str,
    /// Names of upstream claims that the policy lets through today.
    pub allowed: &'a BTreeSet<String>,
    /// Lifetime of the ID token.
    pub id_life: Span,
    /// `nonce`, in the first ID token only (OIDC Core §12.2).
    pub nonce: Option<&'a str>,
    /// When.
    pub at: Timestamp,
}

/// Tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minted {
    /// The access token.
    pub access: String,
    /// Its lifetime in seconds.
    pub expires_in: i64,
    /// The ID token, with `openid`.
    pub id: Option<String>,
}

/// Signs the tokens.
///
/// # Errors
/// [`SignerError`]: nothing is given then; a refresh can be tried again within the grace.
pub async fn mint(broker: &Broker, m: Minting<'_>) -> Result<Minted, SignerError> {
    let signer = broker.signer();
    let life = m
        .entitlement
        .max_lifetime
        .min(m.family.expires.since(m.at))
        .max(Span::ZERO);
    let payload = fitted(access_claims(&broker.settings, m, life), "access token", m);
    let access = signer
        .sign(
            m.client.access_token_alg,
            verify::ACCESS_TOKEN,
            payload.as_bytes(),
        )
        .await?;
    let id = if m.entitlement.scopes.contains("openid") {
        let payload = fitted(id_claims(&broker.settings, m, &access), "ID token", m);
        Some(
            signer
                .sign(m.client.id_token_alg, verify::ID_TOKEN, payload.as_bytes())
                .await?,
        )
    } else {
        None
    };
    Ok(Minted {
        access,
        expires_in: life.secs(),
        id,
    })
}

/// Octets of a token beside its claims: the header, the dots, and an RSA signature of 4096 bits.
const AROUND: usize = 1024;
/// The most octets of claims that make a token of at most [`verify::MAX_TOKEN`].
const MOST: usize = (verify::MAX_TOKEN - AROUND) / 4 * 3;

/// The text of a token's claims, without as many of them as make it too large for our own endpoints.
fn fitted(mut claims: Map<String, Value>, what: &str, m: Minting<'_>) -> String {
    let text = Value::Object(claims.clone()).to_string();
    if text.len() <= MOST {
        return text;
    }
    let (octets, mut left_out) = (text.len(), Vec::new());
    let passed = m.allowed.iter().map(String::as_str);
    let mut fitting = text;
    for name in ["groups", "roles"].into_iter().chain(passed) {
        if claims.remove(name).is_none() {
            continue;
        }
        left_out.push(name);
        fitting = Value::Object(claims.clone()).to_string();
        if fitting.len() <= MOST {
            break;
        }
    }
    tracing::warn!(
        client = m.client.id,
        token = m.jti,
        octets,
        most = MOST,
        left_out = left_out.join(" "),
        "the {what} was too large for any endpoint and goes out with less; put the account into fewer groups, or pass fewer claims"
    );
    fitting
}

fn access_claims(settings: &BrokerSettings, m: Minting<'_>, life: Span) -> Map<String, Value> {
    let mut out = claims::passed(
        m.session,
        m.allowed,
        &m.entitlement.scopes,
        m.entitlement.contact_hold,
    );
    let api = settings.url("/api");
    let audience = if m.entitlement.scopes.contains(ADMIN_SCOPE) {
        api.as_str()
    } else {
        m.client.audience()
    };
    let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
    put("iss", json!(settings.issuer));
    put("sub", json!(m.sub));
    put("aud", json!(audience));
    put("client_id", json!(m.client.id));
    put("iat", json!(m.at.secs()));
    put("exp", json!(m.at.plus(life).secs()));
    put("jti", json!(m.jti));
    put("sid", json!(m.session.id));
    put("scope", json!(claims::words(&m.entitlement.scopes)));
    claims::rights(&mut out, m.entitlement);
    out.extend(claims::authentication(m.session, false));
    out.extend(claims::recovery(m.entitlement, settings.alias.as_deref()));
    out
}

fn id_claims(settings: &BrokerSettings, m: Minting<'_>, access: &str) -> Map<String, Value> {
    let mut out = claims::passed(
        m.session,
        m.allowed,
        &m.entitlement.scopes,
        m.entitlement.contact_hold,
    );
    let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
    put("iss", json!(settings.issuer));
    put("sub", json!(m.sub));
    put("aud", json!(m.client.id));
    put("iat", json!(m.at.secs()));
    put("exp", json!(m.at.plus(m.id_life).secs()));
    put("sid", json!(m.session.id));
    put("at_hash", json!(digest::half_hash(access, m.client.id_token_alg)));
    if let Some(nonce) = m.nonce {
        put("nonce", json!(nonce));
    }
    claims::rights(&mut out, m.entitlement);
    out.extend(claims::authentication(m.session, true));
    out.extend(claims::recovery(m.entitlement, settings.alias.as_deref()));
    out
}

#[cfg(test)]
mod tests;
