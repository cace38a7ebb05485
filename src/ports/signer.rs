//! Signing of tokens. Keys have a purpose and a `typ`; RS256 is always among them.

use async_trait::async_trait;

/// JWS algorithms we sign with (RFC 7518 §3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256, keys of at least 2048 bits.
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// The name in a JOSE header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// Why a token could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// There is no key for this algorithm.
    #[error("there is no signing key for {0}; make one with `reentry keys create`")]
    NoKey(&'static str),
    /// The key refused.
    #[error("the signing key failed: {0}")]
    Failed(String),
}

/// Signs compact JWS.
#[async_trait]
pub trait Signer: Send + Sync {
    /// Signs `claims` (a JSON object's octets) with the current key of `algorithm`; `typ` goes into the header.
    ///
    /// # Errors
    /// [`SignerError`]; nothing is issued then.
    async fn sign(&self, algorithm: Algorithm, typ: &str, claims: &[u8]) -> Result<String, SignerError>;

    /// The public keys as a JWK Set (RFC 7517 §5), JSON text: current ones and those that still verify.
    fn jwks(&self) -> String;

    /// Algorithms there is a current key for.
    fn algorithms(&self) -> Vec<Algorithm>;
}
