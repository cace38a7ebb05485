//! Client assertions: `private_key_jwt` (RFC 7523 §3, OIDC Core §9).
//!
//! An assertion is a password that lives for minutes and works once. So it must say for whom it is (one audience, us),
//! when it ends, and which one it is. The key says which algorithms are possible: a key of one type never checks a
//! signature of another, and a shared secret is no key here at all.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::{Map, Value};

use crate::domain::time::{Span, Timestamp};
use crate::oidc::keys::RSA_MIN;
use crate::oidc::verify;

/// `client_assertion_type`.
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The longest an assertion may be valid for.
pub const LONGEST: Span = Span::from_mins(5);
/// What a client's clock may differ from ours.
const SKEW: Span = Span::from_secs(30);
/// Longest `jti` in octets.
const MAX_JTI: usize = 256;
/// `typ` of the header, where there is one.
const TYPES: [&str; 2] = ["JWT", "client-authentication+jwt"];

/// What an assertion may be signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alg {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Alg {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rs256, Self::Ps256, Self::Es256, Self::EdDsa];

    /// The JOSE name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    const fn jose(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Ps256 => jsonwebtoken::Algorithm::PS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// The public keys of a client.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKeys(Vec<Jwk>);

impl fmt::Debug for PublicKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|k| &k.common.key_id))
            .finish()
    }
}

/// Why a JWK Set is none that could be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeysFault(String);

impl PublicKeys {
    /// Reads a JWK Set (RFC 7517 §5). Keys of kinds that are not known are passed over.
    ///
    /// # Errors
    /// [`KeysFault`]: no JWK Set, a private or symmetric key in it, or none that could check anything.
    pub fn parse(text: &str) -> Result<Self, KeysFault> {
        let fault = |why: &str| KeysFault(why.to_owned());
        let set: Value = serde_json::from_str(text).map_err(|e| KeysFault(format!("it is no JSON: {e}")))?;
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or_else(|| fault("it is no JWK Set: there is no list `keys`"))?;
        if keys.iter().any(|k| k.get("d").is_some() || k.get("k").is_some()) {
            return Err(fault(
                "it holds a private or symmetric key; only public keys belong there",
            ));
        }
        let read = keys
            .iter()
            .filter_map(|k| serde_json::from_value::<Jwk>(k.clone()).ok());
        let usable: Vec<Jwk> = read
            .filter(|k| Alg::ALL.iter().any(|alg| fits(k, *alg)))
            .collect();
        if usable.is_empty() {
            return Err(fault("it holds no key for RS256, PS256, ES256 or EdDSA"));
        }
        Ok(Self(usable))
    }

    /// The key that a header names; without a name, the only one that fits.
    fn find(&self, kid: Option<&str>, alg: Alg) -> Result<&Jwk, Refusal> {
        let Some(kid) = kid else {
            let mut all = self.0.iter().filter(|k| fits(k, alg));
            let one = all.next().ok_or(Refusal::UnknownKey)?;
            return all.next().is_none().then_some(one).ok_or(Refusal::UnknownKey);
        };
        let named = self.0.iter().find(|k| k.common.key_id.as_deref() == Some(kid));
        let named = named.ok_or(Refusal::UnknownKey)?;
        fits(named, alg).then_some(named).ok_or(Refusal::Signature)
    }
}

/// Whether a key may check signatures of this algorithm.
fn fits(key: &Jwk, alg: Alg) -> bool {
    let kind = match (&key.algorithm, alg) {
        (AlgorithmParameters::RSA(rsa), Alg::Rs256 | Alg::Ps256) => rsa.n.len() * 3 / 4 >= RSA_MIN,
        (AlgorithmParameters::EllipticCurve(ec), Alg::Es256) => ec.curve == EllipticCurve::P256,
        (AlgorithmParameters::OctetKeyPair(ed), Alg::EdDsa) => ed.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    let named = key
        .common
        .key_algorithm
        .is_none_or(|a| a.to_string() == alg.as_str());
    let signs = key
        .common
        .public_key_use
        .as_ref()
        .is_none_or(|u| *u == PublicKeyUse::Signature);
    kind && named && signs
}

/// Why an assertion proves nothing. All of them are `invalid_client` outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a compact JWS, too long, a member twice, `crit`, an unknown `typ`.
    #[error("the assertion is malformed")]
    Malformed,
    /// It names no key of the client: worth another look at its keys.
    #[error("the assertion names no key of the client")]
    UnknownKey,
    /// An algorithm that is not the client's or not the key's, or a wrong signature.
    #[error("the assertion's signature does not verify")]
    Signature,
    /// `iss`, `sub`, `aud`, `exp` or `jti` is missing or wrong.
    #[error("the assertion is not this client's for us")]
    Claims,
    /// It is over, not valid yet, or valid for too long.
    #[error("the assertion is expired, not valid yet or valid for too long")]
    Expired,
}

/// What a good assertion says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asserted {
    /// Its name; it works once.
    pub jti: String,
    /// It is over here; until then its name has to be remembered.
    pub expires: Timestamp,
}

/// Whose assertion it says to be; nothing is proven by it.
#[must_use]
pub fn claimed(token: &str) -> Option<String> {
    let (_, claims) = verify::parts(token).ok()?;
    claims.get("sub")?.as_str().map(str::to_owned)
}

/// Checks an assertion of `client` at `now`: it must be for one of `audiences` and nobody else.
///
/// # Errors
/// [`Refusal`].
pub fn verify(
    token: &str,
    client: &str,
    keys: &PublicKeys,
    allowed: &BTreeSet<Alg>,
    audiences: &[&str],
    now: Timestamp,
) -> Result<Asserted, Refusal> {
    let (header, _) = verify::parts(token).map_err(|_| Refusal::Malformed)?;
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    let typ = header
        .get("typ")
        .is_none_or(|t| t.as_str().is_some_and(|t| TYPES.contains(&t)));
    if header.contains_key("crit") || !typ {
        return Err(Refusal::Malformed);
    }
    let alg = allowed.iter().find(|a| text("alg") == Some(a.as_str())).copied();
    let alg = alg.ok_or(Refusal::Signature)?;
    let key = keys.find(text("kid"), alg)?;
    let key = DecodingKey::from_jwk(key).map_err(|_| Refusal::Signature)?;
    let claims = verify::decode(token, &key, &validation(alg)).map_err(|refusal| match refusal {
        verify::Refusal::Signature => Refusal::Signature,
        verify::Refusal::Claims => Refusal::Claims,
        _ => Refusal::Malformed,
    })?;
    says(&claims, client, audiences, now)
}

fn validation(alg: Alg) -> Validation {
    let mut validation = Validation::new(alg.jose());
    // Looked at below, by our clock and without coercion.
    validation.required_spec_claims = HashSet::new();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

fn says(
    claims: &Map<String, Value>,
    client: &str,
    audiences: &[&str],
    now: Timestamp,
) -> Result<Asserted, Refusal> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let aud = match claims.get("aud") {
        Some(Value::String(one)) => Some(one.as_str()),
        // Somebody else's assertion must not work here, nor ours elsewhere: one audience.
        Some(Value::Array(all)) if all.len() == 1 => all.first().and_then(Value::as_str),
        _ => None,
    };
    let for_us = aud.is_some_and(|aud| audiences.contains(&aud));
    let jti = text("jti").filter(|j| !j.is_empty() && j.len() <= MAX_JTI);
    let ours = text("iss") == Some(client) && text("sub") == Some(client) && for_us;
    let jti = jti.filter(|_| ours).ok_or(Refusal::Claims)?;
    let instant = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value
            .as_i64()
            .map(|s| Some(Timestamp::from_secs(s)))
            .ok_or(Refusal::Claims),
    };
    let expires = instant("exp")?.ok_or(Refusal::Claims)?;
    let later = now.plus(SKEW);
    let early = [instant("nbf")?, instant("iat")?]
        .into_iter()
        .flatten()
        .any(|at| at > later);
    if now >= expires || expires > later.plus(LONGEST) || early {
        return Err(Refusal::Expired);
    }
    Ok(Asserted {
        jti: jti.to_owned(),
        expires,
    })
}
