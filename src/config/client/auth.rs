//! How a client proves who it is.

use std::collections::BTreeSet;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::SecretHash;
use crate::config::reader::Section;
use crate::config::values::base_url;

/// Shortest client secret and admin key in octets.
const SHORTEST_SECRET: usize = 20;

/// How a client proves who it is at the token endpoint (OIDC Core §9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// A public client: PKCE stands in.
    None,
    /// `client_secret_basic`.
    Basic(SecretHash),
    /// `client_secret_post`.
    Post(SecretHash),
    /// `private_key_jwt`.
    PrivateKey {
        /// Where its public keys are.
        keys: ClientKeys,
        /// What it may sign with.
        algorithms: BTreeSet<AssertionAlg>,
    },
}

/// Where a client's public keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientKeys {
    /// A JWK Set, as text.
    Inline(String),
    /// The client publishes them here.
    Published(Url),
}

/// What a client assertion may be signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AssertionAlg {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

#[derive(Clone, Copy, PartialEq)]
enum Method {
    Basic,
    Post,
    PrivateKey,
    None,
}

pub(super) fn read(s: &Section<'_>) -> Option<ClientAuth> {
    let method = s.choice(
        "auth",
        Method::Basic,
        &[
            ("client_secret_basic", Method::Basic),
            ("client_secret_post", Method::Post),
            ("private_key_jwt", Method::PrivateKey),
            ("none", Method::None),
        ],
    );
    let secret = s.secret("secret");
    let hash = s.optional("secret_sha256", SecretHash::parse);
    let keys = keys(s);
    let algorithms = s.list("assertion_algorithms", algorithm);
    let (method, secret, hash, keys, algorithms) = (method?, secret?, hash?, keys?, algorithms?);
    if keys.is_some() && method != Method::PrivateKey {
        s.fault(
            "auth",
            "takes no keys of the client",
            "set private_key_jwt, or take the keys away",
        );
        return None;
    }
    if matches!(method, Method::None | Method::PrivateKey) && (secret.is_some() || hash.is_some()) {
        s.fault(
            "auth",
            if method == Method::None {
                "is none, but there is a secret"
            } else {
                "is private_key_jwt, but there is a secret"
            },
            "take the secret away, or set client_secret_basic",
        );
        return None;
    }
    match method {
        Method::None => Some(ClientAuth::None),
        Method::PrivateKey => private_key(s, keys, algorithms),
        Method::Basic => shared(s, secret, hash).map(ClientAuth::Basic),
        Method::Post => shared(s, secret, hash).map(ClientAuth::Post),
    }
}

fn private_key(
    s: &Section<'_>,
    keys: Option<ClientKeys>,
    algorithms: Vec<AssertionAlg>,
) -> Option<ClientAuth> {
    let Some(keys) = keys else {
        let advice = "name a file with the client's public keys, or its `jwks_uri`";
        s.fault("jwks_file", "is missing", advice);
        return None;
    };
    let all = [
        AssertionAlg::Rs256,
        AssertionAlg::Ps256,
        AssertionAlg::Es256,
        AssertionAlg::EdDsa,
    ];
    let algorithms: BTreeSet<AssertionAlg> = if algorithms.is_empty() {
        all.into()
    } else {
        algorithms.into_iter().collect()
    };
    Some(ClientAuth::PrivateKey { keys, algorithms })
}

fn algorithm(text: &str) -> Result<AssertionAlg, String> {
    match text {
        "RS256" => Ok(AssertionAlg::Rs256),
        "PS256" => Ok(AssertionAlg::Ps256),
        "ES256" => Ok(AssertionAlg::Es256),
        "EdDSA" => Ok(AssertionAlg::EdDsa),
        other => Err(format!("is `{other}`; write RS256, PS256, ES256 or EdDSA")),
    }
}

#[expect(clippy::option_option, reason = "not there and not readable are two things")]
fn keys(s: &Section<'_>) -> Option<Option<ClientKeys>> {
    let file = s.contents("jwks_file");
    let url = s.optional("jwks_uri", base_url);
    match (file?, url?) {
        (Some(_), Some(_)) => {
            s.fault("jwks_uri", "is given beside `jwks_file`", "keep one of them");
            None
        }
        (Some((path, text)), None) => {
            let set = serde_json::from_str::<Value>(&text).ok();
            let keys = set.as_ref().and_then(|set| set.get("keys")?.as_array());
            let private = |key: &Value| key.get("d").is_some() || key.get("k").is_some();
            if keys.is_none_or(|keys| keys.is_empty() || keys.iter().any(private)) {
                let problem = format!("names {}, which is no JWK Set of public keys", path.display());
                s.fault(
                    "jwks_file",
                    problem,
                    "write {\"keys\": [...]} with public keys only (RFC 7517 §5)",
                );
                return None;
            }
            Some(Some(ClientKeys::Inline(text)))
        }
        (None, Some(url)) => Some(Some(ClientKeys::Published(url))),
        (None, None) => Some(None),
    }
}

fn shared(s: &Section<'_>, secret: Option<SecretString>, hash: Option<SecretHash>) -> Option<SecretHash> {
    match (secret, hash) {
        (Some(secret), None) => long_secret(s, "secret", &secret),
        (None, Some(hash)) => Some(hash),
        (None, None) => {
            s.fault(
                "secret_file",
                "is missing",
                "name a file with the client's secret, or set `auth: none` for a public client",
            );
            None
        }
        (Some(_), Some(_)) => {
            s.fault(
                "secret_sha256",
                "is given beside the secret itself",
                "keep one of them",
            );
            None
        }
    }
}

/// The hash of a secret that is long enough to be kept as a plain hash.
pub(in crate::config) fn long_secret(
    s: &Section<'_>,
    key: &str,
    secret: &SecretString,
) -> Option<SecretHash> {
    let octets = secret.expose_secret().as_bytes();
    if octets.len() < SHORTEST_SECRET {
        let key = if s.node(key).is_some() {
            key.to_owned()
        } else {
            format!("{key}_file")
        };
        let advice = "make a random one, for example `openssl rand -base64 32`";
        s.fault(
            &key,
            format!("is shorter than {SHORTEST_SECRET} characters"),
            advice,
        );
        return None;
    }
    Some(SecretHash::of(octets))
}
