//! Hashes and comparisons the protocol needs.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

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

/// `at_hash` of an access token for ID tokens signed with a SHA-256 algorithm: the left half of the hash
/// (OIDC Core §3.1.3.6).
#[must_use]
pub fn half_hash(token: &str) -> String {
    let full = sha256(token.as_bytes());
    let half = full.get(..16).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(half)
}

/// Whether two strings are equal, in time that depends on their length only.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}
