//! The one place where our own tokens are checked.
//!
//! A token names its key; the key says the algorithm, never the token (RFC 8725 §3.1). `typ` must be the one that the
//! caller expects, so an ID token is never an access token (contract section 2). `exp`, `iss` and `aud` must be there.
//! A header with `crit`, or an object with a member twice anywhere, is refused: what two readers could read differently
//! is nobody's token. Time is an argument, so the library's own look at the clock is switched off.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Validation;
use serde_json::{Map, Value};

use crate::domain::json;
use crate::domain::time::Timestamp;
use crate::oidc::keys::{KeyRing, jose};
use crate::ports::signer::Algorithm;

/// Longest token that is looked at, in octets.
pub const MAX_TOKEN: usize = 16 * 1024;
/// `typ` of our access tokens (RFC 9068 §2.1).
pub const ACCESS_TOKEN: &str = "at+jwt";
/// `typ` of our ID tokens.
pub const ID_TOKEN: &str = "JWT";

/// What a token has to be.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// `iss`, exactly.
    pub issuer: &'a str,
    /// One of `aud` must be this; `None` accepts any, but it must be there.
    pub audience: Option<&'a str>,
    /// `typ` of the header, exactly (RFC 9068: `at+jwt`).
    pub typ: &'a str,
    /// An expired token is good enough (`id_token_hint` at log-out, OIDC RP-Initiated Logout §4).
    pub expired: bool,
}

/// A token that is ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// Its claims.
    pub claims: Map<String, Value>,
    /// The key that signed it.
    pub kid: String,
    /// That key's algorithm.
    pub algorithm: Algorithm,
    /// `exp` and `nbf`.
    times: Times,
}

/// When a token may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    until: Timestamp,
    from: Option<Timestamp>,
}

impl Verified {
    /// A claim that is a string.
    #[must_use]
    pub fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    /// A claim that is a whole number.
    #[must_use]
    pub fn number(&self, claim: &str) -> Option<i64> {
        self.claims.get(claim).and_then(Value::as_i64)
    }
}

/// Why a token is not accepted. Outside, each of them is `invalid_token` (or `active: false`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a compact JWS, too long, a member twice, `crit`.
    #[error("the token is malformed")]
    Malformed,
    /// Signed with a key that is not ours (any more).
    #[error("the token names no key of ours")]
    UnknownKey,
    /// It names another algorithm than its key's, or the signature is wrong.
    #[error("the token's signature does not verify")]
    Signature,
    /// Another kind of token.
    #[error("the token is of another kind")]
    Kind,
    /// `exp`, `iss` or `aud` is missing, or is somebody else's.
    #[error("the token is not for this issuer and audience: `iss`, `aud` or `exp` is missing or another's")]
    Claims,
    /// `exp` has passed, or `nbf` has not.
    #[error("the token is expired or not valid yet")]
    Expired,
}

/// Checks a token of ours at `now`.
///
/// # Errors
/// [`Refusal`].
pub fn verify(
    ring: &KeyRing,
    token: &str,
    expected: &Expected<'_>,
    now: Timestamp,
) -> Result<Verified, Refusal> {
    let (header, _) = parts(token)?;
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    if header.contains_key("crit") {
        return Err(Refusal::Malformed);
    }
    let key = text("kid")
        .and_then(|kid| ring.find(kid))
        .ok_or(Refusal::UnknownKey)?;
    if text("alg") != Some(key.algorithm.as_str()) {
        return Err(Refusal::Signature);
    }
    if text("typ") != Some(expected.typ) {
        return Err(Refusal::Kind);
    }
    let claims = decode(token, key.public(), &validation(key.algorithm, expected))?;
    let times = times(&claims)?;
    if !expected.expired {
        times.right(now)?;
    }
    Ok(Verified {
        times,
        claims,
        kid: key.kid.clone(),
        algorithm: key.algorithm,
    })
}

/// Checks again what time can change of a token that was verified before: its key has to be one of ours still, and its
/// own time must not be over.
///
/// # Errors
/// [`Refusal::UnknownKey`], [`Refusal::Expired`].
pub fn still(ring: &KeyRing, verified: &Verified, now: Timestamp) -> Result<(), Refusal> {
    ring.find(&verified.kid)
        .filter(|key| key.algorithm == verified.algorithm)
        .ok_or(Refusal::UnknownKey)?;
    verified.times.right(now)
}

/// Header and claims of a token.
pub(super) type Parts = (Map<String, Value>, Map<String, Value>);

/// Header and claims, unverified, after a look at both JSON objects for members that are there twice.
pub(super) fn parts(token: &str) -> Result<Parts, Refusal> {
    if token.len() > MAX_TOKEN {
        return Err(Refusal::Malformed);
    }
    let mut split = token.split('.');
    let (Some(header), Some(claims), Some(_), None) =
        (split.next(), split.next(), split.next(), split.next())
    else {
        return Err(Refusal::Malformed);
    };
    let claims = object(claims)?;
    Ok((object(header)?, claims))
}

fn object(part: &str) -> Result<Map<String, Value>, Refusal> {
    let octets = URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed)?;
    json::object(&octets).map_err(|_| Refusal::Malformed)
}

fn validation(algorithm: Algorithm, expected: &Expected<'_>) -> Validation {
    let mut validation = Validation::new(jose(algorithm));
    validation.required_spec_claims = HashSet::from(["exp".to_owned(), "iss".to_owned(), "aud".to_owned()]);
    validation.validate_exp = false;
    validation.set_issuer(&[expected.issuer]);
    if let Some(audience) = expected.audience {
        validation.set_audience(&[audience]);
    } else {
        validation.validate_aud = false;
    }
    validation
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where a token of ours, or an assertion for us, is decoded, with everything pinned"
)]
pub(super) fn decode(
    token: &str,
    key: &jsonwebtoken::DecodingKey,
    validation: &Validation,
) -> Result<Map<String, Value>, Refusal> {
    use jsonwebtoken::errors::ErrorKind;
    jsonwebtoken::decode::<Map<String, Value>>(token, key, validation)
        .map(|data| data.claims)
        .map_err(|e| match e.kind() {
            ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => Refusal::Signature,
            ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience | ErrorKind::MissingRequiredClaim(_) => {
                Refusal::Claims
            }
            _ => Refusal::Malformed,
        })
}

fn times(claims: &Map<String, Value>) -> Result<Times, Refusal> {
    let instant = |value: &Value| value.as_i64().map(Timestamp::from_secs).ok_or(Refusal::Claims);
    Ok(Times {
        until: claims.get("exp").ok_or(Refusal::Claims).and_then(instant)?,
        from: claims.get("nbf").map(instant).transpose()?,
    })
}

impl Times {
    fn right(&self, now: Timestamp) -> Result<(), Refusal> {
        if self.until <= now || self.from.is_some_and(|from| now < from) {
            return Err(Refusal::Expired);
        }
        Ok(())
    }
}
