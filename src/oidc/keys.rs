//! The key ring: our signing keys, parsed once and kept, behind [`Signer`].
//!
//! The usual JWT crate parses the private key for every token it signs, which costs more than the signature itself.
//! So the parsed pairs stay here and the compact form is put together by hand; that crate only ever *checks*
//! tokens ([`crate::oidc::verify`]).
//!
//! One file per key: keys come and go by adding and retiring files, and no file is ever rewritten with a private key of
//! another. A key that was just made is published at once but signs only from `active_from` on, so that relying parties
//! have it before they need it; a retired key stops signing at once and stays published until everything it signed is
//! over. RS256 is always among the current ones: relying parties that know nothing else must be able to read ID tokens.

pub mod file;
mod lifecycle;
pub mod rotation;

pub use lifecycle::{create, list, retire};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse, ThumbprintHash};

use crate::config::private::PrivateFault;
use crate::domain::time::{Span, Timestamp};
use crate::ports::clock::Clock;
use crate::ports::signer::{Algorithm, Signer, SignerError};
use file::{KeyFile, Purpose};

/// How long a retired key stays in the JWK Set: longer than any ID token or access token it may have signed.
pub const KEEP_RETIRED: Span = Span::from_days(7);
/// How long a new key is published before it signs, when there is a key to sign with meanwhile.
pub const PUBLISH_AHEAD: Span = Span::from_hours(1);
/// Smallest RSA modulus in octets (2048 bits, RFC 7518 §3.3).
pub const RSA_MIN: usize = 256;

/// All algorithms, in the order in which they are listed.
pub const ALGORITHMS: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

/// What is wrong with the keys. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// The directory cannot be read.
    #[error(
        "the keys directory {path} cannot be read ({why}); make it and a first key with `reentry keys create`"
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// Others can read a key file.
    #[error("the signing key {0}")]
    Exposed(PrivateFault),
    /// A key file is no key of ours.
    #[error("{path} is not a usable key: {why}; restore it from a backup or move it away")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// There is no current key of an algorithm that must be there.
    #[error("there is no current {0} key; make one with `reentry keys create --algorithm {0}`")]
    Missing(&'static str),
    /// A key could not be written.
    #[error("{path} cannot be written: {why}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The library failed to make a key.
    #[error("a key could not be made: {0}")]
    Make(String),
    /// There is no key of that id.
    #[error("there is no key {0}; `reentry keys list` shows them")]
    Unknown(String),
}

/// A parsed private key.
enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
    Ed(Box<Ed25519KeyPair>),
}

impl Pair {
    fn parse(algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, String> {
        let why = |e: aws_lc_rs::error::KeyRejected| e.to_string();
        match algorithm {
            Algorithm::Rs256 => {
                let pair = RsaKeyPair::from_pkcs8(pkcs8).map_err(why)?;
                if pair.public_modulus_len() < RSA_MIN {
                    return Err("its RSA modulus is shorter than 2048 bits".to_owned());
                }
                Ok(Self::Rsa(Box::new(pair)))
            }
            Algorithm::Es256 => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
                .map(|p| Self::Ec(Box::new(p)))
                .map_err(why),
            Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8(pkcs8)
                .map(|p| Self::Ed(Box::new(p)))
                .map_err(why),
        }
    }

    fn public(&self) -> DecodingKey {
        match self {
            Self::Rsa(p) => DecodingKey::from_rsa_der(p.public_key().as_ref()),
            Self::Ec(p) => DecodingKey::from_ec_der(p.public_key().as_ref()),
            Self::Ed(p) => DecodingKey::from_ed_der(p.public_key().as_ref()),
        }
    }

    fn sign(&self, message: &[u8], random: &SystemRandom) -> Result<Vec<u8>, SignerError> {
        let failed = |e: aws_lc_rs::error::Unspecified| SignerError::Failed(e.to_string());
        match self {
            Self::Rsa(p) => {
                let mut signature = vec![0; p.public_modulus_len()];
                p.sign(&RSA_PKCS1_SHA256, random, message, &mut signature)
                    .map_err(failed)?;
                Ok(signature)
            }
            Self::Ec(p) => Ok(p.sign(random, message).map_err(failed)?.as_ref().to_vec()),
            Self::Ed(p) => Ok(p.try_sign(message).map_err(failed)?.as_ref().to_vec()),
        }
    }
}

impl From<crate::config::keys::Jws> for Algorithm {
    fn from(configured: crate::config::keys::Jws) -> Self {
        match configured {
            crate::config::keys::Jws::Rs256 => Self::Rs256,
            crate::config::keys::Jws::Es256 => Self::Es256,
            crate::config::keys::Jws::EdDsa => Self::EdDsa,
        }
    }
}

/// The library's name of an algorithm.
pub(crate) const fn jose(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
    }
}

/// One key of the ring.
pub struct Key {
    /// RFC 7638 thumbprint of the public key (SHA-256, base64url).
    pub kid: String,
    /// What it signs with; a token that names another is refused.
    pub algorithm: Algorithm,
    /// What it is for.
    pub purpose: Purpose,
    /// When it was made.
    pub created: Timestamp,
    /// It signs from here on.
    pub active_from: Timestamp,
    /// It signs no more from here on.
    pub retired: Option<Timestamp>,
    pair: Pair,
    public: DecodingKey,
    jwk: serde_json::Value,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl Key {
    fn parse(file: &KeyFile) -> Result<Self, String> {
        let pair = Pair::parse(file.algorithm, &file.pkcs8)?;
        let public = pair.public();
        let (jwk, kid) = published(&public, file.algorithm)?;
        if kid != file.kid {
            return Err(format!("its kid is {} but the key inside is {kid}", file.kid));
        }
        Ok(Self {
            kid,
            algorithm: file.algorithm,
            purpose: file.purpose,
            created: file.created,
            active_from: file.active_from,
            retired: file.retired,
            pair,
            public,
            jwk,
        })
    }

    /// Whether it may sign at `now`.
    #[must_use]
    pub fn signs(&self, now: Timestamp) -> bool {
        self.active_from <= now && self.retired.is_none_or(|at| now < at)
    }

    /// Whether it still verifies at `now`, and so stands in the JWK Set, when retired keys do for `keep`.
    #[must_use]
    pub fn verifies(&self, now: Timestamp, keep: Span) -> bool {
        self.retired.is_none_or(|at| now < at.plus(keep))
    }

    /// The public half, for [`crate::oidc::verify`].
    #[must_use]
    pub const fn public(&self) -> &DecodingKey {
        &self.public
    }
}

/// The JWK (RFC 7517) and its thumbprint (RFC 7638).
fn published(public: &DecodingKey, algorithm: Algorithm) -> Result<(serde_json::Value, String), String> {
    let mut jwk = Jwk::from_decoding_key(public, None).map_err(|e| e.to_string())?;
    let kid = jwk
        .thumbprint(ThumbprintHash::SHA256)
        .map_err(|e| e.to_string())?;
    jwk.common.key_id = Some(kid.clone());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    jwk.common.key_algorithm = Some(match algorithm {
        Algorithm::Rs256 => KeyAlgorithm::RS256,
        Algorithm::Es256 => KeyAlgorithm::ES256,
        Algorithm::EdDsa => KeyAlgorithm::EdDSA,
    });
    let value = serde_json::to_value(&jwk).map_err(|e| e.to_string())?;
    Ok((value, kid))
}

/// Our keys. Loaded from a directory, and again when it changes; a ring that no longer loads leaves the old one.
pub struct KeyRing {
    directory: PathBuf,
    keys: ArcSwap<Vec<Arc<Key>>>,
    clock: Arc<dyn Clock>,
    random: SystemRandom,
    keep: Span,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRing")
            .field("directory", &self.directory)
            .field("keys", &self.keys.load())
            .finish_non_exhaustive()
    }
}

impl KeyRing {
    /// Reads every key of `directory`, and wants a current RS256 key and a current ES256 key among them.
    ///
    /// # Errors
    /// [`KeyFault`]: a directory or file that cannot be read, a key that others can read, a missing algorithm.
    pub fn load(directory: &Path, clock: Arc<dyn Clock>) -> Result<Self, KeyFault> {
        let keys = read_all(directory)?;
        let now = clock.now();
        for wanted in [Algorithm::Rs256, Algorithm::Es256] {
            if !keys.iter().any(|k| k.algorithm == wanted && k.signs(now)) {
                return Err(KeyFault::Missing(wanted.as_str()));
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            keys: ArcSwap::from_pointee(keys),
            clock,
            random: SystemRandom::new(),
            keep: KEEP_RETIRED,
        })
    }

    /// The same, with another time for which a retired key still verifies.
    #[must_use]
    pub const fn keeping(mut self, keep: Span) -> Self {
        self.keep = keep;
        self
    }

    /// Where its keys are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads the directory again: new keys are published, retired ones stop signing.
    ///
    /// # Errors
    /// [`KeyFault`]; the ring stays as it was.
    pub fn reload(&self) -> Result<(), KeyFault> {
        let next = Self::load(&self.directory, Arc::clone(&self.clock))?;
        self.keys.store(next.keys.load_full());
        Ok(())
    }

    /// The key of that id, if it still verifies.
    #[must_use]
    pub fn find(&self, kid: &str) -> Option<Arc<Key>> {
        let now = self.clock.now();
        self.keys
            .load()
            .iter()
            .find(|k| k.kid == kid && k.verifies(now, self.keep))
            .cloned()
    }

    /// Every key that still verifies, newest first.
    #[must_use]
    pub fn keys(&self) -> Vec<Arc<Key>> {
        let now = self.clock.now();
        let keys = self.keys.load();
        keys.iter()
            .filter(|k| k.verifies(now, self.keep))
            .cloned()
            .collect()
    }

    /// The key that signs now: the newest one that is active.
    fn current(&self, algorithm: Algorithm) -> Option<Arc<Key>> {
        let now = self.clock.now();
        let keys = self.keys.load();
        keys.iter()
            .find(|k| k.algorithm == algorithm && k.purpose == Purpose::Tokens && k.signs(now))
            .cloned()
    }
}

/// Reads and parses every key file, newest first.
fn read_all(directory: &Path) -> Result<Vec<Arc<Key>>, KeyFault> {
    let mut keys = Vec::new();
    for (path, file) in file::read_directory(directory)? {
        let key = Key::parse(&file).map_err(|why| KeyFault::Unusable { path, why })?;
        keys.push(Arc::new(key));
    }
    keys.sort_by(|a, b| (b.active_from, b.created, &b.kid).cmp(&(a.active_from, a.created, &a.kid)));
    Ok(keys)
}

#[async_trait]
impl Signer for KeyRing {
    async fn sign(&self, algorithm: Algorithm, typ: &str, claims: &[u8]) -> Result<String, SignerError> {
        let key = self
            .current(algorithm)
            .ok_or(SignerError::NoKey(algorithm.as_str()))?;
        let header = serde_json::json!({"typ": typ, "alg": algorithm.as_str(), "kid": key.kid});
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = key.pair.sign(token.as_bytes(), &self.random)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    fn jwks(&self) -> String {
        let keys: Vec<serde_json::Value> = self.keys().iter().map(|k| k.jwk.clone()).collect();
        serde_json::json!({ "keys": keys }).to_string()
    }

    fn algorithms(&self) -> Vec<Algorithm> {
        ALGORITHMS
            .into_iter()
            .filter(|a| self.current(*a).is_some())
            .collect()
    }
}

#[cfg(test)]
mod tests;
