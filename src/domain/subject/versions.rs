//! Which of a subject's values belong together, and which is of before.
//!
//! Whoever can write to the store cannot make a value, since every one that decides is sealed; but he can put back one
//! that stood there once. So every commit of a subject has a number, larger than that of the one before, and the record's
//! value carries the numbers of the commits that wrote the others ([`Versions`]). A value whose number is another one
//! is not the one that was stored last, and a record whose number is lower than one that was seen is not either.

/// What the record's value says about all values of its subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// The commit that wrote it: every commit of the subject does.
    pub subject: u64,
    /// The commit that wrote the snapshot; 0 as long as there is none.
    pub account: u64,
    /// The commit that wrote the grants; 0 as long as there are none.
    pub grants: u64,
    /// Values were lost or altered, and are being made anew: what is there may be less than was true.
    pub mending: bool,
}

impl Versions {
    /// The number of the next commit: above every one that was seen, and the time of the commit in milliseconds where
    /// that is more. So it is also above those that were lost with the store, and that only others saw.
    #[must_use]
    pub fn next(before: Option<Self>, seen: u64, millis: u64) -> u64 {
        let last = before.map_or(0, |v| v.subject).max(seen);
        last.saturating_add(1).max(millis)
    }
}

/// A value beside the record, as a reading found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Beside {
    /// Nobody asked for it.
    #[default]
    Unasked,
    /// It is not there.
    Absent,
    /// It is genuine, and was written by this commit.
    Of(u64),
    /// It was not made by us for this place.
    Altered,
}

/// The record's value, as a reading found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anchor {
    /// It is not there.
    #[default]
    Absent,
    /// It is genuine, and says this.
    Of(Versions),
    /// It was not made by us for this place.
    Altered,
}

/// What a reading found of a subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// The record's value.
    pub anchor: Anchor,
    /// The snapshot.
    pub account: Beside,
    /// The grants.
    pub grants: Beside,
    /// Something else tells that the subject had values: a due entry, or one that was not asked for.
    pub witnessed: bool,
}

/// Why the values of a subject are no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// The record is gone.
    #[error("its record is gone, and other values of it are there or were seen")]
    Gone,
    /// The record was not made by us for this place.
    #[error("its record was altered, or belongs elsewhere")]
    Record,
    /// The record is one of before.
    #[error("its record is older than one that was seen")]
    Older,
    /// The snapshot is not the one that belongs to the record.
    #[error("its snapshot of contacts and factors is not the one that belongs to its record")]
    Account,
    /// The grants are not those that belong to the record.
    #[error("its sessions are not those that belong to its record")]
    Grants,
    /// It is being made anew.
    #[error("its values were lost or altered, and are being made anew from the identity provider")]
    Mending,
}

impl Values {
    /// Why this is no answer; nothing when it is one. `seen` is the highest number that was seen when the reading was
    /// asked for. Grants that are gone are no fault: without them nobody has a session.
    #[must_use]
    pub fn stale(&self, seen: u64) -> Option<Stale> {
        let versions = match self.anchor {
            Anchor::Of(versions) => versions,
            Anchor::Altered => return Some(Stale::Record),
            Anchor::Absent => {
                let beside = [self.account, self.grants];
                let nothing = |b: &Beside| matches!(b, Beside::Unasked | Beside::Absent);
                let never = !self.witnessed && seen == 0 && beside.iter().all(nothing);
                return (!never).then_some(Stale::Gone);
            }
        };
        if versions.subject < seen {
            return Some(Stale::Older);
        }
        let account = match self.account {
            Beside::Unasked => true,
            Beside::Absent => versions.account == 0,
            Beside::Of(number) => number == versions.account,
            Beside::Altered => false,
        };
        match (account, self.grants_fit()) {
            (false, _) => Some(Stale::Account),
            (_, false) => Some(Stale::Grants),
            _ => versions.mending.then_some(Stale::Mending),
        }
    }

    /// Whether the grants are those that belong to the record, or are not there.
    fn grants_fit(&self) -> bool {
        match (self.grants, self.anchor) {
            (Beside::Unasked | Beside::Absent, _) => true,
            (Beside::Of(number), Anchor::Of(versions)) => number == versions.grants,
            (Beside::Of(_) | Beside::Altered, _) => false,
        }
    }
}
