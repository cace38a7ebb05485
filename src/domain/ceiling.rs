//! Action classes and the ceiling they form: the value of `recovery_scope` (contract section 1).
//!
//! ```text
//! recovery-scope = "full" / "none" / ( action *15( SP action ) )
//! action         = 1*32( %x61-7A / DIGIT / "_" / "-" )   ; single spaces, at most 128 octets, no duplicates
//! ```

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest `recovery_scope` in octets.
pub const MAX_OCTETS: usize = 128;
/// The most action classes one `recovery_scope` may name.
pub const MAX_CLASSES: usize = 16;
/// Prefix of OAuth scope words that are ceilings too (contract section 2, rule 5).
pub const HOLD_WORD: &str = "reentry-hold.";

/// The six classes of version 1, in the order in which they are written.
pub const STANDARD: [&str; 6] = ["read", "write", "export", "pay", "credential", "admin"];

/// One action class: `read`, `write`, `export`, `pay`, `credential`, `admin`, or a deployment's own `x_…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(String);

impl Class {
    /// Reads one word of the grammar; `full` and `none` are not classes.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let fits = (1..=32).contains(&word.len())
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        (fits && word != "full" && word != "none").then(|| Self(word.to_owned()))
    }

    /// The word itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the word is one of version 1 or a deployment's own (`x_…`), so that a policy may use it.
    #[must_use]
    pub fn is_declared(&self) -> bool {
        STANDARD.contains(&self.0.as_str()) || (self.0.starts_with("x_") && self.0.len() > 2)
    }

    fn rank(&self) -> (usize, &str) {
        (
            STANDARD
                .iter()
                .position(|s| *s == self.0)
                .unwrap_or(STANDARD.len()),
            &self.0,
        )
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Class {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Class {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Self::parse(&word).ok_or_else(|| serde::de::Error::custom(format!("`{word}` is not an action class")))
    }
}

/// An upper bound on what a token may be used for. Never a grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ceiling {
    /// No restriction from recovery.
    Full,
    /// Only these classes; the empty set is `none`.
    Only(BTreeSet<Class>),
}

impl Ceiling {
    /// Nothing at all.
    #[must_use]
    pub const fn none() -> Self {
        Self::Only(BTreeSet::new())
    }

    /// The ceiling of these standard or own words; words that are no class are left out (stricter).
    #[must_use]
    pub fn of(words: &[&str]) -> Self {
        Self::Only(words.iter().filter_map(|w| Class::parse(w)).collect())
    }

    /// Reads a `recovery_scope` value. `None` when it breaks the grammar, which a reader treats as `none`.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        match value {
            "full" => return Some(Self::Full),
            "none" => return Some(Self::none()),
            _ => {}
        }
        if value.len() > MAX_OCTETS {
            return None;
        }
        let mut classes = BTreeSet::new();
        for word in value.split(' ') {
            if !classes.insert(Class::parse(word)?) || classes.len() > MAX_CLASSES {
                return None;
            }
        }
        Some(Self::Only(classes))
    }

    /// Reads what follows [`HOLD_WORD`] in an OAuth scope word: `read.write` or `none`.
    /// Anything malformed, and `full`, is `none`: a damaged ceiling is never a higher one.
    #[must_use]
    pub fn parse_level(level: &str) -> Self {
        match Self::parse(&level.replace('.', " ")) {
            Some(Self::Only(classes)) if !level.contains(' ') => Self::Only(classes),
            _ => Self::none(),
        }
    }

    /// The level's name for roles, groups and scopes at an IdP: `read.write`, `none`, `full`.
    #[must_use]
    pub fn level(&self) -> String {
        self.to_string().replace(' ', ".")
    }

    /// What both allow.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Full, x) | (x, Self::Full) => x.clone(),
            (Self::Only(a), Self::Only(b)) => Self::Only(a.intersection(b).cloned().collect()),
        }
    }

    /// Whether an endpoint of this class may be used.
    #[must_use]
    pub fn allows(&self, class: &Class) -> bool {
        match self {
            Self::Full => true,
            Self::Only(classes) => classes.contains(class),
        }
    }

    /// Whether this allows nothing that `other` does not.
    #[must_use]
    pub fn within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Full) => true,
            (Self::Full, Self::Only(_)) => false,
            (Self::Only(a), Self::Only(b)) => a.is_subset(b),
        }
    }

    /// Whether nothing is restricted.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full)
    }

    /// Whether nothing is allowed.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Only(classes) if classes.is_empty())
    }
}

impl fmt::Display for Ceiling {
    /// The claim's value: `full`, `none`, or the classes in their standard order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Only(classes) if classes.is_empty() => f.write_str("none"),
            Self::Only(classes) => {
                let mut words: Vec<&Class> = classes.iter().collect();
                words.sort_by_key(|c| c.rank());
                for (i, word) in words.iter().enumerate() {
                    if i > 0 {
                        f.write_str(" ")?;
                    }
                    f.write_str(word.as_str())?;
                }
                Ok(())
            }
        }
    }
}

impl Serialize for Ceiling {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ceiling {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = String::deserialize(deserializer)?;
        Self::parse(&value)
            .ok_or_else(|| serde::de::Error::custom(format!("`{value}` is not a recovery scope")))
    }
}
