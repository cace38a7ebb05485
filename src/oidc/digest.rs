//! Hashes and comparisons the protocol needs.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA512, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::ports::signer::Algorithm;

/// SHA-256.
#[must_use]
pub fn sha256(message: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, message).as_ref());
    out
}

/// The `S256` code challenge of a verifier (RFC 7636 §4.2).
#[must_use]
pub fn s256(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes()))
}

/// `at_hash` of an access token for ID tokens signed with `algorithm`: the left half of the hash that the algorithm
/// uses (OIDC Core §3.1.3.6), which for Ed25519 is SHA-512 (RFC 8032 §5.1).
#[must_use]
pub fn half_hash(token: &str, algorithm: Algorithm) -> String {
    let hash = match algorithm {
        Algorithm::Rs256 | Algorithm::Es256 => &SHA256,
        Algorithm::EdDsa => &SHA512,
    };
    let full = digest(hash, token.as_bytes());
    let half = full.as_ref().get(..full.as_ref().len() / 2).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(half)
}

/// Whether two strings are equal, in time that depends on their length only.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // OIDC Core §3.1.3.6, with the token of its appendix A.4 for SHA-256; SHA-512's half has 32 octets, 43 characters.
    #[test]
    fn at_hash_is_of_the_hash_of_the_signing_algorithm() {
        let token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
            assert_eq!(half_hash(token, algorithm), "77QmUPtjPfzWtF2AnpK9RQ");
        }
        let mut whole = [0; 64];
        whole.copy_from_slice(digest(&SHA512, token.as_bytes()).as_ref());
        let half = URL_SAFE_NO_PAD.encode(&whole[..32]);
        assert_eq!(half_hash(token, Algorithm::EdDsa), half);
        assert_eq!(half.len(), 43);
    }
}
