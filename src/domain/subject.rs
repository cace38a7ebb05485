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
    /// The IdP's `sub`, verbatim. OIDC Core §2 asks for at most 255 ASCII octets; ids that come out of a directory or a
    /// user database of somebody's own have blanks, umlauts and slashes, and their accounts are held like any other.
    pub sub: String,
}

impl Subject {
    /// The longest `sub`, in octets: 255 characters of any script.
    pub const MAX: usize = 1020;

    /// Whether it can be the `sub` of an account: not empty, not too long, without control characters. Those do not
    /// travel in a URL, so an account could be taken for another one.
    #[must_use]
    pub fn is_sub(sub: &str) -> bool {
        (1..=Self::MAX).contains(&sub.len()) && !sub.chars().any(char::is_control)
    }

    /// A subject; `None` when `sub` can be none.
    #[must_use]
    pub fn new(upstream: UpstreamId, sub: &str) -> Option<Self> {
        Self::is_sub(sub).then(|| Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_takes_the_ids_that_identity_providers_use() {
        let made = |sub: &str| Subject::new(UpstreamId::parse("kc").unwrap(), sub);
        for sub in [
            "f:7c1d:jürgen müller",
            "x:a/b",
            "50%",
            "CN=Ann Lee,OU=People;x",
            "_*\\",
            &"é".repeat(510),
        ] {
            assert_eq!(made(sub).unwrap().sub, sub, "verbatim");
        }
        for sub in ["", "a\nb", "a\0", "a\u{85}b", &"é".repeat(511)] {
            assert_eq!(made(sub), None, "{sub:?}");
        }
        assert_ne!(made("Bob"), made("bob"));
        assert_ne!(made("bob"), made("bob "));
    }
}
