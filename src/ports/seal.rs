//! Keyed names and message authentication, with keys that never leave the adapter.

use crate::domain::subject::Subject;
use crate::domain::subject::account::{ChannelId, ContactKind};

/// What a MAC is for; a MAC of one purpose never verifies as another (P12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Authorization codes.
    Code,
    /// Refresh tokens.
    Refresh,
    /// "This was not me" links.
    Report,
    /// Browser cookies and login state.
    Cookie,
    /// Form tokens against cross-site requests.
    Form,
    /// What the installation keeps about itself: administrators, and the policy that is in force.
    Installation,
}

/// Keyed hashing.
pub trait Seal: Send + Sync {
    /// A 32-octet MAC of `message` for `purpose` (HMAC-SHA-256).
    fn mac(&self, purpose: Purpose, message: &[u8]) -> [u8; 32];

    /// Whether `mac` is right, in constant time; accepts the keys of before during a key rotation.
    fn verify(&self, purpose: Purpose, message: &[u8], mac: &[u8]) -> bool;

    /// Encrypts and authenticates what somebody carries for us under a name that is used for nothing else; `None` when
    /// the system's cryptography fails. The name keys it: what strangers let us seal wears out no key of the store.
    fn enclose(&self, name: &str, plain: &[u8]) -> Option<Vec<u8>>;

    /// Opens what was enclosed under that name; accepts the keys of before during a key rotation.
    fn disclose(&self, name: &str, sealed: &[u8]) -> Option<Vec<u8>>;

    /// The key of a subject in the store: partition and keyed hash. No `sub` can be read from it.
    fn subject(&self, subject: &Subject) -> SubjectKey;

    /// The name of the case that a change of this id opens: the same from every source and every time, also after the
    /// store was lost, so that links in messages that were sent stay good. 22 of `A-Z a-z 0-9 - _`; nothing can be
    /// read from it.
    fn case(&self, subject: &Subject, change: &str) -> String;

    /// The keyed name of an address, after normalisation (e-mail: trimmed, lower case; phone: digits and `+`).
    fn channel(&self, kind: ContactKind, address: &str) -> ChannelId;
}

/// Where a subject lives in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectKey(pub [u8; 16]);

impl SubjectKey {
    /// The partition, 0 to 255: the first octet of the keyed hash.
    #[must_use]
    pub const fn partition(&self) -> u8 {
        let [first, ..] = self.0;
        first
    }

    /// Where the subject falls among 10,000 for a cohort roll-out; independent of the partition.
    #[must_use]
    pub const fn place(&self) -> u16 {
        let [_, a, b, ..] = self.0;
        (((a as u32) << 8 | b as u32) * 10_000 / 65_536) as u16
    }
}
