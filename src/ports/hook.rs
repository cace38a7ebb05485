//! Pushes from outside: a wake-up for the poller, or a change that any program tells.
//!
//! Whoever pushes is proven before anything is read, and even then only a signed change of the generic hook is taken
//! for what it says. Everything else only makes us look for ourselves.

use std::collections::BTreeMap;

use crate::ports::idp::Line;

/// Which hook was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookKind {
    /// A change from any program (Standard Webhooks).
    Generic,
    /// The webhook of an extension of the IdP (Phase Two's `keycloak-events`).
    Extension,
    /// A logout token (`OpenID` Connect Back-Channel Logout 1.0); the body is the token itself.
    Logout,
}

impl HookKind {
    /// The kind's name in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Extension => "extension",
            Self::Logout => "logout",
        }
    }

    /// The request headers that it reads, in lower case.
    #[must_use]
    pub const fn headers(self) -> &'static [&'static str] {
        match self {
            Self::Generic => &["webhook-id", "webhook-timestamp", "webhook-signature"],
            Self::Extension => &["x-keycloak-signature", "authorization"],
            Self::Logout => &[],
        }
    }
}

/// A call of a hook.
#[derive(Clone, Debug)]
pub struct HookCall<'a> {
    /// Which hook.
    pub kind: HookKind,
    /// Those of [`HookKind::headers`] that were sent, each once.
    pub headers: BTreeMap<&'static str, &'a str>,
    /// The body, octet by octet.
    pub body: &'a [u8],
}

impl HookCall<'_> {
    /// A header by its name in lower case.
    ///
    /// # Errors
    /// [`HookRefusal::Malformed`] when it was not sent.
    pub fn header(&self, name: &str) -> Result<&str, HookRefusal> {
        let found = self.headers.get(name).copied().map(str::trim);
        found
            .filter(|value| !value.is_empty())
            .ok_or_else(|| HookRefusal::Malformed(format!("the header {name} is missing")))
    }
}

/// What a proven call says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heeded {
    /// Something happened, perhaps to this account: look for yourself.
    Wake {
        /// The account's `sub`, when one was named.
        sub: Option<String>,
    },
    /// This happened: to be taken in before the call is answered.
    Told(Line),
}

/// Why a call is not heeded. Each text says what to do about it and repeats no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookRefusal {
    /// This hook is not configured for this IdP.
    #[error("this hook is not configured")]
    NotConfigured,
    /// The call cannot be understood.
    #[error("{0}")]
    Malformed(String),
    /// Nothing proves who calls: no signature of ours, or one that is too old or from the future.
    #[error("{0}")]
    Unproven(String),
    /// It was heeded before.
    #[error("{0}")]
    Replayed(String),
    /// It is understood and proven, and says something that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// What proves it cannot be had now; the caller repeats.
    #[error("{0}")]
    Unavailable(String),
}
