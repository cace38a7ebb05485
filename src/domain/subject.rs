//! Who an account is, and what is known about its contacts and factors.

pub mod account;
pub mod versions;

use std::fmt;

use serde::{Deserialize, Serialize};

/// The configured id of an IdP: 1 to 32 of `a-z 0-9 -`, never its URL, so that a move of the IdP moves no key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UpstreamId(String);

impl UpstreamId {
    /// Reads a configured id.
    #[must_use]
    pub fn parse(id: &str) -> Option<Self> {
        let fits = (1..=32).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        fits.then(|| Self(id.to_owned()))
    }

    /// The id itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UpstreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An account: the IdP by its configured id, and the IdP's own `sub`. Everything is kept per subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// The IdP.
    pub upstream: UpstreamId,
    /// The IdP's `sub`, verbatim, at most 255 ASCII octets (OIDC Core §2).
    pub sub: String,
}

impl Subject {
    /// A subject; `None` when `sub` is empty, too long or not printable ASCII.
    #[must_use]
    pub fn new(upstream: UpstreamId, sub: &str) -> Option<Self> {
        let fits = (1..=255).contains(&sub.len()) && sub.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self {
            upstream,
            sub: sub.to_owned(),
        })
    }

    /// `upstream/sub`: one name for a person, so that two IdPs' equal `sub`s are two people.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.upstream, self.sub)
    }
}
