//! Who holds a role that may end a freeze, and since when we know it (P11, P14).
//!
//! Whoever may manage users at the identity provider makes two administrators in a minute. Their word counts only when
//! the role is older than the probation by our own reckoning, so that the others, who were told of it, can act first.
//! Those who held it when the installation was made count at once. What was lost, or never seen, begins anew: nobody
//! gains age by a store that forgot.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::domain::time::{Now, Span, Timestamp};

/// Since before anything: held when the installation was made.
const FOUNDING: Timestamp = Timestamp::from_millis(0);

/// The holders of one identity provider, by `sub`, with every role that counts and since when it was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders {
    /// The accounts of the beginning are being looked at for the first time.
    founding: bool,
    people: BTreeMap<String, BTreeMap<String, Timestamp>>,
}

/// What a reading of an account changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The holders from now on.
    pub holders: Holders,
    /// Roles that the account has newly got; nobody is told of those of the beginning.
    pub gained: Vec<String>,
    /// Roles that it has no more.
    pub lost: Vec<String>,
}

/// Whether somebody's word counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It does.
    Counts,
    /// It will from this instant on, if nothing happens before.
    From(Timestamp),
    /// The account holds no role that counts.
    Nothing,
}

impl Holders {
    /// The holders of an installation that is being made: whoever is seen before [`Self::founded`] counts at once.
    #[must_use]
    pub fn founding() -> Self {
        Self {
            founding: true,
            ..Self::default()
        }
    }

    /// The same once every account has been looked at; `None` when that was over already.
    #[must_use]
    pub fn founded(&self) -> Option<Self> {
        self.founding.then(|| Self {
            founding: false,
            people: self.people.clone(),
        })
    }

    /// A reading at `at` shows that `sub` holds exactly `held` of the roles that count. `None` when that is known.
    #[must_use]
    pub fn seen(&self, sub: &str, held: &BTreeSet<String>, at: Timestamp) -> Option<Sighting> {
        let nothing = BTreeMap::new();
        let known = self.people.get(sub).unwrap_or(&nothing);
        let gained: Vec<String> = held.iter().filter(|r| !known.contains_key(*r)).cloned().collect();
        let lost: Vec<String> = known.keys().filter(|r| !held.contains(*r)).cloned().collect();
        if gained.is_empty() && lost.is_empty() {
            return None;
        }
        let since = if self.founding { FOUNDING } else { at };
        let roles: BTreeMap<String, Timestamp> = held
            .iter()
            .map(|role| (role.clone(), known.get(role).copied().unwrap_or(since)))
            .collect();
        let mut holders = self.clone();
        if roles.is_empty() {
            holders.people.remove(sub);
        } else {
            holders.people.insert(sub.to_owned(), roles);
        }
        Some(Sighting {
            holders,
            gained: if self.founding { Vec::new() } else { gained },
            lost,
        })
    }

    /// What the word of `sub` weighs at `now`, who holds `held` of the roles that count by a live reading.
    #[must_use]
    pub fn weight(&self, sub: &str, held: &BTreeSet<String>, probation: Span, now: Now) -> Weight {
        let known = self.people.get(sub).into_iter().flatten();
        let oldest = known
            .filter(|(role, _)| held.contains(*role))
            .map(|(_, at)| *at)
            .min();
        match oldest.map(|at| at.plus(probation)) {
            None => Weight::Nothing,
            Some(from) if from <= now.earliest() => Weight::Counts,
            Some(from) => Weight::From(from),
        }
    }

    /// Everybody but `sub`.
    pub fn others(&self, sub: &str) -> impl Iterator<Item = &str> {
        self.people.keys().map(String::as_str).filter(move |s| *s != sub)
    }

    /// How many accounts have a word that counts at `now` by one of `roles`, and from when on the next one's will.
    #[must_use]
    pub fn counting(
        &self,
        roles: &BTreeSet<String>,
        probation: Span,
        now: Now,
    ) -> (usize, Option<Timestamp>) {
        let weights = self
            .people
            .keys()
            .map(|sub| self.weight(sub, roles, probation, now));
        weights.fold((0, None), |(count, next), weight| match weight {
            Weight::Counts => (count + 1, next),
            Weight::From(at) => (count, Some(next.map_or(at, |next: Timestamp| next.min(at)))),
            Weight::Nothing => (count, next),
        })
    }

    /// How many accounts hold such a role.
    #[must_use]
    pub fn len(&self) -> usize {
        self.people.len()
    }

    /// Whether nobody does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.people.is_empty()
    }
}
