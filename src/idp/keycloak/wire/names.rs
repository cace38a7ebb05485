//! Names of everything that `wire` makes, in one place: the run-time adapter finds the objects by them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The claim.
pub const CLAIM: &str = "recovery_scope";
/// Role that every account outside a hold has, and the scope it opens.
pub const FULL: &str = "reentry-full";
/// What a held account keeps of the realm's default role.
pub const HELD_DEFAULTS: &str = "reentry-held-defaults";
/// Root of the hold groups.
pub const GROUP: &str = "/reentry";
/// `client_id` of the run-time account unless the operator chose another.
pub const RUNTIME_CLIENT: &str = "reentry";
/// Attribute of the run-time client that keeps what was there before.
pub const RECORD: &str = "reentry.wire.record";
/// Attribute of [`GROUP`] with the id of the realm's default role: the run-time account may read
/// groups, but neither roles by name nor the realm.
pub const DEFAULT_ROLE_ID: &str = "reentry.default-role.id";
/// Attribute of [`GROUP`] with the name of the realm's default role.
pub const DEFAULT_ROLE_NAME: &str = "reentry.default-role.name";
/// Groups below [`GROUP`] that map nothing: membership notes what a hold took from an account (the
/// default role, a `reentry-full` of its own, that it was switched on), so that a lift gives back
/// exactly that, and that it is contested; also when our store was lost. One that is missing is made
/// when a hold needs it.
pub const NOTES: [&str; 4] = ["contested", "lift.default-role", "lift.enabled", "lift.full-role"];
/// Alias of the copied reset flow.
pub const RESET_FLOW: &str = "reentry reset credentials";
/// User name prefix of the account that a check makes and deletes.
pub const CANARY: &str = "reentry-canary-";

/// Most octets of a claim value (contract, section 1).
const CLAIM_OCTETS: usize = 128;

/// A ceiling that a hold can have, written as in names: `read.write`, `read`, `none`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Level(String);

/// A level that is not `none` or a list of distinct action classes joined by dots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a hold level: `none`, or action classes of a-z 0-9 _ - joined by dots")]
pub struct LevelError(String);

impl Level {
    /// The level of a contested account: nothing is allowed. Always wired.
    #[must_use]
    pub fn none() -> Self {
        Self("none".to_owned())
    }

    /// As in names: `read.write`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The claim's value: `read write`.
    #[must_use]
    pub fn claim(&self) -> String {
        self.0.replace('.', " ")
    }

    /// Does a hold of this level allow `class`?
    #[must_use]
    pub fn allows(&self, class: &str) -> bool {
        self.0 != "none" && self.0.split('.').any(|word| word == class)
    }

    /// Role and client scope of the level: `reentry-hold.read.write`.
    #[must_use]
    pub fn object(&self) -> String {
        format!("reentry-hold.{}", self.0)
    }

    /// Name of the level's group below [`GROUP`].
    #[must_use]
    pub fn group(&self) -> String {
        format!("hold.{}", self.0)
    }

    /// Path of the level's group.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{GROUP}/{}", self.group())
    }

    /// The level that a group's name below [`GROUP`] stands for.
    #[must_use]
    pub fn of_group(name: &str) -> Option<Self> {
        name.strip_prefix("hold.").and_then(|level| level.parse().ok())
    }
}

impl FromStr for Level {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        let words: Vec<&str> = text.split('.').collect();
        let distinct: BTreeSet<&str> = words.iter().copied().collect();
        let word = |word: &&str| {
            (1..=32).contains(&word.len())
                && word
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
                && *word != "full"
                && (*word != "none" || words.len() == 1)
        };
        let fits = words.len() <= 16 && text.len() <= CLAIM_OCTETS && distinct.len() == words.len();
        if fits && words.iter().all(word) {
            Ok(Self(text.to_owned()))
        } else {
            Err(LevelError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Level {
    type Error = LevelError;

    fn try_from(text: String) -> Result<Self, LevelError> {
        text.parse()
    }
}

impl From<Level> for String {
    fn from(level: Level) -> Self {
        level.0
    }
}

impl fmt::Display for Level {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A realm role (`client` empty) or a client's role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RoleRef {
    /// `client_id` of the client, for a client's role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Name.
    pub name: String,
}

impl RoleRef {
    /// A realm role.
    #[must_use]
    pub fn realm(name: &str) -> Self {
        Self {
            client: None,
            name: name.to_owned(),
        }
    }

    /// A client's role.
    #[must_use]
    pub fn client(client: &str, name: &str) -> Self {
        Self {
            client: Some(client.to_owned()),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for RoleRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.client {
            Some(client) => write!(out, "{client}/{}", self.name),
            None => out.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ceilings_and_nothing_else() {
        for good in ["none", "read", "read.write", "x_trade.read"] {
            assert_eq!(good.parse::<Level>().map(String::from), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "full",
            "read.full",
            "none.read",
            "read.read",
            "Read",
            "read write",
            ".read",
            "a/b",
        ] {
            assert!(bad.parse::<Level>().is_err(), "{bad}");
        }
        let level: Level = "read.write".parse().unwrap_or_else(|_| Level::none());
        assert_eq!(level.claim(), "read write");
        assert_eq!(level.object(), "reentry-hold.read.write");
        assert_eq!(level.path(), "/reentry/hold.read.write");
        assert!(level.allows("write") && !level.allows("pay") && !Level::none().allows("none"));
        assert_eq!(Level::of_group("hold.read.write"), Some(level));
        assert_eq!(Level::of_group("holiday"), None);
    }
}
