//! Tokens that the realm signs and a hook brings.
//!
//! The key says the algorithm, never the token (RFC 8725 §3.1), and symmetric ones are none. An unknown `kid` makes us
//! read the realm's keys again, but not more often than every few seconds, whatever is sent. While the realm does not
//! answer, the keys that are known stay in use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::domain::json;
use crate::domain::time::{Span, Timestamp};
use crate::idp::keycloak::Keycloak;
use crate::ports::hook::HookRefusal;

/// Longest token that is looked at, in octets.
const MAX_TOKEN: usize = 16 * 1024;
/// How long keys are believed without asking again.
const FRESH: Duration = Duration::from_hours(1);
/// Between two readings of the keys.
const PAUSE: Duration = Duration::from_secs(5);
/// How far the realm's clock may be from ours.
const SKEW: Span = Span::from_mins(1);
/// Algorithms whose signature says who signed.
const ASYMMETRIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The realm's keys as last read.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    known: Option<(Instant, Arc<Vec<Jwk>>)>,
    tried: Option<Instant>,
}

impl Keys {
    async fn find(&self, keycloak: &Keycloak, kid: &str) -> Result<Option<Jwk>, HookRefusal> {
        let (found, known) = {
            let mut memory = self.0.lock().await;
            let known = memory
                .known
                .as_ref()
                .map(|(read, keys)| (*read, Arc::clone(keys)));
            let found = known.as_ref().and_then(|(_, keys)| named(keys, kid));
            let fresh = known.as_ref().is_some_and(|(read, _)| read.elapsed() < FRESH);
            let paused = memory.tried.is_some_and(|tried| tried.elapsed() < PAUSE);
            if (found.is_some() && fresh) || (paused && known.is_some()) {
                return Ok(found);
            }
            if paused {
                return Err(away());
            }
            memory.tried = Some(Instant::now());
            (found, known)
        };
        // Read without the lock: nobody queues behind a realm that hangs.
        match keycloak.admin.realm_keys().await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                let found = named(&keys, kid);
                self.0.lock().await.known = Some((Instant::now(), keys));
                Ok(found)
            }
            Err(error) => {
                tracing::warn!(%error, "the realm's keys could not be read");
                if known.is_some() { Ok(found) } else { Err(away()) }
            }
        }
    }
}

fn away() -> HookRefusal {
    HookRefusal::Unavailable("the realm's keys cannot be had now".to_owned())
}

fn named(keys: &[Jwk], kid: &str) -> Option<Jwk> {
    keys.iter()
        .find(|key| key.common.key_id.as_deref() == Some(kid))
        .cloned()
}

/// A token that the realm signed for us.
#[derive(Debug)]
pub(super) struct Token {
    /// `typ` of its header, if it has one.
    pub(super) typ: Option<String>,
    /// Its claims.
    pub(super) claims: Map<String, Value>,
}

impl Token {
    /// A claim that is a string.
    pub(super) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    /// A claim that is an instant.
    pub(super) fn instant(&self, claim: &str) -> Option<Timestamp> {
        self.claims
            .get(claim)
            .and_then(Value::as_i64)
            .map(Timestamp::from_secs)
    }

    /// Whether `exp` is there and has not passed.
    ///
    /// # Errors
    /// [`HookRefusal::Unproven`].
    pub(super) fn unexpired(&self, now: Timestamp) -> Result<(), HookRefusal> {
        match self.instant("exp") {
            Some(exp) if now < exp.plus(SKEW) => Ok(()),
            _ => Err(unproven("the token has expired, or has no `exp`")),
        }
    }
}

fn unproven(why: &str) -> HookRefusal {
    HookRefusal::Unproven(why.to_owned())
}

fn malformed(why: impl Into<String>) -> HookRefusal {
    HookRefusal::Malformed(why.into())
}

fn part(encoded: &str) -> Result<Map<String, Value>, HookRefusal> {
    let octets = URL_SAFE_NO_PAD
        .decode(encoded)
        .map_err(|_| malformed("the token is not base64url"))?;
    json::object(&octets).map_err(|why| malformed(format!("the token: {why}")))
}

/// Checks signature, `iss`, `aud` and `iat` of a token at `now`. What else it has to be, the caller knows.
pub(super) async fn verify(
    keycloak: &Keycloak,
    token: &str,
    audience: &str,
    now: Timestamp,
) -> Result<Token, HookRefusal> {
    if token.len() > MAX_TOKEN {
        return Err(malformed("the token is too long"));
    }
    let (message, signature) = token
        .rsplit_once('.')
        .ok_or_else(|| malformed("the token is no compact JWS"))?;
    let (header, claims) = message
        .split_once('.')
        .filter(|(_, claims)| !claims.contains('.'))
        .ok_or_else(|| malformed("the token is no compact JWS"))?;
    let (header, claims) = (part(header)?, part(claims)?);
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    if header.contains_key("crit") {
        return Err(malformed(
            "the token has `crit`, and nothing critical is known here",
        ));
    }
    let kid = text("kid").ok_or_else(|| unproven("the token names no key"))?;
    let key = keycloak.hooks.keys.find(keycloak, kid).await?;
    let key = key.ok_or_else(|| unproven("the token names no key of this realm"))?;
    let algorithm = key
        .common
        .key_algorithm
        .and_then(|named| Algorithm::try_from(named).ok())
        .filter(|named| ASYMMETRIC.contains(named));
    let (Some(algorithm), Ok(public)) = (algorithm, DecodingKey::from_jwk(&key)) else {
        return Err(unproven("the token names a key that does not sign"));
    };
    if text("alg").and_then(|named| named.parse::<Algorithm>().ok()) != Some(algorithm) {
        return Err(unproven("the token names another algorithm than its key's"));
    }
    if !jsonwebtoken::crypto::verify(signature, message.as_bytes(), &public, algorithm).unwrap_or(false) {
        return Err(unproven("the token's signature does not verify"));
    }
    let token = Token {
        typ: text("typ").map(str::to_owned),
        claims,
    };
    if token.text("iss") != Some(keycloak.settings.issuer().as_str()) {
        return Err(unproven("the token is of another issuer"));
    }
    let ours = match token.claims.get("aud") {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(audience)),
        _ => false,
    };
    if !ours {
        return Err(unproven("the token is for another audience"));
    }
    match token.instant("iat") {
        Some(iat) if iat <= now.plus(SKEW) => Ok(token),
        _ => Err(unproven("the token is from the future, or has no `iat`")),
    }
}
