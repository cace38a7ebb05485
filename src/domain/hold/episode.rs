//! Episodes: holds that overlap are one.

use super::Cause;
use crate::domain::ceiling::Ceiling;
use crate::domain::policy::AtEnd;
use crate::domain::time::Timestamp;

/// Holds that overlap: they end as one, with the intersection of what they allow (domain "Merge").
pub(super) struct Episode<'a> {
    /// Its number.
    pub(super) number: u32,
    /// What it is made of.
    pub(super) causes: Vec<&'a Cause>,
}

impl Episode<'_> {
    /// When the first of them began.
    pub(super) fn start(&self) -> Timestamp {
        self.causes.iter().map(|c| c.at).min().unwrap_or_default()
    }

    /// When the last of them ends.
    pub(super) fn end(&self) -> Timestamp {
        self.causes.iter().map(|c| c.end()).max().unwrap_or_default()
    }

    /// What all of them allow.
    pub(super) fn allowed(&self) -> Ceiling {
        self.causes
            .iter()
            .fold(Ceiling::Full, |all, c| all.intersect(&c.allowed))
    }

    /// The strictest way in which tokens become whole again.
    pub(super) fn at_end(&self) -> AtEnd {
        self.causes.iter().map(|c| c.at_end).max().unwrap_or(AtEnd::Auto)
    }

    /// The case to name: the one that ends last.
    pub(super) fn reference(&self) -> String {
        let last = self.causes.iter().max_by_key(|c| c.end());
        last.map(|c| c.reference.clone()).unwrap_or_default()
    }
}
